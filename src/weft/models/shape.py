"""The shape of a Transformer: a family of checkpoints is a row of these settings, not a class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from weft.models.positions import RotaryScaling


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer. Defaults are Weft's own: before-norm, rms, gated, no biases."""

    width: int
    layers: int
    heads: int
    groups: int | None = None
    """Groups of keys and values shared by several heads (Ainslie 2023); None: one a head."""
    head_width: int | None = None
    """None: width / heads."""
    ffn_width: int | None = None
    """None: 4 width, or 8/3 width where the feed-forward is gated."""
    attention: Literal["reading", "writing", "rewriting"] = "reading"
    norm: Literal["layer", "rms"] = "rms"
    norm_at: Literal["before", "after"] = "before"
    norm_eps: float = 1e-6
    positions: Literal["none", "sinusoidal", "learned", "rotary"] = "rotary"
    max_positions: int | None = None
    """Longest text in tokens: the size of the table of learned positions, or what a checkpoint was made for."""
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling | None = None
    window: int | None = None
    """A token reads itself and the ``window - 1`` before it (Mistral; Beltagy 2020). None: all before it."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys before they are turned (Qwen3; Henry 2020)."""
    embedding_norm: bool = False
    """Norm once tokens and positions are added (BERT)."""
    feed_forward: Literal["relu", "gelu", "gelu_tanh", "gated_silu"] = "gated_silu"
    biases: Literal["all", "qkv", "none"] = "none"
    cross: bool = False
    """Blocks read a second sequence too (the decoder of the encoder-decoder)."""
    dropout: float = 0.0
    """On embeddings and on the output of every sublayer, before it is added (Vaswani 2017, 5.4)."""
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads. Got {self.width} and {self.heads}.")
        if self.heads % (self.groups or self.heads):
            raise ValueError(f"heads must be a multiple of groups. Got {self.heads} and {self.groups}.")
        if self.positions == "learned" and not self.max_positions:
            raise ValueError("learned positions need max_positions.")
        if self.positions == "rotary" and self.key_width % 2:
            raise ValueError(f"rotary positions need an even head width. Got {self.key_width}.")
        if self.window is not None and self.attention == "reading":
            raise ValueError("a window looks back, so attention must be writing or rewriting. Got reading.")
        if isinstance(self.rotary_scaling, dict):  # as it comes back from JSON
            object.__setattr__(self, "rotary_scaling", RotaryScaling(**self.rotary_scaling))

    @property
    def key_width(self) -> int:
        return self.head_width or self.width // self.heads

    @property
    def key_groups(self) -> int:
        return self.groups or self.heads

    @property
    def hidden_width(self) -> int:
        if self.ffn_width:
            return self.ffn_width
        gated = self.feed_forward == "gated_silu"
        return 8 * math.ceil(self.width / 3) if gated else 4 * self.width
