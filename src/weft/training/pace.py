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
from weft.training.private import RowGradients, gaussians

STEPS, HELD = 3, 2
"""Steps that are taken; and how often the gradients of rows are held at once while they are clipped."""


def ends_in_words(recipe: Recipe) -> str:
    """Whether a training may end before its last step."""
    return "all of them are made, as privacy asks" if recipe.privacy else "early stopping often halves it"


def step_cost(
    model: nn.Module, recipe: Recipe, loss: Callable[[Any], Tensor], fetch: Callable[[np.ndarray], Any],
    rows: np.ndarray,
) -> tuple[float, int]:  # fmt: skip
    """Median seconds of a step on some of the ``rows``, and the most bytes that it keeps for the way back.

    Of a private step each row's gradient is held by itself, of as many rows as are computed at once, and noise drawn.
    """
    optimizer, times, most = optimizer_of(model, recipe), [], 0
    held = 0
    each, learnt = None, recipe.batch_rows
    if recipe.privacy and recipe.federated:  # what is drawn are owners, and each learns from several of its rows
        learnt *= recipe.federated.steps * recipe.federated.rows
    elif recipe.privacy:
        each = RowGradients(model, lambda batch, done: loss(batch))
    most_rows = each.at_once if each else recipe.federated.rows if recipe.privacy and recipe.federated else learnt
    size = min(math.ceil(learnt / recipe.accumulate), len(rows), most_rows)
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
        if each is not None:
            started = time.monotonic()
            each.clipped(batch, size, 1.0, 0.0)
        times.append(time.monotonic() - started)
        most = max(most, held)
    seconds = float(np.median(times[1:])) * learnt / size
    if each is None:
        return seconds, most
    numbers, started = sum(p.numel() for p in each.parameters.values()), time.monotonic()
    gaussians(b"", numbers)
    return seconds + time.monotonic() - started, most + HELD * 4 * numbers * size
