"""Where a token stands: sinusoids added to its state, or queries and keys turned by an angle.

Learned positions are a table and need no function. Shape suffixes: B batch, T tokens, H heads, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Turn = tuple[Tensor, Tensor]
"""cos of the angles of every token and their sin, whose first half is negative, [B, 1, T, K] each."""


@dataclass(frozen=True)
class RotaryScaling:
    """Slower rotation, for texts longer than a model was first trained on.

    ``linear`` divides every angle by ``factor`` (Chen 2023). ``llama3`` divides only those that turn less
    than ``low`` times within ``original`` positions, leaves those that turn more than ``high`` times, and
    goes smoothly from one to the other between (Llama 3.1).
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8_192

    def __call__(self, rates: Tensor) -> Tensor:
        if self.kind == "linear":
            return rates / self.factor
        turns = self.original * rates / (2 * math.pi)
        share = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - share) * rates / self.factor + share * rates


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions [...] -> [..., width]: sin and cos of p / 10000^(2i/width), interleaved (Vaswani 2017, 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10_000.0) / width))
    angles = positions.unsqueeze(-1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def rotation(positions_BT: Tensor, width: int, base: float, scaling: RotaryScaling | None = None) -> Turn:
    """The turn [B, 1, T, width] of rotary positions (Su 2021), halves side by side as Llama stores them."""
    rates = 1.0 / base ** (torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.float32) / width)
    if scaling is not None:
        rates = scaling(rates)
    angles = positions_BT[:, None, :, None].float() * rates
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x_BHTK: Tensor, turn: Turn) -> Tensor:
    """(x1 cos - x2 sin, x2 cos + x1 sin) of the halves of each head, in few steps: this runs once a block and token."""
    cos, sin = turn
    if cos.dtype != x_BHTK.dtype:
        cos, sin = cos.to(x_BHTK.dtype), sin.to(x_BHTK.dtype)
    return torch.addcmul(x_BHTK * cos, x_BHTK.roll(x_BHTK.shape[-1] // 2, -1), sin)
