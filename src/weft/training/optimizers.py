"""The optimiser's step and the learning rate over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine down to ``floor``."""

    total: int
    warmup: int
    floor: float = 0.0

    def __call__(self, step: int) -> float:
        """``step`` counts from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        share = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share))


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); vectors (biases, norms, scales) and embeddings are not decayed."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed, plain = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            vector = parameter.dim() < 2 or id(parameter) in embeddings
            (plain if vector else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=(0.9, 0.99), foreach=True)
