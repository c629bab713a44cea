"""The optimiser's step and the learning rate over time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a share of its peak: linear warm-up, then down to ``floor`` by half a cosine or a line."""

    total: int
    warmup: int
    floor: float = 0.02
    down: Literal["cosine", "linear"] = "cosine"

    def __call__(self, step: int) -> float:
        """``step`` counts from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        share = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        left = 1 - share if self.down == "linear" else 0.5 * (1 + math.cos(math.pi * share))
        return self.floor + (1 - self.floor) * left


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019). A group's ``factor`` multiplies the learning rate of the step."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that are trained, by decay and rate.

    Vectors (biases, norms, what is missing) and embeddings are not decayed. A module may ask for another rate
    for its parameters (``rate_factor``), or not to be decayed (``decayed = False``).
    """
    own: dict[int, float] = {}
    free = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for module in model.modules():
        factor = getattr(module, "rate_factor", None)
        if factor is not None:
            own |= {id(p): factor for p in module.parameters()}
        if not getattr(module, "decayed", True):
            free |= {id(p) for p in module.parameters()}
    groups: dict[tuple[Any, ...], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            factor = own.get(id(parameter), 1.0)
            decay = 0.0 if parameter.dim() < 2 or id(parameter) in free else weight_decay
            mesh = getattr(parameter, "device_mesh", None)  # one step of the library is for tensors that lie alike
            groups.setdefault((decay, factor, mesh), []).append(parameter)
    return [{"params": ps, "weight_decay": decay, "factor": factor} for (decay, factor, _), ps in groups.items()]


def fit_ridge(
    outputs: Callable[[], Tensor], loss: Callable[[Tensor], Tensor], weights: list[nn.Parameter], bias: nn.Parameter,
    penalty: float,
) -> None:  # fmt: skip
    """Ridge or logistic regression by L-BFGS (Liu & Nocedal 1989): mean loss + penalty / 2 |w|^2, the bias free."""
    optimizer = torch.optim.LBFGS(
        [*weights, bias], max_iter=100, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(outputs())
        for weight in weights:
            total = total + 0.5 * penalty * weight.square().sum()
        total.backward()
        return total

    optimizer.step(closure)
