"""Matrices in the order in which oneDNN reads them, for models that only answer.

On processors of other makers than Intel's this takes less than half the time of the usual product; and what a row of
the input becomes hardly depends on how many rows come with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.models.language import LanguageModel

LEAST = 1 << 16
"""Numbers of a matrix below which the detour costs more than it saves."""


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

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        if rows != slice(None) or torch.is_grad_enabled():
            bias = None if self.bias is None else self.bias[rows]
            return nn.functional.linear(x, self.weight[rows], bias)
        return torch.ops.mkldnn._linear_pointwise(x.to(self.packed.dtype), self.packed, self.bias, "none", [], "")


def pack_layers(model: nn.Module, dtype: torch.dtype) -> bool:
    """Pack the large linear layers of a model in place as numbers of a kind; False where oneDNN cannot run them."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    if not known or next(model.parameters()).device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and child.weight.numel() >= LEAST:
                bias = None if child.bias is None else child.bias.to(dtype)
                setattr(parent, name, PackedLinear(child.weight.to(dtype), bias))
    return True


def pack(model: LanguageModel) -> None:
    """Pack the large matrices of a model that writes in place, its output's too, where oneDNN can run them."""
    if not pack_layers(model, next(model.backbone.parameters()).dtype):
        return
    table = model.table
    tied = model.config.tied and model.config.output == "linear" and isinstance(table, nn.Embedding)
    if tied and table.weight.numel() >= LEAST:
        model.add_module("output", PackedLinear(table.weight, None))
