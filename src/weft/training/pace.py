"""What a step costs, measured: the model itself takes a few of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft.training.loop import Recipe, optimizer_of

STEPS = 3


def step_cost(
    model: nn.Module, recipe: Recipe, loss: Callable[[Any], Tensor], fetch: Callable[[np.ndarray], Any],
    rows: np.ndarray,
) -> tuple[float, int]:  # fmt: skip
    """Median seconds of a step on some of the ``rows``, and the most bytes that it keeps for the way back."""
    optimizer, times, most = optimizer_of(model, recipe), [], 0
    held = 0
    size = min(math.ceil(recipe.batch_rows / recipe.accumulate), len(rows))
    order = np.random.default_rng(0).permutation(rows)

    def keep(tensor: Tensor) -> Tensor:
        nonlocal held
        held += tensor.untyped_storage().nbytes()
        return tensor

    for step in range(STEPS + 1):
        batch = fetch(np.take(order, range(step * size, (step + 1) * size), mode="wrap"))
        started, held = time.monotonic(), 0
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
            torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16),
        ):
            found = loss(batch)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        times.append(time.monotonic() - started)
        most = max(most, held)
    return float(np.median(times[1:])) * recipe.batch_rows / size, most
