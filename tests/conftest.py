"""Small shared fixtures: files made in place, and the real tables beside the repository."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable
from pathlib import Path

# tiny models lose by sharing their steps, most of all on a machine that has other work
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def _nothing_leaves(event: str, arguments: tuple) -> None:
    """Every test fails that reaches for a network; a server of this machine may be asked."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
            raise PermissionError(f"a test reached for {address}")
    elif event == "socket.getaddrinfo" and arguments[0] not in (None, "localhost", "127.0.0.1", "::1", ""):
        raise PermissionError(f"a test asked for the address of {arguments[0]}")


sys.addaudithook(_nothing_leaves)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file into the test's own folder and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """A real table of ``../shared/data``; the test is skipped where the folder is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"{SHARED / name} is not on this machine")
        return SHARED / name

    return find
