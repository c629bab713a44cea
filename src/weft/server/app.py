"""The routes: what is asked over HTTP is checked, put to the loop of its run, and answered."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.errors import DataError, UsageError, WeftError, did_you_mean, listing
from weft.features.chat import Refused as ChatRefused
from weft.results.explain.page import told as explanation_told
from weft.server import bodies
from weft.server.bodies import Body
from weft.server.guard import Guard
from weft.server.loop import Full, Gone, Loop, Ticket
from weft.server.metrics import Metrics
from weft.server.served import Served
from weft.server.texts import Work, chat_work, check_fits, completion_work, event_of, pieces, whole
from weft.server.writer import Writer

QUEUE = 256
RETRY = 1
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": bodies.Failed, "description": "The request is wrong; the message says what to change"},
    401: {"model": bodies.Failed, "description": "A key is needed"},
    404: {"model": bodies.Failed, "description": "No such run, or none that can do it"},
    413: {"model": bodies.Failed, "description": "The body is too large"},
    429: {"model": bodies.Failed, "description": "Too many requests of this key"},
    500: {"model": bodies.Failed, "description": "The model failed"},
    503: {"model": bodies.Failed, "description": "The queue is full; Retry-After says when to come again"},
}
_CLOSED: dict[int | str, dict[str, Any]] = {status: _ERRORS[status] for status in (401, 429)}
B = TypeVar("B", bound=Body)


class Server:
    """The runs that are served, each with the loop that owns it."""

    def __init__(self, served: Sequence[Served], queue: int = QUEUE):
        self.served = {one.name: one for one in served}
        self.loops = {one.name: Loop(one.name, Writer(one.model) if one.writes else None, queue) for one in served}
        self.metrics = Metrics()
        self.metrics.watch(list(self.loops.values()))

    def find(self, body: Body, can: str) -> tuple[Served, Loop]:
        """The run that a request names, or the first that can do it."""
        able = [name for name, one in self.served.items() if can in one.can]
        name = body.model if body.model is not None else next(iter(able), None)
        if name not in able:
            what = f"'{name}' cannot do this" if name in self.served else f"there is no run '{name}'"
            near = did_you_mean(name or "", able)
            raise Refused(404, f"model: {what}. These can: {listing(able)}.{near}", "model_not_found", "model")
        return self.served[str(name)], self.loops[str(name)]


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The schema of all routes; what is wrong is always 400 in one form."""
        if self.openapi_schema is None:
            found = get_openapi(title=self.title, version=self.version, routes=self.routes)
            for path, operations in found["paths"].items():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    if self.state.keyed:
                        operation["security"] = [] if path == "/healthz" else [{"key": []}]
            for name in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(name, None)
            if self.state.keyed:
                found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            self.openapi_schema = found
        return self.openapi_schema


class Refused(HTTPException):
    """A request that is not answered, with the field that is wrong."""

    def __init__(self, status: int, message: str, code: str, field: str | None = None):
        super().__init__(status, message)
        self.code, self.field = code, field


