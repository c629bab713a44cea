"""Matrices in the order in which oneDNN reads them, for models that only answer.

On processors of other makers than Intel's this takes less than half the time of the usual product; and what a row of
the input becomes hardly depends on how many rows come with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.models.fused import RMSNorm
from weft.models.language import LanguageModel
from weft.models.transformer import Block, Transformer

LEAST = 1 << 16
"""Numbers of a matrix below which the detour costs more than it saves, of one row."""


class PackedLinear(nn.Module):
    """A linear layer without gradients. Its matrix is kept in oneDNN's order only."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 4)
        self.bias = None if bias is None else bias.detach()

    @property
    def weight(self) -> Tensor:
        """The matrix in its usual order, made anew."""
        return self.packed.to_dense()

    def forward(self, x: Tensor, rows: slice | None = None) -> Tensor:
        if not torch.is_grad_enabled():
            y = torch.ops.mkldnn._linear_pointwise.default(
                x.to(self.packed.dtype), self.packed, self.bias, "none", [], ""
            )
            return y if rows is None else y[..., rows]
        rows = rows or slice(None)
        return F.linear(x, self.weight[rows], None if self.bias is None else self.bias[rows])

    __call__ = forward  # without hooks: it is called a hundred times a token


class PackedNorm(nn.Module):
    """RMSNorm of one token a text in two kernels, as it costs by their number rather than by what they read.

    x and -x together have the mean 0 and the variance mean(x^2), so that their layer norm is this norm.
    """

    def __init__(self, norm: RMSNorm):
        super().__init__()
        self.norm = norm
        self.signs = norm.weight.new_tensor([[1.0], [-1.0]])
        self.both = norm.weight.detach().expand(2, -1).contiguous()

    def forward(self, x_BTD: Tensor) -> Tensor:
        if x_BTD.shape[1] > 1 or torch.is_grad_enabled():
            return self.norm(x_BTD)
        signed_B2D = x_BTD * self.signs
        return F.layer_norm(signed_B2D, signed_B2D.shape[1:], self.both, None, self.norm.eps or 0.0).narrow(1, 0, 1)

    __call__ = forward


def pack_layers(model: nn.Module, dtype: torch.dtype, least: int = LEAST) -> bool:
    """Pack the linear layers of at least so many numbers in place, as numbers of a kind; False where oneDNN cannot run
    them."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    if not known or next(model.parameters()).device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    # not of the layers themselves, each of which is freed before the next is packed
    for parent in [m for m in model.modules() if not isinstance(m, nn.Linear)]:
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and child.weight.numel() >= least:
                bias = None if child.bias is None else child.bias.to(dtype)
                setattr(parent, name, PackedLinear(child.weight.to(dtype), bias))
    return True


def pack(model: LanguageModel) -> None:
    """Pack the large matrices of a model that writes in place, its output's too, where oneDNN can run them."""
    if not pack_layers(model, next(model.backbone.parameters()).dtype):
        return
    for parent in model.backbone.modules():
        if isinstance(parent, (Block, Transformer)):
            for name, child in list(parent.named_children()):
                if isinstance(child, RMSNorm):
                    setattr(parent, name, PackedNorm(child))
    table = model.table
    tied = model.config.tied and model.config.output == "linear" and isinstance(table, nn.Embedding)
    if tied and table.weight.numel() >= LEAST:
        model.add_module("output", PackedLinear(table.weight, None))
