"""Rows computed one by one, side by side (``torch.func.vmap``): what a batch may look at, such a row may not."""

from __future__ import annotations

import torch
from torch import Tensor


def mapped(x: Tensor) -> bool:
    """Whether ``x`` is of one of many rows that are computed apart: no step may then depend on the numbers in it."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)
