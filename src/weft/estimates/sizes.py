"""What a Transformer of Weft's own shape takes while it learns: numbers, products, and bytes of a device by part.

Activations are counted as Korthikanti et al. 2022 ("Reducing activation recomputation in large Transformer models")
count theirs, for the blocks of ``weft.models.transformer`` (before-norm, rms, gated feed-forward, no biases, no
dropout): what the way back needs of a block, in bytes a token with e bytes a product (2 in bfloat16), width D,
feed-forward F and H heads

    not split:  8 D + 2 e D       what goes into both norms (float32), and what comes out of them
    split by t: e (6 D + 4 F)     queries, keys, values, the two turned, the answer; gate, up, silu, their product
    maps:       (4 + e) H S       of S tokens read, where attention is not fused (split by t)

With checkpoints a block keeps its input alone, 4 D, and one block at a time is computed again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.errors import UsageError

VOCABULARY = 32_000
LAYERS = range(1, 513)
WIDTHS = (*range(64, 1_024, 64), *range(1_024, 4_096, 256), *range(4_096, 8_192, 512), *range(8_192, 65_537, 1_024))
ASPECT = 128
"""Widths a layer, half of it below a billion parameters, as is usual (the loss hardly depends on it, Kaplan 2020)."""


@dataclass(frozen=True)
class Shape:
    """A Transformer that writes: as many keys as heads, the output matrix is the table."""

    width: int
    layers: int
    heads: int
    vocabulary: int = VOCABULARY
    beside: int = 0
    """Parameters beside the table and the blocks: codecs and heads of a pipeline file."""

    @property
    def hidden(self) -> int:
        return 8 * math.ceil(self.width / 3)

    @property
    def block(self) -> int:
        """Parameters of a block: queries, keys, values and their output; gate, up and down; two norms."""
        return 4 * self.width**2 + 3 * self.width * self.hidden + 2 * self.width

    @property
    def parameters(self) -> int:
        return (self.vocabulary + 1) * self.width + self.layers * self.block + self.beside

    def products(self, context: int) -> float:
        """FLOPs of a token, forward and back: 6 N + 12 L D T (Chowdhery 2022, appendix B)."""
        return 6 * self.parameters + 12 * self.layers * self.width * context

    def cache(self, context: int) -> int:
        """Bytes of the keys and values of one text that is gone on from, in bfloat16."""
        return 4 * self.layers * self.width * context


def usual_shape(parameters: float) -> Shape:
    """A usual shape near to so many parameters. Raises UsageError where the table alone has more."""
    aspect = ASPECT if parameters >= 1e9 else ASPECT // 2
    found = []
    for width in WIDTHS:
        heads = width // (64 if width < 2_048 else 128)
        layers = round((parameters - (VOCABULARY + 1) * width) / Shape(width, 1, heads).block)
        shape = Shape(width, layers, heads)
        error = abs(shape.parameters / parameters - 1)
        if layers in LAYERS and error < 0.25:
            found.append((error + 0.05 * abs(math.log(width / layers / aspect)), shape))
    if not found:
        least = Shape(64, 1, 1).parameters
        raise UsageError(
            f"--params: must be a size that a Transformer with {VOCABULARY:,} kinds of token has, between "
            f"{least / 1e6:.0f}M and 10T. Got {parameters:,.0f}. For smaller ones plan a pipeline file: weft plan FILE."
        )
    return min(found, key=lambda pair: pair[0])[1]


@dataclass(frozen=True)
class Layout:
    """How processes share a training, a device each (:mod:`weft.training.team`): ``shares`` learn from other rows, each
    with all weights or (``shard``) a piece of them; ``tensor`` processes split the matrices of the blocks."""

    shares: int = 1
    shard: bool = False
    tensor: int = 1
    checkpoint_activations: bool = False
    rows: int = 1
    """Rows of a process that are computed at once."""


def of_size(width: int, layers: int, heads: int, parameters: int) -> Shape:
    """The shape of a model that is there, with all its parameters."""
    bare = Shape(width, layers, heads, 0)
    return Shape(width, layers, heads, 0, parameters - bare.parameters)


def activations(shape: Shape, context: int, layout: Layout, fused: bool = True, product: int = 2) -> float:
    """Bytes that the way back needs, the logits (12 bytes each at the most) included. A CPU needs H products less a
    block (:class:`weft.models.fused.GatedSiLU`)."""
    d, t = shape.width, layout.tensor
    split = product * (6 * d + 4 * shape.hidden)
    maps = 0 if fused else (4 + product) * shape.heads * context
    block = 8 * d + 2 * product * d + (split + maps) / t
    blocks = shape.layers * 4 * d + block if layout.checkpoint_activations else shape.layers * block
    return layout.rows * context * (blocks + 4 * d + 12 * shape.vocabulary)


def memory(shape: Shape, context: int, layout: Layout) -> dict[str, float]:
    """Bytes of a device by part, trained in bfloat16 products with float32 weights and AdamW, as ``weft run`` trains.

    Where the weights are shared out, two blocks are whole at a time, in bfloat16, and the table with its gradient all
    the way back, in float32 (ZeRO's stage 3, Rajbhandari 2020).
    """
    blocks = shape.layers * shape.block / layout.tensor
    beside = shape.parameters - shape.layers * shape.block
    own = (blocks + beside) / (layout.shares if layout.shard else 1)
    whole = 2 * 2 * shape.block / layout.tensor + 8 * beside if layout.shard else 2 * (blocks + beside)
    return {
        "weights": 4 * own + whole,
        "gradients": 4 * own,
        "optimizer": 8 * own,
        "average and best": 8 * own,
        "activations": activations(shape, context, layout),
    }
