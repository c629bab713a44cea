"""What every request passes: its id, its key, its rate, its size, and one line of log that never holds what was asked.

Plain ASGI: nothing is buffered, and a request whose client left is not held.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import math
import re
import secrets
import time
import traceback
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.server.bodies import problem
from weft.server.metrics import Metrics

OPEN = "/healthz"
"""The one route that needs no key."""
MOST_BYTES = 16 << 20
STALLED = 60.0
"""Seconds in which a client must take what was sent to it."""
_NO_KEY = "a key is needed: Authorization: Bearer KEY (in a browser: any name, and the key as the password)"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ID = re.compile(r"[\w.-]{1,64}")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
log = logging.getLogger("weft.server")


class Guard:
    """Stands before ``app``; its arguments are those of :func:`weft.server.app.create_app`."""

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: Sequence[str], rate: int | None, loopback: bool):
        self._app, self.metrics, self._rate, self._loopback = app, metrics, rate, loopback
        self._keys = [_digest(key) for key in keys]
        self._rates: dict[bytes, tuple[float, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {k.lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        number = given if _ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        started, status, extra = time.monotonic(), 0, {"x-request-id": number}

        async def answer(event: Message) -> None:
            nonlocal status
            if event["type"] == "http.response.start":
                status = event["status"]
                more = {**extra, "content-security-policy": _POLICY, "x-content-type-options": "nosniff",
                        "referrer-policy": "no-referrer", "cache-control": "no-store"}  # fmt: skip
                event["headers"] = [*event["headers"], *((k.encode(), v.encode()) for k, v in more.items())]
            async with asyncio.timeout(STALLED):
                await send(event)

        refused = self._refused(scope, headers, extra)
        try:
            if refused is not None:
                await _refuse(answer, *refused)
            else:
                await self._app(scope, _counted(receive), answer)
        except TimeoutError:
            log.warning("%s: the client took nothing for %d seconds", number, STALLED)
        except Exception as error:  # never its message, which may hold what was asked
            places = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
            log.error("%s: %s at %s", number, type(error).__name__, " < ".join(places[::-1][:6]))
            if not status:
                await _refuse(answer, 500, "the server failed; its log tells more under this request's id", "failed")
        finally:
            seconds = time.monotonic() - started
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.asked(route, status or 499, seconds)
            log.info("%s %s %s %d %.3fs", number, scope["method"], route, status or 499, seconds)

    def _refused(self, scope: Scope, headers: dict[bytes, str], extra: dict[str, str]) -> tuple[int, str, str] | None:
        """Why the request is not answered, if it is not. ``extra`` are headers for the answer, whatever it is."""
        if self._loopback and not self._keys and _host(headers.get(b"host", "")) not in LOOPBACK:
            # a page of somebody else whose name was made to lead here
            return 421, "this server answers at 127.0.0.1 and localhost only", "wrong_host"
        if scope["path"] == OPEN:
            return None
        owner = b""
        if self._keys:
            owner = _digest(_key(headers.get(b"authorization", "")))
            # every key is compared, each in constant time
            if not sum(hmac.compare_digest(owner, key) for key in self._keys):
                extra["www-authenticate"] = 'Basic realm="weft", charset="UTF-8", Bearer realm="weft"'
                return 401, _NO_KEY, "invalid_api_key"
        return self._too_fast(owner, extra) if self._rate else None

    def _too_fast(self, owner: bytes, extra: dict[str, str]) -> tuple[int, str, str] | None:
        """A bucket of ``rate`` tokens for each key, which fills in a minute."""
        assert self._rate is not None
        now, rate = time.monotonic(), self._rate
        left, before = self._rates.get(owner, (float(rate), now))
        left = min(float(rate), left + (now - before) * rate / 60)
        good = left >= 1
        left -= good
        self._rates[owner] = (left, now)
        extra |= {
            "x-ratelimit-limit-requests": str(rate), "x-ratelimit-remaining-requests": str(int(left)),
            "x-ratelimit-reset-requests": f"{(rate - left) * 60 / rate:.3f}s",
        }  # fmt: skip
        if good:
            return None
        extra["retry-after"] = str(math.ceil((1 - left) * 60 / rate))
        return 429, f"at most {rate:,} requests a minute. Try again later.", "rate_limit_exceeded"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _key(authorization: str) -> str:
    """The key of a header: as Bearer, or as the password of Basic, which browsers ask for."""
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return given.strip() if kind.lower() == "bearer" else ""


def _host(header: str) -> str:
    """The name of a Host header without its port."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


def _counted(receive: Receive) -> Receive:
    """Raises HTTPException (413) once a body has more bytes than the server takes."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        event = await receive()
        read += len(event.get("body", b""))
        if read > MOST_BYTES:
            raise HTTPException(413, f"the body must have at most {MOST_BYTES:,} bytes. Ask in parts.")
        return event

    return counted


async def _refuse(send: Send, status: int, message: str, code: str) -> None:
    body = json.dumps(problem(status, message, code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
