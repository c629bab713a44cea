"""What a training does that several processes may do together; here one does it, which holds and sees everything.

:mod:`weft.training.team` is the same for several; it takes 1.5 seconds to import, so that only they do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from weft import processes
from weft.config import Settings
from weft.models.transformer import Transformer

T = TypeVar("T")


LOST = 75
"""With which code a process ends that has lost the others (EX_TEMPFAIL): all may be started again."""


class Helped(BaseException):
    """This process has given its part to a training; the first one goes on alone."""


class Alone:
    """One process."""

    number, count = 0, 1
    """Which process this is, and how many there are."""
    share, shares = 0, 1
    """Which share of the rows it learns from, and how many there are: processes that split a matrix have the same."""
    pieces = 1
    """How many hold a piece of each weight."""

    def lay(self, model: nn.Module) -> None:
        """Let each process hold its pieces of the model, which must be the same in all; numbers that are not made yet
        (:mod:`weft.models.deferred`) are made."""

    def gather(self, file: Path) -> None:
        """Let the model be whole again, in the first process at least: there its numbers lie in a new ``file``."""

    def within(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, which goes through the model."""
        return call()

    def places(self, count: int) -> tuple[np.ndarray, float]:
        """Which of so many rows this process computes, and how much they count."""
        return np.arange(count), 1.0

    def whole(self, own: Tensor, count: int) -> Tensor:
        """Of so many rows what every process has of its :meth:`places` [n, ...], in their order [count, ...].

        The gradient of a place is the sum of those that all processes have of it.
        """
        return own

    def read(self, batches: Sequence[np.ndarray], call: Callable[[np.ndarray], Tensor]) -> Tensor:
        """What ``call`` says of each row of some batches [N, ...], in their order, on the CPU."""
        return torch.cat([call(rows).cpu() for rows in batches])

    def own(self, tensor: Tensor) -> Tensor:
        """What this process holds of a tensor: the same memory, without its history."""
        return tensor.detach()

    def add_up(self, value: Tensor) -> Tensor:
        """The sum over all shares."""
        return value

    def first(self, *values: float) -> list[float]:
        """The values of the first process."""
        return list(values)

    def most(self, value: int) -> int:
        """The greatest value of any process."""
        return value

    @staticmethod
    def wait() -> None:
        """Until all are here."""

    @staticmethod
    def spent(seconds: float) -> float:
        """The sum over all processes."""
        return seconds

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let the gradients be the sums over all shares."""

    def clip(self, parameters: Sequence[nn.Parameter], longest: float) -> Tensor:
        """Make the gradient no longer than this; how long it was."""
        return nn.utils.clip_grad_norm_(parameters, longest)

    def full(self, parameter: Tensor, own: Tensor) -> Tensor:
        """All of the tensor that lies as ``parameter`` does and of which this process holds ``own``."""
        return own

    def part(self, parameter: Tensor | None, full: Tensor) -> Tensor:
        """What this process holds of a tensor that lies as ``parameter`` does (None: each holds all of it)."""
        return full

    def cut(self, parameter: Tensor | None, tensor: Tensor) -> dict[str, Tensor]:
        """What this process is to write of such a tensor, each with what its name ends with: its place, or nothing."""
        return {"": tensor.detach()}

    def random(self) -> dict[str, Tensor]:
        """The state of the draws of this process."""
        return {"random": torch.get_rng_state()} | (
            {"random_cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
        )

    def restore_random(self, saved: Mapping[str, Tensor] | None, seed: int, step: int) -> None:
        """Draw on from where it was ``saved`` (None: nothing was); where that was by another number of processes, anew
        from the seed, the step and the share."""
        names = list(self.random())
        if saved is None and not self.share:
            return
        if saved is None or not all(name in saved for name in names):
            torch.manual_seed(int(np.random.SeedSequence([seed, step, self.share]).generate_state(1, np.uint64)[0]))
            return
        torch.set_rng_state(saved[names[0]])
        if len(names) > 1:
            torch.cuda.set_rng_state(saved[names[1]])


ALONE = Alone()


@dataclass(frozen=True)
class Part:
    """Rows of a step that are computed together, each by one share.

    A loss may look at all of them through :meth:`whole`: what each share says, weighed, adds up to the mean.
    """

    team: Alone
    rows: np.ndarray
    random: np.random.Generator
    """Of the seed and the step, so that all processes draw the same."""

    def whole(self, own: Tensor) -> Tensor:
        """What is ``own`` of the rows of this process, of all rows."""
        return self.team.whole(own, len(self.rows))


ALL = Part(ALONE, np.arange(0), np.random.default_rng(0))
"""All rows of a batch that one process has."""
joined: list[Any] = []
"""The kind of Alone that several processes are, once they have joined."""


def made(recipe: Any) -> Alone:
    """Who trains by a recipe."""
    return joined[-1](recipe) if joined else ALONE


def in_pieces(settings: Settings) -> bool:
    """Whether several processes train a Transformer of which each holds pieces only."""
    how = settings.training.parallel
    return bool(joined and how and (how.shard or how.tensor > 1)) and settings.model.backbone != "rnn"


def once(make: Callable[[], T], opened: Callable[[], T]) -> T:
    """What the first process makes on the disk and the others, which wait for it, then open."""
    found = make() if processes.number() == 0 else None
    for team in joined:
        team.wait()
    return opened() if processes.number() else cast(T, found)


helped_seconds = 0.0
"""Of their processors, which the others spent."""


def leave() -> None:
    """Raises Helped in all processes but the first, which learns what they spent."""
    global helped_seconds
    own = sum(os.times()[:4])
    for team in joined:
        helped_seconds = team.spent(0.0 if processes.number() == 0 else own)
    if processes.number():
        raise Helped


def recompute(model: nn.Module) -> None:
    """Let the blocks of each Transformer keep what comes in only."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recompute = True
