"""Federated averaging (McMahan 2017), rehearsed in one process: only an update leaves an owner, and it is clipped.

    w_k = w after E steps of gradient descent on the rows of owner k,   u_k = clip((w - w_k) / rate)
    g = sum_k (n_k / n) u_k,   which the optimiser takes for the gradient (FedOpt; Reddi 2021)

n_k are the rows of owner k in the round, n those of all. With one step an update is the gradient, so that one owner is
central training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft.errors import TrainingError
from weft.training.loop import Loop


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
            update, loss = self._update(start, mine, epoch, done)
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

    def _update(
        self, start: list[Tensor], rows: np.ndarray, epoch: int, done: float
    ) -> tuple[list[Tensor], float]:  # fmt: skip
        """What an owner gives out, as a gradient, and the loss of its first step; the weights are as before."""
        federated = self.recipe.federated
        assert federated is not None
        lost, moved = [], [torch.zeros_like(q) for q in start]
        for some in np.array_split(rows, min(federated.steps, len(rows))):
            self.optimizer.zero_grad(set_to_none=True)
            lost.append(self._gradients([self.fetch(some, epoch)], done).item())
            with torch.no_grad():
                for total, begun, (_, q) in zip(moved, start, self._trained(), strict=True):
                    if q.grad is not None:
                        total += q.grad
                    q.copy_(begun - federated.rate * total)
        self._put({n: begun for begun, (n, _) in zip(start, self._trained(), strict=True)})
        return moved, lost[0]
