"""Federated averaging (McMahan 2017), rehearsed in one process: only an update leaves an owner, and it is clipped.

    w_k = w after E steps of gradient descent on the rows of owner k,   u_k = clip((w - w_k) / rate)
    g = sum_k (n_k / n) u_k,   which the optimiser takes for the gradient (FedOpt; Reddi 2021)

n_k are the rows of owner k in the round, n those of all. With one step an update is the gradient, so that one owner is
central training. A private round (McMahan 2018) is a private step in which an owner stands for a row:

    g = (sum_k clip(u_k) + N(0, (noise * C)^2)) / (rate * owners),   each owner drawn with the chance ``rate``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft.errors import TrainingError
from weft.training.loop import Loop, Recipe
from weft.training.parallel import ALL
from weft.training.private import PrivateLoop, clipped_sum


class FederatedLoop(Loop):
    """A loop whose steps are rounds. ``owners``: whose each row is, by its number."""

    def __init__(self, owners: np.ndarray, *args: Any, **named: Any):
        super().__init__(*args, **named)
        self.owners = owners

    def _descend(self, rows: np.ndarray, epoch: int, done: float) -> dict[str, float]:
        start = [q.detach().clone() for _, q in self._trained()]
        mean = [torch.zeros_like(q) for q in start]
        lost, longest = 0.0, 0.0
        for owner in np.unique(self.owners[rows]):
            mine = rows[self.owners[rows] == owner]
            update, loss = owner_update(self, start, mine, epoch, done)
            for own, q in zip(update, (q for _, q in self._trained()), strict=True):
                q.grad = own
            length = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            if not (torch.isfinite(length) and np.isfinite(loss)):
                raise TrainingError(
                    f"training round {self.progress.step + 1}: the update of every owner must be finite. Got another "
                    f"of owner {owner}. Lower training.federated.rate, or look for extreme values in its data."
                )
            for total, (_, q) in zip(mean, self._trained(), strict=True):
                assert q.grad is not None
                total += q.grad * (len(mine) / len(rows))
            lost, longest = lost + loss * len(mine) / len(rows), max(longest, length.item())
        for total, (_, q) in zip(mean, self._trained(), strict=True):
            q.grad = total
        return {"train_loss": lost, "train_gradient": longest}


class PrivateFederatedLoop(PrivateLoop):
    """... whose rounds are private for every owner. ``owners``: whose each row is, by its number."""

    def __init__(
        self, owners: np.ndarray, model: nn.Module, recipe: Recipe, fetch: Any, train: np.ndarray, lengths: Any,
        *args: Any, **named: Any,
    ):  # fmt: skip
        self.owners, self.rows = owners, train
        super().__init__(model, recipe, fetch, np.unique(owners[train]), None, *args, **named)

    def _clipped(self, rows: np.ndarray, longest: float, done: float) -> Iterator[dict[str, Tensor]]:
        federated, step = self.recipe.federated, self.progress.step
        assert federated is not None
        start = [q.detach().clone() for _, q in self._trained()]
        for owner in rows.tolist():
            mine = self.rows[self.owners[self.rows] == owner]
            key = np.frombuffer(self._draw(f"rows of {owner}", step, 16), np.uint64)
            some = np.random.Generator(np.random.Philox(key=key)).permutation(mine)[: federated.steps * federated.rows]
            update, _ = owner_update(self, start, some, step, done)
            yield clipped_sum({n: u[None] for (n, _), u in zip(self._trained(), update, strict=True)}, longest)


def owner_update(
    loop: Loop, start: list[Tensor], rows: np.ndarray, epoch: int, done: float
) -> tuple[list[Tensor], float]:  # fmt: skip
    """What an owner of some rows gives out, as a gradient, and the loss of its first step; the weights stay."""
    federated = loop.recipe.federated
    assert federated is not None
    lost, moved = [], [torch.zeros_like(q) for q in start]
    for some in np.array_split(rows, min(federated.steps, len(rows))):
        loop.optimizer.zero_grad(set_to_none=True)
        lost.append(loop._gradients([replace(ALL, rows=some)], epoch, done).item())
        with torch.no_grad():
            for total, begun, (_, q) in zip(moved, start, loop._trained(), strict=True):
                if q.grad is not None:
                    total += q.grad
                q.copy_(begun - federated.rate * total)
    loop._put({n: begun for begun, (n, _) in zip(start, loop._trained(), strict=True)})
    return moved, lost[0]


def loop_of(recipe: Recipe, owners: np.ndarray | None = None) -> Callable[..., Loop]:
    """The loop that trains by this recipe; ``owners`` of a federated training: whose each row is."""
    if owners is not None:
        return partial(FederatedLoop if recipe.privacy is None else PrivateFederatedLoop, owners)
    return Loop if recipe.privacy is None else PrivateLoop
