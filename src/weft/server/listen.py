"""The socket and the HTTP server before the application."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

from weft.errors import UsageError


def listen(app: ASGIApp, host: str, port: int) -> tuple[uvicorn.Server, socket.socket, str]:
    """A server that is ready to run, its socket, and its address.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"{host}:{port}: must be an address of this machine that nobody uses. Got: {error}. Choose another --port."
        ) from None
    # a token goes out when it is there, and does not wait for the next
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
    shown = f"[{host}]" if ":" in host else host
    return server, found, f"http://{shown}:{found.getsockname()[1]}"
