"""The socket and the HTTP server before the application."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp

from weft.errors import UsageError


def take(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket that listens, and its address.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        said = str(error).rstrip(".")
        raise UsageError(
            f"{host}:{port}: must be an address of this machine that nobody uses. Got: {said}. Choose another --port."
        ) from None
    # a token goes out when it is there, and does not wait for the next
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found, f"http://{f'[{host}]' if ':' in host else host}:{found.getsockname()[1]}"


def server_of(app: ASGIApp) -> uvicorn.Server:
    """What speaks HTTP before an application; its own log is ours."""
    return uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False))
