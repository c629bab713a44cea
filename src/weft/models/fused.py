"""Steps between matrix products in few passes over memory: the library takes twice as many to train on a CPU.

All are exact, and the library's on a GPU and for rows computed side by side.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from weft.models.mapped import mapped

# what is meant (activations in bfloat16, the weight in float32) is told as if it were a fault
warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


class RMSNorm(nn.RMSNorm):
    """y = w x / sqrt(mean(x^2) + eps), over the last dimension (Zhang & Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            x = x.to(self.weight.dtype)  # autocast may have halved what comes in
            quick = x.device.type == "cpu" and x.dtype == torch.float32 and not mapped(x)
            # one token a row costs by its kernels, and the library's are fewer
            if quick and self.eps is not None and x.shape[-2:-1] != (1,):
                return (x * _inverse(x, self.eps)).mul_(self.weight)
            return super().forward(x)
        if _trained_here(x) and x.dtype == self.weight.dtype == torch.float32 and self.eps is not None:
            return Normed.apply(x, self.weight, self.eps)
        return super().forward(x)


def _inverse(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) in the quickest steps: a fifth of the time of the library's on a CPU."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


class Normed(torch.autograd.Function):
    """With r = 1 / sqrt(mean(x^2) + eps) and n = r x:  dx = r (g w - n mean(g w n)),  dw = sum(g n)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = _inverse(x, eps)
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, r = ctx.saved_tensors
        g, width = gradients[0].contiguous(), x.shape[-1]
        # that of a layer norm whose mean is 0 is less by r mean(g w)
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            g, x, [width], torch.zeros_like(r), r, weight, None, [True, True, False]
        )
        return dx.add_((g @ weight).unsqueeze(-1).mul_(r).div_(width)), dw, None


def gated_silu(h_BTF: Tensor) -> Tensor:
    """silu(gate) up, of a projection whose first half is the gate (Shazeer 2020)."""
    if _trained_here(h_BTF):
        return GatedSiLU.apply(h_BTF)
    gate, up = h_BTF.chunk(2, dim=-1)
    bent = F.silu(gate)
    return bent * up if torch.is_grad_enabled() else bent.mul_(up)


PIECE = 256
"""Tokens whose states are worked on at once, so that they stay in the cache from one step to the next."""


class GatedSiLU(torch.autograd.Function):
    """In pieces, and only ``h`` is kept: to bend the gate again costs less than to write and read it."""

    @staticmethod
    def forward(ctx: Any, h_BTF: Tensor) -> Tensor:
        ctx.save_for_backward(h_BTF)
        h = h_BTF.reshape(-1, h_BTF.shape[-1])
        out = h.new_empty(len(h), h.shape[-1] // 2)
        for piece, made in zip(h.split(PIECE), out.split(PIECE), strict=True):
            gate, up = piece.chunk(2, dim=-1)
            torch.mul(F.silu(gate), up, out=made)
        return out.view(*h_BTF.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (h_BTF,) = ctx.saved_tensors
        h, gradient = (x.reshape(-1, x.shape[-1]) for x in (h_BTF, *gradients))
        dh = torch.empty_like(h)
        for piece, g, made in zip(h.split(PIECE), gradient.split(PIECE), dh.split(PIECE), strict=True):
            gate, up = piece.chunk(2, dim=-1)
            to_gate, to_up = made.chunk(2, dim=-1)
            torch.mul(g, F.silu(gate), out=to_up)
            torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=to_gate)
        return dh.view_as(h_BTF)


def _trained_here(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.device.type == "cpu" and not mapped(x)
