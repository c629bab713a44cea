"""The Transformer (Vaswani et al. 2017), once, for every task.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V
    MultiHead(Q, K, V) = concat(head_1, ..., head_h) W^O,   head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)
    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2                  (or gelu, or gated silu)

The attention mask is all that differs between reading (every token sees every token), writing (a token
sees itself and those before) and rewriting (as writing, but all see the source). A family of checkpoints
is a row of settings, not a class.

Shape suffixes: B batch, T tokens, S tokens that are read (T + those in the cache), D width, H heads,
G groups of keys, K head width, F feed-forward width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.models.tokens import Tokens


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
    """Size of the table of learned positions."""
    rotary_base: float = 10_000.0
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


@dataclass
class Cache:
    """Keys and values of tokens already read, a pair [B, G, S, K] a block, and which places hold tokens."""

    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    mask_BS: Tensor | None = None
    length: int = 0

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if block == len(self.pairs):
            self.pairs.append((keys, values))
        else:
            old_keys, old_values = self.pairs[block]
            self.pairs[block] = (torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2))
        return self.pairs[block]


def norm(config: TransformerConfig, width: int) -> nn.Module:
    """LayerNorm (Ba 2016) or RMSNorm (Zhang & Sennrich 2019)."""
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.biases == "all")


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions [...] -> [..., width]: sin and cos of p / 10000^(2i/width), interleaved (Vaswani 2017, 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10_000.0) / width))
    angles = positions.unsqueeze(-1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def rotation(positions_BT: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin [B, 1, T, width] of rotary positions (Su 2021), halves side by side as Llama stores them."""
    rates = base ** (-torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.float32) / width)
    angles = positions_BT[:, None, :, None].float() * rates
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = turn
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos.to(x_BHTK.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x_BHTK.dtype)


class Attention(nn.Module):
    """Multi-head attention; keys and values of its own input, or of ``source_BSD``."""

    def __init__(self, config: TransformerConfig, source: bool = False):
        super().__init__()
        self.config = config
        h, g, k = config.heads, config.key_groups, config.key_width
        inner = config.biases in ("all", "qkv")
        if source:
            self.q = nn.Linear(config.width, h * k, bias=inner)
            self.kv = nn.Linear(config.width, 2 * g * k, bias=inner)
        else:
            self.qkv = nn.Linear(config.width, (h + 2 * g) * k, bias=inner)
        self.out = nn.Linear(h * k, config.width, bias=config.biases == "all")

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        causal: bool,
        turn: tuple[Tensor, Tensor] | None,
        source_BSD: Tensor | None = None,
        cache: Cache | None = None,
        block: int = 0,
        transparent: bool = False,
        first: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Output [B, T, D], and the attention map [B, H, T, S] where ``transparent``; T is ``first`` if given."""
        c = self.config
        h, g, k = c.heads, c.key_groups, c.key_width
        b, t, _ = x_BTD.shape
        if source_BSD is None and first is not None and first < t:
            # only the first tokens ask, all are read
            weight, bias = self.qkv.weight, self.qkv.bias
            cut = h * k
            q = F.linear(x_BTD[:, :first], weight[:cut], None if bias is None else bias[:cut])
            key, value = F.linear(x_BTD, weight[cut:], None if bias is None else bias[cut:]).split(
                [g * k, g * k], dim=-1
            )
            t = first
        elif source_BSD is None:
            q, key, value = self.qkv(x_BTD).split([h * k, g * k, g * k], dim=-1)
        else:
            q = self.q(x_BTD)
            key, value = self.kv(source_BSD).split([g * k, g * k], dim=-1)
        q = q.view(b, t, h, k).transpose(1, 2)
        key = key.view(b, -1, g, k).transpose(1, 2)
        value = value.view(b, -1, g, k).transpose(1, 2)
        if turn is not None:
            q, key = rotate(q, (turn[0][:, :, :t], turn[1][:, :, :t])), rotate(key, turn)
        if cache is not None:
            key, value = cache.extend(block, key, value)
        dropped = c.attention_dropout if self.training else 0.0
        if transparent:
            y, weights = attend(q, key, value, mask, causal, dropped)
        else:
            y, weights = (
                F.scaled_dot_product_attention(
                    q, key, value, attn_mask=mask, dropout_p=dropped, is_causal=causal, enable_gqa=g != h
                ),
                None,
            )
        return self.out(y.transpose(1, 2).reshape(b, t, h * k)), weights


def attend(
    q: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The equation itself: output [B, H, T, K] and the map softmax(Q K^T / sqrt(d_k)) [B, H, T, S]."""
    repeat = q.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = q @ key.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    return F.dropout(weights, dropout) @ value, weights


