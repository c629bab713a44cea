"""Which of several processes this is, as torchrun tells each of them; without torch."""

from __future__ import annotations

import os


def count() -> int:
    """How many work together, on all machines."""
    return _told("WORLD_SIZE", 1)


def number() -> int:
    """Which of them this is, counted from 0: the first alone writes and speaks."""
    return _told("RANK", 0)


def here() -> int:
    """How many of them are on this machine."""
    return _told("LOCAL_WORLD_SIZE", 1)


def number_here() -> int:
    """Which of those on this machine this is."""
    return _told("LOCAL_RANK", 0)


def started_again() -> int:
    """How many times all of them were started again because one ended."""
    return _told("TORCHELASTIC_RESTART_COUNT", 0)


def _told(name: str, alone: int) -> int:
    # other programs set variables of these names too
    return int(os.environ.get(name, alone)) if "TORCHELASTIC_RUN_ID" in os.environ else alone
