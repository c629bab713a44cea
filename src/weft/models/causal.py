"""Causal attention for training on a CPU: exact, and several times faster than the fused kernel's backward.

A block of queries reads only the keys up to its own end, so half of the products are never made; the maps are
kept for the backward pass, which then is matrix products alone (the softmax's gradient: ds = w (dw - sum(w dw))).
Costs memory [B, H, T, T / 2] a layer, which is little at the contexts a CPU trains on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 64
LONGEST = 1_024
"""Tokens beyond which the kept maps cost more than they save."""


class CausalAttention(torch.autograd.Function):
    """softmax(Q K^T / sqrt(K)) V, each token reading itself and those before. q, k, v: [N, T, K].

    ``unseen``: of B rows (N is B times the heads) the places [B, 1, T, T] that are not read although they come
    before; never a token itself.
    """

    @staticmethod
    def forward(ctx: Any, q_NTK: Tensor, k_NTK: Tensor, v_NTK: Tensor, unseen: Tensor | None = None) -> Tensor:
        t, width = q_NTK.shape[1:]
        q = q_NTK / math.sqrt(width)
        later = torch.full((BLOCK, BLOCK), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        out, maps = torch.empty_like(v_NTK), []
        for start in range(0, t, BLOCK):
            end = min(t, start + BLOCK)
            scores = torch.bmm(q[:, start:end], k_NTK[:, :end].transpose(1, 2))
            scores[:, :, start:end] += later[: end - start, : end - start]
            if unseen is not None:
                rows = scores.view(len(unseen), -1, end - start, end)
                rows.masked_fill_(unseen[:, :, start:end, :end], -torch.inf)
            maps.append(scores.softmax(dim=-1))
            torch.bmm(maps[-1], v_NTK[:, :end], out=out[:, start:end])
        ctx.save_for_backward(q, k_NTK, v_NTK, *maps)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *maps = ctx.saved_tensors
        (g_NTK,) = gradients
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for place, w in enumerate(maps):
            start, end = place * BLOCK, place * BLOCK + w.shape[1]
            g = g_NTK[:, start:end]
            dv[:, :end].baddbmm_(w.transpose(1, 2), g)
            dw = torch.bmm(g, v[:, :end].transpose(1, 2))
            ds = torch._softmax_backward_data(dw, w, -1, w.dtype)
            torch.bmm(ds, k[:, :end], out=dq[:, start:end])
            dk[:, :end].baddbmm_(ds.transpose(1, 2), q[:, start:end])
        return dq.div_(math.sqrt(q.shape[-1])), dk, dv, None


def causal_attention(q: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """[B, H, T, K] of queries, [B, G, T, K] of keys and values -> [B, H, T, K].

    ``mask``: bool [B or 1, 1, T, T], True: may be read; of what comes before only.
    """
    b, heads, t, width = q.shape
    repeat = heads // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    flat = (x.reshape(b * heads, t, width) for x in (q, key, value))
    unseen = None if mask is None else (~mask).expand(b, 1, t, t)
    return CausalAttention.apply(*flat, unseen).view(b, heads, t, width)


def trains_here(q_BHTK: Tensor) -> bool:
    """Whether gradients are wanted on a CPU, at a length at which the maps can be kept."""
    return torch.is_grad_enabled() and keeps_maps(q_BHTK)


def keeps_maps(q_BHTK: Tensor) -> bool:
    """Whether these are on a CPU and short enough for whole maps."""
    return q_BHTK.device.type == "cpu" and q_BHTK.shape[2] <= LONGEST
