"""What a step costs, measured: the model itself takes a few of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft.training.loop import Recipe, optimizer_of

STEPS = 3


def step_cost(
    model: nn.Module, recipe: Recipe, loss: Callable[[Any], Tensor], batches: Iterable[Any]
) -> tuple[float, int]:
    """Median seconds of a step over ``batches`` but the first, and the most bytes that one keeps for the way back."""
    optimizer, times, most = optimizer_of(model, recipe), [], 0
    held = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal held
        held += tensor.untyped_storage().nbytes()
        return tensor

    for batch in batches:
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
    return float(np.median(times[1:])), most


def some_rows(rows: np.ndarray, batch: int) -> list[np.ndarray]:
    """Rows of a few steps in random order; of few rows the same ones again, at most all of them in a step."""
    order, size = np.random.default_rng(0).permutation(rows), min(batch, len(rows))
    return [np.take(order, range(step * size, (step + 1) * size), mode="wrap") for step in range(STEPS + 1)]
