"""``weft serve RUN...``"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from pathlib import Path

from weft.errors import DataError, UsageError, listing
from weft.progress import Spoken
from weft.server.app import QUEUE, create_app
from weft.server.listen import server_of, take
from weft.server.served import Served

KEY = "WEFT_API_KEY"


def serve(
    *runs: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    rate: int | None = None,
    queue: int = QUEUE,
) -> None:
    """Serve runs over HTTP: OpenAI's routes, predictions, explanations, recommendations, and a page to try them.

    A key that callers must know comes from the environment variable WEFT_API_KEY or from --keys.

    Args:
        runs: Run folders or imported checkpoints, each served under its folder's name.
        host: The address to listen at; one that other machines reach needs a key.
        port: 0 takes a free one.
        keys: A file of keys, one a line; any of them opens every route.
        rate: Requests a minute that each key may make.
        queue: Texts and calls that may wait for each run; beyond that callers are told to come again.
    """
    if not runs:
        raise UsageError("there must be a RUN to serve. Name its folder.")
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise UsageError(f"runs are served under their folders' names, which must differ. Got {listing(names)}.")
    if rate is not None and rate < 1:
        raise UsageError(f"--rate: must be at least 1 request a minute. Got {rate}.")
    if queue < 1:
        raise UsageError(f"--queue: must be at least 1. Got {queue}.")
    known = _keys(keys)
    loopback = _loopback(host)
    if not loopback and not known:
        raise UsageError(f"--host {host}: other machines can reach it, so it needs a key. Set {KEY}, or give --keys.")
    say = Spoken()
    socket, address = take(host, port)
    served = [Served(run, name) for run, name in zip(runs, names, strict=True)]
    for one in served:
        if not one.can:
            raise UsageError(f"{one.path}: must be a run that can be asked over HTTP. This one cannot.")
        say.line(f"{one.name}: {', '.join(one.can)}")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    for name in ("uvicorn.error", "uvicorn.access", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server = server_of(create_app(served, known, rate, loopback, queue))
    say.line(f"page: {address}/    routes: {address}/docs    Ctrl-C stops it")
    try:
        server.run([socket])
    except KeyboardInterrupt:  # the signal that ended it, given on by uvicorn once all was answered
        say.line("stopped; all that was asked is answered")


def _keys(file: Path | None) -> list[str]:
    found = [os.environ[KEY]] if os.environ.get(KEY) else []
    if file is not None:
        try:
            found += [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeError) as error:
            raise DataError(f"--keys {file}: must be a file of keys, one a line. Got {type(error).__name__}.") from None
        if not found:
            raise UsageError(f"--keys {file}: must hold at least one key. It holds none.")
    short = [key for key in found if len(key) < 16]
    if short:
        raise UsageError("a key must have at least 16 letters, or it can be guessed. python -c 'import secrets; "
                         "print(secrets.token_urlsafe(32))' makes one.")  # fmt: skip
    return found


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
