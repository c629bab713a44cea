"""LoRA (Hu 2021): a matrix W stays as it is and learns a difference of low rank beside it.

    y = W x + 2 B A x        A: rank x inputs, random;  B: outputs x rank, zero at first

The product counts twice (alpha = 2 rank), so that another rank needs no other learning rate. Only A and B are
trained; ``merge`` then adds the product to W, and the model is what it was before.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.errors import UsageError, listing
from weft.models.attention import Joined

TARGETS = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
"""Ends of the names of the linear layers that get an adapter."""
SCALE = 2.0


class LoraLinear(Joined):
    """A linear layer and its adapter. It holds the layer's own weight under the layer's own name."""

    def __init__(self, layer: nn.Linear, rank: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.kind, self.weight, self.bias = type(layer), layer.weight, layer.bias
        w = layer.weight
        self.lora_a = nn.Parameter(torch.empty(rank, layer.in_features, dtype=w.dtype, device=w.device))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank, dtype=w.dtype, device=w.device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor, rows: slice | None = None) -> Tensor:
        b = self.lora_b if rows is None else self.lora_b[rows]
        y = super().forward(x, rows)
        # added by the product itself: nothing else of the size of y is made
        few = F.linear(x, self.lora_a).flatten(0, -2)
        return torch.addmm(y.flatten(0, -2), few, b.T, alpha=SCALE).view_as(y)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer as it was before, the product added to its weight."""
        with torch.device("meta"):
            layer = self.kind(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight, layer.bias = self.weight, self.bias
        layer.weight.add_(SCALE * self.lora_b @ self.lora_a)
        return layer.train(self.training)


def attach(model: nn.Module, rank: int) -> list[str]:
    """Give the linear layers of a backbone an adapter and freeze the rest of ``model``; returns their names.

    The model's answers are the same as before until B is trained. A part that shall be trained in full
    (a new head) is unfrozen afterwards: ``head.requires_grad_(True)``.
    """
    ends = tuple(f".{target}" for target in TARGETS)
    chosen = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and f".{n}".endswith(ends)}
    if not chosen or any(isinstance(m, LoraLinear) for m in chosen.values()):
        linear = [n for n, m in model.named_modules() if type(m) is nn.Linear]
        raise UsageError(f"an adapter must have linear layers of a Transformer without one. Got {listing(linear)}.")
    model.requires_grad_(False)
    for name, layer in chosen.items():
        _put(model, name, LoraLinear(layer, rank).train(layer.training))
    return list(chosen)


def merge(model: nn.Module) -> None:
    """Add every adapter to its weight and remove it."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLinear):
            _put(model, name, layer.merged())
    model.requires_grad_(True)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