def create_app(
    served: Sequence[Served], keys: Sequence[str] = (), rate: int | None = None, loopback: bool = True,
    queue: int = QUEUE,
  ) -> ASGIApp:  # fmt: skip
    """The server as an ASGI application.

    Args:
        keys: what a caller must know, any of them; none: everybody may ask.
        rate: requests a minute of each key.
        loopback: it is reached from this machine only, under its own names.
        queue: texts and calls that may wait for each run.
    """
    server = Server(served, queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for loop in server.loops.values():
            loop.start()
        yield
        for loop in server.loops.values():
            await asyncio.to_thread(loop.end)

    app = _App(title="Weft", version=version("weft"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server, app.state.keyed = server, bool(keys)
    app.include_router(router)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(WeftError, _wrong)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Full, _full)
    app.add_exception_handler(Gone, _gone)
    return Guard(app, server.metrics, keys, rate, loopback)


router = APIRouter()


def _server(request: Request) -> Server:
    found: Server = request.app.state.server
    return found


# ---- what is open


@router.get("/healthz", response_model=bodies.Health, responses={503: {"model": bodies.Health}})
async def healthz(request: Request) -> Response:
    """Whether the server can answer."""
    alive = all(loop.is_alive() for loop in _server(request).loops.values())
    return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)


@router.get("/metrics", responses=_CLOSED | {200: {"content": {"text/plain": {}}}}, response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(_server(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", response_model=bodies.Models, responses=_CLOSED)
async def models(request: Request) -> Response:
    """The runs that are served, and what may be asked of each."""
    return JSONResponse({"object": "list", "data": [one.card for one in _server(request).served.values()]})


@router.get("/", include_in_schema=False)
@router.get("/page.css", include_in_schema=False)
@router.get("/page.js", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page to try the runs, and what it is made of."""
    name = request.url.path[1:] or "page.html"
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[name.rpartition(".")[2]]
    return Response(_ASSETS.joinpath(name).read_bytes(), media_type=f"{kind}; charset=utf-8")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The routes for a person: the schema as one page, without script."""
    page = _templates.get_template("docs.html").render(schema=request.app.openapi(), name=_named)
    return Response(page, media_type="text/html; charset=utf-8")


_ASSETS = files("weft.server") / "templates"
_templates = Environment(loader=PackageLoader("weft.server"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _named(kind: dict[str, Any]) -> str:
    """A type of the schema in words: ``list of integers``."""
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(_named(k) for k in kind["anyOf"] if k.get("type") != "null"))
    if "enum" in kind:
        return " or ".join(json.dumps(v) for v in kind["enum"])
    if kind.get("type") == "array":
        return f"list of {_named(kind.get('items', {}))}"
    return str(kind.get("const", kind.get("type", "anything")))


# ---- texts


@router.post("/v1/completions", response_model=bodies.Completion, responses=_ERRORS)
async def completions(request: Request, body: bodies.CompletionBody) -> Response:
    """Texts that go on from prompts."""
    return await _write(request, body, "completions", completion_work)


@router.post("/v1/chat/completions", response_model=bodies.ChatCompletion, responses=_ERRORS)
async def chat_completions(request: Request, body: bodies.ChatBody) -> Response:
    """Answers to a dialogue, by the model's chat template."""
    return await _write(request, body, "chat", chat_work)


async def _write(request: Request, body: B, can: str, prepare: Callable[[Served, B], Work]) -> Response:
    server = _server(request)
    served, loop = server.find(body, can)
    assert loop.writer is not None
    if getattr(body, "stream_options", None) is not None and not getattr(body, "stream", False):
        raise Refused(400, "stream_options: is for streams. Set stream: true.", "invalid_value", "stream_options")
    work = await asyncio.to_thread(prepare, served, body)
    check_fits(work, loop.writer.memory.most)
    ticket = loop.write(work.make, work.texts)
    if work.body.stream:
        return Streamed(work, ticket, server.metrics)
    answer = await _unless_gone(request, ticket, whole(work, ticket))
    work.count(server.metrics)
    return JSONResponse(answer)


class Streamed(Response):
    """Server-sent events until all is said, or the client leaves."""

    def __init__(self, work: Work, ticket: Ticket, metrics: Metrics):
        super().__init__(media_type="text/event-stream")
        self._work, self._ticket, self._metrics = work, ticket, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        watch = asyncio.create_task(_watch(receive, self._ticket))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(pieces(self._work, self._ticket)) as events:
                try:
                    async for event in events:
                        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
                except WeftError as error:
                    said = event_of(bodies.problem(500, str(error), "failed"))
                    await send({"type": "http.response.body", "body": said.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Gone:
            pass
        finally:
            self._ticket.gone = True
            watch.cancel()
            self._work.count(self._metrics)


async def _watch(receive: Receive, ticket: Ticket) -> None:
    """Tell the ticket when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.leave()


async def _unless_gone(request: Request, ticket: Ticket, answer: Any) -> Any:
    watch = asyncio.create_task(_watch(request.receive, ticket))
    try:
        return await answer
    finally:
        watch.cancel()


async def _call(request: Request, loop: Loop, many: Callable[[list[Any]], Sequence[Any]], given: Any) -> Any:
    """The answer of a run's loop to one question."""
    ticket = Ticket(1)
    return await _unless_gone(request, ticket, loop.call(many, given, ticket))


@router.post("/v1/embeddings", response_model=bodies.Embeddings, responses=_ERRORS)
async def embeddings(request: Request, body: bodies.EmbeddingBody) -> Response:
    """Vectors of texts, of length one."""
    served, loop = _server(request).find(body, "embeddings")
    texts = [body.input] if isinstance(body.input, str) else body.input
    vectors, tokens = await _call(request, loop, served.embed, texts)
    coded = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": i,
         "embedding": base64.b64encode(v.astype("<f4").tobytes()).decode() if coded else v.tolist()}
        for i, v in enumerate(vectors)
    ]  # fmt: skip
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})


@router.post("/next", response_model=bodies.Next, responses=_ERRORS)
async def next_token(request: Request, body: bodies.NextBody) -> Response:
    """The most probable next tokens after a prompt, and the probability that is left."""
    served, loop = _server(request).find(body, "next")
    ids = await asyncio.to_thread(served.prompt, body.prompt)
    tokens, rest = await _call(request, loop, served.following, (ids, body.count))
    text = served.tokenizer.decode(ids)
    return JSONResponse(
        {"model": served.name, "ids": ids, "text": text, "tokens": [asdict(t) for t in tokens], "rest": rest}
    )


# ---- tables


@router.post("/predict", response_model=bodies.Predictions, responses=_ERRORS)
async def predict(request: Request, body: bodies.PredictBody) -> Response:
    """An answer to every row, as weft predict gives it."""
    served, loop = _server(request).find(body, "predict")
    found = await _call(request, loop, served.predict, body.rows)
    return JSONResponse({"model": served.name, "predictions": found})


@router.post("/explain", response_model=bodies.Explanations, responses=_ERRORS)
async def explain(request: Request, body: bodies.ExplainBody) -> Response:
    """Why the run answers, writes or recommends so, as weft explain says it."""
    served, loop = _server(request).find(body, "explain")
    if (body.rows is None) == (body.prompt is None):
        raise Refused(400, "rows, prompt: exactly one of the two must be given.", "invalid_value", "rows")
    given = {"rows": body.rows, "prompt": body.prompt, "method": body.method, "of": body.of}
    found = await _call(request, loop, served.explain, given)
    return JSONResponse({"model": served.name, "explanations": [explanation_told(why) for why in found]})


@router.post("/recommend", response_model=bodies.Recommendations, responses=_ERRORS)
async def recommend(request: Request, body: bodies.RecommendBody) -> Response:
    """The items that most probably come next, for a user of the training or a history."""
    served, loop = _server(request).find(body, "recommend")
    if (body.user is None) == (body.history is None):
        raise Refused(400, "user, history: exactly one of the two must be given.", "invalid_value", "user")
    given = {"user": body.user if body.user is not None else body.history, "k": body.k, "taken": body.taken}
    found = await _call(request, loop, served.recommend, given)
    return JSONResponse({"model": served.name, "items": found})


# ---- what is wrong


def _error(status: int, message: str, code: str, field: str | None = None, **headers: str) -> JSONResponse:
    return JSONResponse(bodies.problem(status, message, code, field), status, headers)


async def _invalid(request: Request, error: Any) -> Response:
    """The first field that is wrong, by its name."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        got = first.get("ctx", {}).get("error", "something else")
        return _error(400, f"the body must be JSON. Got: {got}.", "invalid_json")
    if first["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
        return _error(400, "send JSON with the header 'content-type: application/json'.", "invalid_json")
    place = [str(p) for p in first["loc"][1:] if not str(p).startswith(("function-", "constrained-"))]
    field = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return _error(400, f"'{field}' is not supported. Leave it out.", "unsupported_field", field)
    said = first["msg"][0].lower() + first["msg"][1:]
    return _error(400, f"{field or 'the body'}: {said}.", "invalid_value", field)


async def _wrong(request: Request, error: Any) -> Response:
    good = isinstance(error, (UsageError, DataError, ChatRefused))
    return _error(400 if good else 500, str(error), "invalid_value" if good else "failed")


async def _http(request: Request, error: Any) -> Response:
    code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "invalid_request")
    return _error(error.status_code, str(error.detail), getattr(error, "code", code), getattr(error, "field", None),
                  **(error.headers or {}))  # fmt: skip


async def _full(request: Request, error: Any) -> Response:
    return _error(503, "the queue is full. Try again later.", "overloaded", **{"retry-after": str(RETRY)})


async def _gone(request: Request, error: Any) -> Response:
    return _error(499, "the client left", "gone")
