"""Dropout (Srivastava 2014) whose draws are cheap on a CPU.

The library's Bernoulli draws cost more there than the layer they follow. Sixteen random bits an element, four
elements a draw, are enough: the share dropped is right to 1/65,536.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.models.mapped import mapped


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Each element is 0 with probability ``share``, and the others are scaled so that the mean stays."""
    if not training or not share:
        return x
    if x.device.type != "cpu" or mapped(x):
        return F.dropout(x, share)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = draws >= round(share * 65_536) - 32_768
    return x * kept.to(x.dtype).mul_(1 / (1 - share))
