"""Heads: states -> output and loss.

A head is an ensemble of ``members`` that share their matrices and differ by a vector before and after
them (BatchEnsemble, Wen 2020; TabM, Gorishniy 2024). Each member has its own loss; a prediction is the
mean of the members. Shape suffixes: B rows, M members, D width, R width of what is read, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """A two-layer network M times: shared matrices, own scales, own biases, own last matrix."""

    def __init__(self, inputs: int, hidden: int, outputs: int, members: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.before = nn.Parameter(torch.empty(members, inputs).bernoulli_(0.5) * 2 - 1)
        self.shared = nn.Linear(inputs, hidden, bias=False)
        self.after = nn.Parameter(torch.ones(members, hidden))
        self.bias = nn.Parameter(torch.zeros(members, hidden))
        self.last = nn.Parameter(torch.empty(members, hidden, outputs))
        self.last_bias = nn.Parameter(torch.zeros(members, outputs))
        nn.init.normal_(self.shared.weight, std=inputs**-0.5)
        nn.init.normal_(self.last, std=0.5 * hidden**-0.5)

    def forward(self, read_BR: Tensor) -> Tensor:
        h = self.shared(read_BR[:, None, :] * self.before) * self.after + self.bias
        h = F.dropout(F.relu(h), self.dropout, self.training)
        return torch.einsum("bmh,mhc->bmc", h, self.last) + self.last_bias


class ClassHead(nn.Module):
    """Logits of C classes. The bias starts at the log share of each class."""

    prior: Tensor
    weight: Tensor

    def __init__(self, inputs: int, hidden: int, counts: list[int], members: int, dropout: float, balanced: bool):
        super().__init__()
        self.ensemble = Ensemble(inputs, hidden, len(counts), members, dropout)
        share = torch.tensor([max(c, 0.5) for c in counts], dtype=torch.float32)
        share = share / share.sum()
        weight = 1 / (len(counts) * share) if balanced else torch.ones_like(share)
        # trained on weighted classes the logits lack the prior; it is added when predicting (Menon 2021)
        self.register_buffer("prior", share.log() if balanced else torch.zeros_like(share))
        self.register_buffer("weight", weight)
        with torch.no_grad():
            start = torch.zeros_like(share) if balanced else share.log() - share.log().mean()
            self.ensemble.last_bias.copy_(start.expand_as(self.ensemble.last_bias))

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.ensemble(read_BR)

    def loss(self, members_BMC: Tensor, target_B: Tensor) -> Tensor:
        """Mean over rows and members of the cross-entropy, in nats."""
        m = members_BMC.shape[1]
        return F.cross_entropy(members_BMC.flatten(0, 1).float(), target_B.repeat_interleave(m), self.weight)

    def average(self, members_BMC: Tensor) -> Tensor:
        """Log probabilities [B, C] of the members' mean."""
        logs = (members_BMC.float() + self.prior).log_softmax(dim=-1)
        return logs.logsumexp(dim=1) - math.log(members_BMC.shape[1])


class NumberHead(nn.Module):
    """A standardised number; ``mean`` and ``deviation`` bring it back to the target's unit."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, hidden: int, mean: float, deviation: float, members: int, dropout: float):
        super().__init__()
        self.ensemble = Ensemble(inputs, hidden, 1, members, dropout)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float64))

    def forward(self, read_BR: Tensor) -> Tensor:
        return self.ensemble(read_BR)

    def loss(self, members_BMC: Tensor, target_B: Tensor) -> Tensor:
        """Mean squared error over rows and members, in squared deviations of the target."""
        return F.mse_loss(members_BMC[..., 0].float(), target_B[:, None].expand(members_BMC.shape[:2]))

    def average(self, members_BMC: Tensor) -> Tensor:
        """Numbers [B] in the target's unit, float64."""
        return members_BMC[..., 0].double().mean(dim=1) * self.deviation + self.mean
