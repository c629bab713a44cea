"""A training that is killed in the middle, to be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from weft.training.loop import Loop


class Killed(KeyboardInterrupt):
    """The process ends here."""


@contextmanager
def killed(at: int, saved: int | None = None) -> Iterator[None]:
    """While open a training is killed when it has done so many steps; it is saved then, or at an earlier step."""
    plain, done = Loop._step, 0

    def step(loop: Loop, parts: list[Any]) -> None:
        nonlocal done
        if done == (at if saved is None else saved):
            loop._save()
        if done == at:
            raise Killed
        plain(loop, parts)
        done += 1

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "_step", step)
        yield
