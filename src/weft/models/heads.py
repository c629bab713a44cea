"""Heads: the state of a row -> output and loss.

Shape suffixes: B rows, R width of what is read, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.targets import OUTSIDE


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


class Directions(nn.Module):
    """Cosine to a direction a class: scale * cos(x / |x| - centre, w_c) + b_c.

    A pretrained model puts like texts side by side from the start. ``begin`` sets the centre to the mean of
    the training rows and each direction to the mean of its class, so that training starts as a nearest-centroid
    classifier instead of at random (prototypes; Snell 2017).
    """

    centre: Tensor

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.register_buffer("centre", torch.zeros(inputs))
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_scale = nn.Parameter(torch.tensor(2.7726))  # 16

    @torch.no_grad()
    def begin(self, read_NR: Tensor, member_NC: Tensor) -> None:
        """``member_NC``: 1 where the row is of the class (or has the label), else 0."""
        unit = F.normalize(read_NR.float(), dim=1)
        self.centre.copy_(unit.mean(dim=0))
        sums = member_NC.float().T @ (unit - self.centre)
        seen = (member_NC > 0).any(dim=0).unsqueeze(1)
        self.weight.copy_(torch.where(seen, F.normalize(sums, dim=1), self.weight))

    def forward(self, read_BR: Tensor) -> Tensor:
        with torch.autocast(read_BR.device.type, enabled=False):
            z = F.dropout(F.normalize(read_BR.float(), dim=1) - self.centre, self.dropout, self.training)
            return self.log_scale.exp() * F.linear(F.normalize(z, dim=1), F.normalize(self.weight, dim=1)) + self.bias


class ClassHead(nn.Module):
    """Logits of C classes. ``balanced``: the loss weighs each class by the inverse of its share. ``directions``:
    the logits are cosines, for what a pretrained model reads."""

    prior: Tensor
    weight: Tensor

    def __init__(
        self, inputs: int, hidden: int, counts: list[int], dropout: float, from_zero: bool = False,
        balanced: bool = False, directions: bool = False, smoothing: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.smoothing = smoothing
        self.read: _Read | Directions
        if directions:
            self.read = Directions(inputs, len(counts), dropout)
        else:
            self.read = _Read(inputs, hidden, len(counts), dropout, from_zero)
        share = torch.tensor([max(c, 0.5) for c in counts], dtype=torch.float32)
        share = share / share.sum()
        # logits trained on weighted classes lack the prior; it is added when predicting (Menon 2021)
        self.register_buffer("prior", share.log() if balanced else torch.zeros_like(share))
        self.register_buffer("weight", 1 / (len(counts) * share) if balanced else torch.ones_like(share))

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.read(read_BR)

    def loss(self, out_BC: Tensor, target_B: Tensor) -> Tensor:
        """Cross-entropy in nats, mean over the rows; a class that training never saw (UNSEEN) does not count.

        A row that belongs to none of the classes (OUTSIDE) should be as likely of each: its target is uniform
        (outlier exposure; Hendrycks 2019).
        """
        out_BC = out_BC.float()
        smoothing = self.smoothing if self.training else 0.0
        inside_B = F.cross_entropy(
            out_BC, target_B.clamp(min=0), self.weight, reduction="none", label_smoothing=smoothing
        )  # fmt: skip
        uniform_B = -out_BC.log_softmax(dim=-1).mean(dim=-1)
        each_B = torch.where(target_B >= 0, inside_B, torch.where(target_B == OUTSIDE, uniform_B, 0.0))
        return each_B.sum() / self.weigh(target_B)

    def weigh(self, target_B: Tensor) -> Tensor:
        """What the loss is the mean of: the rows, each by the weight of its class."""
        inside_B = target_B >= 0
        return (inside_B * self.weight[target_B.clamp(min=0)]).sum() + (target_B == OUTSIDE).sum()

    def answer(self, out_BC: Tensor) -> Tensor:
        """Log probabilities [B, C]."""
        return (out_BC.float() + self.prior).log_softmax(dim=-1)


class LabelsHead(nn.Module):
    """Logits of L labels, each there or not whatever the others are; they start at the log odds of its share."""

    def __init__(
        self, inputs: int, hidden: int, shares: list[float], dropout: float, from_zero: bool = False,
        directions: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.read: _Read | Directions
        if directions:
            self.read = Directions(inputs, len(shares), dropout)
        else:
            self.read = _Read(inputs, hidden, len(shares), dropout, from_zero)
        share = torch.tensor(shares, dtype=torch.float32).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            (self.read.bias if isinstance(self.read, Directions) else self.read.down.bias).copy_(share.logit())

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.read(read_BR)

    def loss(self, out_BL: Tensor, target_BL: Tensor) -> Tensor:
        """Binary cross-entropy in nats, summed over the labels, mean over the rows; a row of -1 does not count."""
        known = (target_BL >= 0).float()
        each = F.binary_cross_entropy_with_logits(out_BL.float(), target_BL.float(), known, reduction="sum")
        return each / known[:, 0].sum().clamp(min=1)

    def answer(self, out_BL: Tensor) -> Tensor:
        """Logits [B, L]."""
        return out_BL.float()


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
