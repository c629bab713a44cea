"""Muon (Jordan 2024): momentum whose matrices are made orthogonal, so that every direction is learnt alike.

    M_t = mu M_{t-1} + (1 - mu) G_t;  U = (1 - mu) G_t + mu M_t                     (Nesterov)
    O = U / |U|, four times  O <- a O + (b A + c A^2) O,  A = O O^T                  (Newton-Schulz)
    W <- W - rate (sqrt(max(1, rows / columns)) O + decay W)

For the matrices inside a Transformer's blocks; tables, norms and biases are AdamW's. Matrices that are stored
as one (queries, keys and values; gate and up) are made orthogonal apart. On a Transformer that writes it needs
fewer steps than AdamW to the same loss, and a step costs little more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from weft.models.transformer import Block
from weft.training.optimizers import parameter_groups
from weft.training.parallel import Alone

MOMENTUM = 0.95
KIND = torch.bfloat16
"""In which numbers matrices are made orthogonal."""
STEPS = (3.4445, -4.7750, 2.0315)
"""a, b and c: chosen for speed, so that singular values come out between 0.7 and 1.2."""
TIMES = 4
"""Of five, which cost a quarter more, a writer of ten million parameters learnt no better (benchmarks/RESULTS.md)."""
FASTER = 20 / 3
"""The rate of a matrix as a multiple of AdamW's."""


class Muon(torch.optim.AdamW):
    """Muon for the groups that say into how many ``parts`` their matrices fall, AdamW for the others."""

    team = Alone()
    """Who holds the matrices, which are made orthogonal whole."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        every = self.param_groups
        try:
            self.param_groups = [g for g in every if not g.get("parts")]
            found = super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group.get("parts"):
                self._orthogonal(group)
        return found

    def _orthogonal(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        directions: list[Tensor] = []
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())  # AdamW looks for one when a state is restored
                state["momentum"] = torch.zeros_like(p)
            momentum, gradient = self.team.own(state["momentum"]), self.team.own(p.grad)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            directions += self.team.full(p, torch.lerp(gradient, momentum, MOMENTUM).to(KIND)).chunk(group["parts"])
        made = orthogonal(torch.stack(directions))
        scale = math.sqrt(max(1.0, made.shape[1] / made.shape[2]))
        for place, p in enumerate(parameters):
            whole = made[place * group["parts"] : (place + 1) * group["parts"]].flatten(0, 1)
            own = self.team.own(p)
            if group["weight_decay"]:
                own.mul_(1 - group["lr"] * group["weight_decay"])
            own.add_(self.team.part(p, whole).to(p.dtype), alpha=-group["lr"] * scale)


def orthogonal(matrices_NRC: Tensor) -> Tensor:
    """Of each matrix U S V^T about U V^T, by steps of Newton and Schulz in bfloat16."""
    a, b, c = STEPS
    x = matrices_NRC.to(KIND)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2).contiguous()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(TIMES):
        square = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def muon(model: nn.Module, learning_rate: float, weight_decay: float) -> Muon:
    """Muon over ``model``. A group's ``factor`` multiplies the learning rate of the step."""
    parts: dict[int, int] = {}
    for block in model.modules():
        if isinstance(block, Block):
            parts |= {id(m.weight): 1 for m in block.modules() if isinstance(m, nn.Linear)}
            attention, up = block.attention, block.feed_forward.up
            equal = attention.config.key_groups == attention.config.heads
            parts[id(attention.qkv.weight)] = 3 if equal else 1
            parts[id(up.weight)] = 2 if block.feed_forward.kind == "gated_silu" else 1
    groups = []
    for group in parameter_groups(model, weight_decay):
        apart: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for p in group["params"]:
            apart.setdefault((parts[id(p)], *p.shape) if id(p) in parts else (0,), []).append(p)
        for (count, *_), parameters in apart.items():
            factor = group["factor"] * (FASTER if count else 1.0)
            groups.append({**group, "params": parameters, "factor": factor, "parts": count})
    return Muon(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
