"""Heads: the state of a row -> output and loss.

Shape suffixes: B rows, R width of what is read, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Read(nn.Module):
    """Two layers from what is read to the outputs. ``from_zero``: starts with nothing to say."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float, from_zero: bool):
        super().__init__()
        self.dropout = dropout
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.down.bias)
        if from_zero:
            nn.init.zeros_(self.down.weight)

    def forward(self, read_BR: Tensor) -> Tensor:
        h = F.dropout(F.relu(self.up(read_BR)), self.dropout, self.training)
        # the last step in float32: a bfloat16 logit moves in steps of a hundredth
        with torch.autocast(h.device.type, enabled=False):
            return self.down(h.float())


class ClassHead(nn.Module):
    """Logits of C classes. ``balanced``: the loss weighs each class by the inverse of its share."""

    prior: Tensor
    weight: Tensor

    def __init__(
        self,
        inputs: int,
        hidden: int,
        counts: list[int],
        dropout: float,
        from_zero: bool = False,
        balanced: bool = False,
    ):
        super().__init__()
        self.read = _Read(inputs, hidden, len(counts), dropout, from_zero)
        share = torch.tensor([max(c, 0.5) for c in counts], dtype=torch.float32)
        share = share / share.sum()
        # logits trained on weighted classes lack the prior; it is added when predicting (Menon 2021)
        self.register_buffer("prior", share.log() if balanced else torch.zeros_like(share))
        self.register_buffer("weight", 1 / (len(counts) * share) if balanced else torch.ones_like(share))

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.read(read_BR)

    def loss(self, out_BC: Tensor, target_B: Tensor) -> Tensor:
        """Cross-entropy in nats, mean over the rows; a class that training never saw (-1) does not count."""
        return F.cross_entropy(out_BC.float(), target_B, self.weight, ignore_index=-1)

    def answer(self, out_BC: Tensor) -> Tensor:
        """Log probabilities [B, C]."""
        return (out_BC.float() + self.prior).log_softmax(dim=-1)


class NumberHead(nn.Module):
    """A standardised number; ``mean`` and ``deviation`` bring it back to the target's unit."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, inputs: int, hidden: int, mean: float, deviation: float, dropout: float, from_zero: bool = False
    ):
        super().__init__()
        self.read = _Read(inputs, hidden, 1, dropout, from_zero)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float64))

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.read(read_BR)

    def loss(self, out_BC: Tensor, target_B: Tensor) -> Tensor:
        """Squared error, mean over the rows, in squared deviations of the target."""
        return F.mse_loss(out_BC[:, 0].float(), target_B)

    def answer(self, out_BC: Tensor) -> Tensor:
        """Numbers [B] in the target's unit, float64."""
        return out_BC[:, 0].double() * self.deviation + self.mean
