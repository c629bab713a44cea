"""Completions and chat: bodies to rows of the writer, and what the writer says to answers, whole or in pieces."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

from weft.errors import DataError, UsageError
from weft.inference.constraint import Constraint, Grammar
from weft.inference.generate import read_prompt
from weft.inference.letters import Line
from weft.inference.sampling import Sampling
from weft.runs.texts import TextRun
from weft.server.bodies import ChatBody, CompletionBody, Message, Writing
from weft.server.loop import Ticket
from weft.server.metrics import Metrics
from weft.server.served import Served
from weft.server.writer import Row, Token

COMPLETION_TOKENS, CHAT_TOKENS = 16, 500
_REASONS = {"end": "stop", "stop": "stop", "complete": "stop"}
"""Why a text ended, in the words of OpenAI; else it is its length."""


@dataclass
class Work:
    """Texts to write for one request, prepared where it may take time: prompts read, the constraint made."""

    served: Served
    body: Writing
    chat: bool
    sampling: Sampling
    prompts: list[list[int]]
    shown: list[str]
    """What the answers begin with (echo)."""
    grammar: Grammar | None = None
    top: int | None = None
    write: bool = True
    rows: list[Row] = field(default_factory=list)

    @property
    def texts(self) -> int:
        return len(self.prompts) * (self.body.n or 1)

    def make(self, tell: Callable[[int], Callable[[Any], None]], gone: Callable[[], bool]) -> list[Row]:
        """The rows of the writer: of every prompt as many as asked, each with its own seed."""
        ends, s = self.served.ends(self.chat), self.sampling
        echo = isinstance(self.body, CompletionBody) and bool(self.body.echo) and self.top is not None
        for ids in self.prompts:
            for sample in range(self.body.n or 1):
                prompt = read_prompt(self.served.model, self.served.tokenizer, ids, s, False)
                state = self.grammar.begin(prompt.ids) if self.grammar else None
                line = Line(self.served.tokenizer, ids, ends, s.stop, prompt.limit, prompt.limited_by, state)
                number, seed = len(self.rows), (s.seed + sample) % (1 << 63)
                hear = tell(number) if self.body.stream else _at_end(tell(number))
                self.rows.append(Row(prompt, seed, s, line, hear, gone, self.top, echo, self.write))
        return self.rows

    def usage(self) -> dict[str, Any]:
        read = sum(map(len, self.prompts))
        written = sum(len(row.line.ids) for row in self.rows)
        return {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(r.shared for r in self.rows[:: self.body.n or 1])},
        }  # fmt: skip

    def count(self, metrics: Metrics) -> None:
        for row in self.rows:
            first = None if row.first is None else row.first - row.asked
            metrics.wrote(len(row.prompt.ids), row.shared, len(row.line.ids), first)


def _at_end(tell: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda event: None if isinstance(event, str) else tell(event)


def sampling_of(body: Writing, tokens: int, constraint: Constraint | None = None, usual: float = 1.0) -> Sampling:
    """The settings of a request. Greedy, the filters have nothing to choose from: the most probable is always in."""
    temperature = usual if body.temperature is None else body.temperature
    warm = temperature > 0
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Sampling(
        max_tokens=tokens, temperature=temperature,
        top_k=body.top_k if warm else None, top_p=(body.top_p or 1.0) if warm else 1.0,
        min_p=(body.min_p or 0.0) if warm else 0.0, repetition_penalty=body.repetition_penalty or 1.0,
        stop=tuple(stop), seed=secrets.randbits(63) if body.seed is None else body.seed, constraint=constraint,
    )  # fmt: skip


def completion_work(served: Served, body: CompletionBody) -> Work:
    """Raises UsageError or DataError where the request cannot be answered."""
    # a run that writes a column from another does so as it predicts it
    task = served.run if isinstance(served.run, TextRun) else None
    usual = COMPLETION_TOKENS if task is None else task.pairing.target_room
    tokens = usual if body.max_tokens is None else body.max_tokens
    if tokens == 0 and not body.echo:
        raise UsageError("max_tokens: must be above 0, unless echo is true.")
    given = body.prompt
    several = isinstance(given, list) and not isinstance(given[0], int)
    texts = cast("list[str | list[int]]", given if several else [given])
    prompts = [served.prompt(one) for one in texts]
    shown = [""] * len(prompts)
    if body.echo:
        shown = [t if isinstance(t, str) else served.tokenizer.decode(p) for t, p in zip(texts, prompts, strict=True)]
    sampling = sampling_of(body, max(1, tokens), usual=1.0 if task is None else 0.0)
    return Work(served, body, False, sampling, prompts, shown, None, body.logprobs, tokens > 0)


def chat_work(served: Served, body: ChatBody) -> Work:
    """Raises UsageError or DataError where the request cannot be answered."""
    assert served.chat is not None
    messages = [_message(m, served) for m in body.messages]
    if messages[-1]["role"] != "user":
        raise UsageError(f"messages: the last must be the user's. Got one of the {messages[-1]['role']}.")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise UsageError("max_tokens and max_completion_tokens are the same. Give one of them.")
    if body.top_logprobs is not None and not body.logprobs:
        raise UsageError("top_logprobs: needs logprobs: true.")
    kind, constraint = body.response_format, None
    if kind is not None and (kind.type == "json_schema") != (kind.json_schema is not None):
        raise UsageError("response_format: json_schema must hold a schema where, and only where, it is the type.")
    if kind is not None and kind.json_schema is not None:
        constraint = Constraint.json_schema(kind.json_schema.schema_)
    elif kind is not None and kind.type == "json_object":
        constraint = Constraint.json_schema({"type": "object"})
    sampling = sampling_of(body, body.max_tokens or body.max_completion_tokens or CHAT_TOKENS, constraint)
    grammar = None if constraint is None else served.grammar(constraint, served.ends(True))
    top = (body.top_logprobs or 0) if body.logprobs else None
    return Work(served, body, True, sampling, [served.chat.prompt(messages)], [""], grammar, top)


def _message(message: Message, served: Served) -> dict[str, str]:
    parts = message.content
    text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": served.cleaned(text)}


def check_fits(work: Work, most: int | None) -> None:
    """Raises DataError where a text is longer than there is ever room for, or than the model reads."""
    for ids in work.prompts:
        prompt = read_prompt(work.served.model, work.served.tokenizer, ids, work.sampling, False)
        if most is not None and len(ids) + prompt.limit > most:
            raise DataError(f"a prompt and its text must have at most {most:,} tokens here. Got {len(ids):,} and "
                            f"{prompt.limit:,}. Shorten it, or lower max_tokens.")  # fmt: skip


# ---- answers


async def whole(work: Work, ticket: Ticket) -> dict[str, Any]:
    """The answer when all texts are written."""
    async for _ in ticket:
        pass
    choices = [_choice(work, i, row, row.line.text, row.tokens, _reason(row), whole=True)
               for i, row in enumerate(work.rows)]  # fmt: skip
    return _answer(work, choices, "") | {"usage": work.usage()}


async def pieces(work: Work, ticket: Ticket) -> AsyncGenerator[str]:
    """The answer as server-sent events."""
    told = [0] * len(work.rows)
    head = _answer(work, [], ".chunk")
    usage = work.body.stream_options is not None and work.body.stream_options.include_usage
    if usage:
        head["usage"] = None
    for i, row in enumerate(work.rows):
        if work.chat or work.shown[i // (work.body.n or 1)]:
            yield event_of(head | {"choices": [_choice(work, i, row, "", [], None, first=True)]})
    async for part, text in ticket:
        row = work.rows[part]
        new, ended = row.tokens[told[part] :], text is None
        told[part] += len(new)
        if text or new or ended:
            choice = _choice(work, part, row, text or "", new, _reason(row) if ended else None)
            yield event_of(head | {"choices": [choice]})
    if usage:
        yield event_of(head | {"choices": [], "usage": work.usage()})
    yield "data: [DONE]\n\n"


def event_of(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _reason(row: Row) -> str:
    return _REASONS.get(row.line.stopped or "", "length")


def _answer(work: Work, choices: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
    kind, name = ("chatcmpl", f"chat.completion{suffix}") if work.chat else ("cmpl", "text_completion")
    return {
        "id": f"{kind}-{secrets.token_hex(12)}", "object": name, "created": int(time.time()),
        "model": work.served.name, "choices": choices,
    }  # fmt: skip


def _choice(work: Work, index: int, row: Row, text: str, tokens: Sequence[Token], reason: str | None,
            whole: bool = False, first: bool = False) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": None}
    if work.top is not None and tokens:
        found["logprobs"] = _chat_logprobs(work, tokens) if work.chat else _logprobs(work, tokens, row)
    if work.chat:
        message = {"role": "assistant", "content": text} if whole or first else {"content": text} if text else {}
        return found | {"message" if whole else "delta": message}
    shown = work.shown[index // (work.body.n or 1)] if whole or first else ""
    return found | {"text": shown + text}


def _logprobs(work: Work, tokens: Sequence[Token], row: Row) -> dict[str, Any]:
    served = work.served
    tops = [{served.spelt(i): p for i, p in t.top} if t.log_probability is not None else None for t in tokens]
    lengths = [len(served.pieces[t.id].decode("utf-8", "backslashreplace")) for t in row.tokens]
    begun = [0, *accumulate(lengths)]
    first = next(i for i, t in enumerate(row.tokens) if t is tokens[0])
    return {
        "tokens": [served.spelt(t.id) for t in tokens], "token_logprobs": [t.log_probability for t in tokens],
        "top_logprobs": tops if work.top else None, "text_offset": begun[first : first + len(tokens)],
    }  # fmt: skip


def _chat_logprobs(work: Work, tokens: Sequence[Token]) -> dict[str, Any]:
    def told(token: int, value: float | None) -> dict[str, Any]:
        return {"token": work.served.spelt(token), "logprob": value, "bytes": list(work.served.pieces[token])}

    content = [told(t.id, t.log_probability) | {"top_logprobs": [told(i, p) for i, p in t.top]} for t in tokens]
    return {"content": content, "refusal": None}
