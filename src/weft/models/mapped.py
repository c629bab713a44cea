"""Rows computed one by one, side by side (``torch.func.vmap``), and graphs that are written for any rows: what a batch
may look at, these may not."""

from __future__ import annotations

import torch
from torch import Tensor


def mapped(x: Tensor) -> bool:
    """Whether ``x`` is of one of many rows that are computed apart, or stands for any rows in a graph that is written:
    no step may then depend on the numbers in it."""
    return torch.compiler.is_exporting() or torch._C._functorch.is_functorch_wrapped_tensor(x)