class FeedForward(nn.Module):
    """Two matrices with a bend between; gated: silu(x W_gate) * (x W_up) (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.kind = config.feed_forward
        bias = config.biases == "all"
        gates = 2 if self.kind == "gated_silu" else 1
        self.up = nn.Linear(config.width, gates * config.hidden_width, bias=bias)
        self.down = nn.Linear(config.hidden_width, config.width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h = self.up(x_BTD)
        if self.kind == "gated_silu":
            gate, up = h.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        if self.kind == "relu":
            return self.down(F.relu(h))
        return self.down(F.gelu(h, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


class Block(nn.Module):
    """Attention, then feed-forward, each added to what came in; the norm before each or after the sum."""

    def __init__(self, config: TransformerConfig, index: int):
        super().__init__()
        self.config, self.index = config, index
        self.attention = Attention(config)
        self.attention_norm = norm(config, config.width)
        if config.cross:
            self.cross = Attention(config, source=True)
            self.cross_norm = norm(config, config.width)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = norm(config, config.width)

    def _add(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        x = x + F.dropout(y, self.config.dropout, self.training)
        return norm(x) if self.config.norm_at == "after" else x

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        causal: bool,
        turn: tuple[Tensor, Tensor] | None,
        source: Tokens | None,
        cache: Cache | None,
        states: dict[str, Tensor] | None,
        first: int | None = None,
    ) -> Tensor:
        before = self.config.norm_at == "before"
        name = f"block{self.index:02d}"
        seen = states is not None
        inner = self.attention_norm(x_BTD) if before else x_BTD
        y, weights = self.attention(inner, mask, causal, turn, None, cache, self.index, seen, first)
        x = self._add(x_BTD[:, :first], y, self.attention_norm)
        if states is not None and weights is not None:
            states[f"{name}.attention"] = weights
        if source is not None:
            inner = self.cross_norm(x) if before else x
            read = None if source.mask_BT is None else source.mask_BT[:, None, None, :]
            y, weights = self.cross(inner, read, False, None, source.states_BTD, transparent=seen)
            x = self._add(x, y, self.cross_norm)
            if states is not None and weights is not None:
                states[f"{name}.cross"] = weights
        y = self.feed_forward(self.feed_forward_norm(x) if before else x)
        x = self._add(x, y, self.feed_forward_norm)
        if states is not None:
            states[f"{name}.output"] = x
        return x


class Transformer(nn.Module):
    """Tokens (+ cache) -> states [B, T, D]."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_positions or 0, config.width)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = norm(config, config.width) if config.norm_at == "before" else nn.Identity()
        self.initialise()

    def initialise(self) -> None:
        """Normal(0, 1/sqrt(fan in)); what writes to the residual stream is smaller by sqrt(2 layers)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            deviation = parameter.shape[1] ** -0.5 if "positions" not in name else 0.02
            if name.endswith(("out.weight", "down.weight")):
                deviation /= math.sqrt(2 * self.config.layers)
            nn.init.normal_(parameter, std=deviation)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tokens,
        cache: Cache | None = None,
        source: Tokens | None = None,
        states: dict[str, Tensor] | None = None,
        first: int | None = None,
    ) -> Tensor:
        """States of every token, or of the ``first`` ones only.

        Args:
            cache: keys and values of tokens already read; extended in place (writing only).
            source: a second sequence to read (``cross``).
            states: a dict to fill with named states ("embedding", "block00.attention" [B, H, T, S],
                "block00.output" [B, T, D], ...); the transparent path is then taken, same numbers.
            first: when reading, how many leading tokens are wanted; the last block then skips the others.
        """
        c = self.config
        x = self._placed(tokens)
        if states is not None:
            states["embedding"] = x
        mask, causal = self._mask(tokens, cache)
        turn = rotation(tokens.positions_BT, c.key_width, c.rotary_base) if c.positions == "rotary" else None
        for block in self.blocks:
            last = block.index == c.layers - 1 and c.attention == "reading"
            x = block(x, mask, causal, turn, source, cache, states, first if last else None)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x[:, :first])

    def _placed(self, tokens: Tokens) -> Tensor:
        c, x = self.config, tokens.states_BTD
        if c.positions == "sinusoidal":
            x = x + sinusoids(tokens.positions_BT, c.width).to(x.dtype)
        elif c.positions == "learned":
            x = x + self.positions(tokens.positions_BT)
        return F.dropout(x, c.dropout, self.training)

    def _mask(self, tokens: Tokens, cache: Cache | None) -> tuple[Tensor | None, bool]:
        """The mask [B or 1, 1, T, S] (True: may be read) or None, and whether plain causal order suffices."""
        kind, valid = self.config.attention, tokens.mask_BT
        b, t, _ = tokens.shape
        past = 0
        if cache is not None:
            past = cache.length
            if valid is not None or cache.mask_BS is not None:
                now = (
                    valid if valid is not None else torch.ones(b, t, dtype=torch.bool, device=tokens.states_BTD.device)
                )
                before = cache.mask_BS
                if before is None:
                    before = torch.ones(b, past, dtype=torch.bool, device=now.device)
                valid = cache.mask_BS = torch.cat([before, now], dim=1)
        if kind == "reading":
            return (None if valid is None else valid[:, None, None, :]), False
        if valid is None and kind == "writing":
            if past == 0:
                return None, t > 1
            if t == 1:
                return None, False
        device = tokens.states_BTD.device
        rows = torch.arange(past, past + t, device=device)[:, None]
        seen = (torch.arange(past + t, device=device)[None, :] <= rows)[None, None]
        if kind == "rewriting" and tokens.prefix_BT is not None:
            seen = seen | tokens.prefix_BT[:, None, None, :]
        if valid is not None:
            # a place without a token reads itself, so that no row of the softmax is empty
            own = torch.arange(past + t, device=device)[None, :] == rows
            seen = (seen & valid[:, None, None, :]) | own[None, None]
        return seen, False
