"""The Transformer (Vaswani et al. 2017), once, for every task.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V
    MultiHead(Q, K, V) = concat(head_1, ..., head_h) W^O,   head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)
    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2                  (or gelu, or gated silu)

The attention mask is all that differs between reading (every token sees every token), writing (a token
sees itself and those before) and rewriting (as writing, but all see the source). The textbook's encoder-decoder
is two of them, the second with cross-attention. A family of checkpoints is a row of settings, not a class.

Shape suffixes: B batch, T tokens, S tokens that are read (T + those in the cache), D width, H heads,
G groups of keys, K head width, F feed-forward width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft.errors import DataError
from weft.models.causal import BLOCK, causal_attention, keeps_maps, trains_here
from weft.models.dropout import dropout
from weft.models.fused import RMSNorm, gated_silu
from weft.models.mapped import mapped
from weft.models.positions import RotaryScaling, Turn, rotate, rotation, sinusoids
from weft.models.tokens import Tokens
from weft.models.unpadded import Unpadded


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


LEAST_ROOM = 64
"""Tokens that a cache has room for beyond those it was made of."""
PRODUCTS = 12
"""Groups of keys, of all texts together, from which attention of one token in bfloat16 is two products of matrices."""


@dataclass
class Cache:
    """Keys and values of the ``length`` tokens already read, a pair [B, G, S or more, K] a block, and which places hold
    tokens.

    ``sources``: the same of the second sequence, which cross-attention reads at every step.
    """

    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    sources: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    mask_BS: Tensor | None = None
    length: int = 0
    apart: ClassVar[bool] = False
    """Whether each row reads a past of its own length (``weft.models.pool``)."""

    def attend(self, block: int, q_BHTK: Tensor, keys_BGTK: Tensor, values_BGTK: Tensor) -> Tensor:
        raise NotImplementedError

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a block, the new ones at their end."""
        if block == len(self.pairs):
            self.pairs.append((keys, values))
            return keys, values
        past, new = self.length, keys.shape[2]
        pair = self.pairs[block]
        if past + new > pair[0].shape[2]:  # room for as many again, so that a step copies no past
            room = (0, 0, 0, max(new, past, LEAST_ROOM) + past - pair[0].shape[2])
            pair = self.pairs[block] = F.pad(pair[0], room), F.pad(pair[1], room)
        for memory, added in zip(pair, (keys, values), strict=True):
            memory.narrow(2, past, new).copy_(added)
        return pair[0].narrow(2, 0, past + new), pair[1].narrow(2, 0, past + new)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.pairs = [(keys[rows], values[rows]) for keys, values in self.pairs]
        self.sources = {block: (keys[rows], values[rows]) for block, (keys, values) in self.sources.items()}
        self.mask_BS = None if self.mask_BS is None else self.mask_BS[rows]


def norm(config: TransformerConfig, width: int) -> nn.Module:
    """LayerNorm (Ba 2016) or RMSNorm."""
    if config.norm == "rms":
        return RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.biases == "all")


class Joined(nn.Linear):
    """Several matrices over one input, stored as one; ``rows`` asks for some of its outputs only."""

    def forward(self, x: Tensor, rows: slice | None = None) -> Tensor:
        if rows is None:
            return super().forward(x)
        return F.linear(x, self.weight[rows], None if self.bias is None else self.bias[rows])


class Attention(nn.Module):
    """Multi-head attention; keys and values of its own input, or of ``source_BSD``."""

    whole = True
    """False where several processes have some of the heads each."""

    def __init__(self, config: TransformerConfig, source: bool = False):
        super().__init__()
        self.config = config
        h, g, k = config.heads, config.key_groups, config.key_width
        inner = config.biases in ("all", "qkv")
        if source:
            self.q = nn.Linear(config.width, h * k, bias=inner)
            self.kv = nn.Linear(config.width, 2 * g * k, bias=inner)
        else:
            self.qkv = Joined(config.width, (h + 2 * g) * k, bias=inner)
        if config.qk_norm and not source:
            self.q_norm = RMSNorm(k, eps=config.norm_eps)
            self.k_norm = RMSNorm(k, eps=config.norm_eps)
        self.out = nn.Linear(h * k, config.width, bias=config.biases == "all")

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | Unpadded | None,
        causal: bool,
        turn: Turn | None,
        source_BSD: Tensor | None = None,
        cache: Cache | None = None,
        block: int = 0,
        transparent: bool = False,
        first: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Output [B, T, D], and the attention map [B, H, T, S] where ``transparent``; T is ``first`` if given."""
        c = self.config
        if isinstance(mask, Unpadded):
            return self.out(mask.attend(self.qkv(x_BTD), c.key_width)), None
        if cache is not None and source_BSD is None and x_BTD.shape[1] == 1 and not (transparent or self.training):
            return self._one(x_BTD, mask, turn, cache, block), None
        if source_BSD is None:
            q, key, value = self._own(x_BTD, first, turn)
            if cache is not None:
                key, value = cache.extend(block, key, value)
        else:
            q, key, value = self._other(x_BTD, source_BSD, cache, block)
        dropped = c.attention_dropout if self.training else 0.0
        weights, own = None, source_BSD is None and cache is None
        if transparent or mapped(q):
            y, weights = attend(q, key, value, mask, causal, dropped)
        elif trains_here(q) and not dropped and own and c.attention == "writing" and q.shape[2] > BLOCK:
            y = causal_attention(q, key, value, mask)
        elif (
            keeps_maps(q) and q.dtype == torch.bfloat16 and own
        ):  # half the time of the fused kernel, and of its way back
            y, _ = attend(q, key, value, mask, causal, dropped)
        elif q.shape[2] == 1 and not dropped:
            y = attend_once(q, key, value, mask)
        else:
            grouped = c.key_groups != c.heads
            y = F.scaled_dot_product_attention(
                q, key, value, attn_mask=mask, dropout_p=dropped, is_causal=causal, enable_gqa=grouped
            )
        return self.out(y.transpose(1, 2).flatten(2)), weights

    def _one(self, x_B1D: Tensor, mask: Tensor | None, turn: Turn | None, cache: Cache, block: int) -> Tensor:
        """What the next token of every text reads [B, 1, D]. It costs by its steps, rather than by its numbers."""
        c = self.config
        h, g, k = c.heads, c.key_groups, c.key_width
        heads = self.qkv(x_B1D).view(-1, h + 2 * g, 1, k)
        asked, value = heads.narrow(1, 0, h + g), heads.narrow(1, h + g, g)
        if c.qk_norm:
            asked = torch.cat([self.q_norm(asked.narrow(1, 0, h)), self.k_norm(asked.narrow(1, h, g))], dim=1)
        if turn is not None:
            asked = rotate(asked, turn)
        q, key = asked.narrow(1, 0, h), asked.narrow(1, h, g)
        if cache.apart:
            y = cache.attend(block, q, key, value)
        else:
            y = attend_once(q, *cache.extend(block, key, value), mask)
        return self.out(y.view(-1, 1, h * k))

    def _own(self, x_BTD: Tensor, first: int | None, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        h, g, cut = c.heads, c.key_groups, c.heads * c.key_width
        fewer = first is not None and first < x_BTD.shape[1]
        if fewer and self.whole:
            # only the first tokens ask, all are read
            q = self._heads(self.qkv(x_BTD[:, :first], slice(0, cut)))
            key, value = self._heads(self.qkv(x_BTD, slice(cut, None))).chunk(2, dim=1)
        else:
            heads = self._heads(self.qkv(x_BTD))
            if turn is not None and not c.qk_norm and not fewer:  # queries and keys at once
                asked, value = heads.split([h + g, g], dim=1)
                q, key = rotate(asked, turn).split([h, g], dim=1)
                return q, key, value
            q, key, value = heads.split([h, g, g], dim=1)
            q = q[:, :, :first]
        if c.qk_norm:
            q, key = self.q_norm(q), self.k_norm(key)
        if turn is not None:
            q, key = rotate(q, (turn[0][:, :, : q.shape[2]], turn[1][:, :, : q.shape[2]])), rotate(key, turn)
        return q, key, value

    def _other(self, x_BTD: Tensor, source_BSD: Tensor, cache: Cache | None, block: int) -> tuple[Tensor, ...]:
        if cache is not None and block in cache.sources:
            return self._heads(self.q(x_BTD)), *cache.sources[block]
        key, value = (self._heads(part) for part in self.kv(source_BSD).chunk(2, dim=-1))
        if cache is not None:
            cache.sources[block] = (key, value)
        return self._heads(self.q(x_BTD)), key, value

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, H K] -> [B, H, T, K]."""
        return x.view(*x.shape[:-1], -1, self.config.key_width).transpose(1, 2)


def attend(
    q: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The equation itself: output [B, H, T, K] and the map softmax(Q K^T / sqrt(d_k)) [B, H, T, S]."""
    repeat = q.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = (q / math.sqrt(q.shape[-1])) @ key.transpose(-1, -2)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ value, weights


def attend_once(q_BH1K: Tensor, keys_BGSK: Tensor, values_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """What one token a row reads [B, H, 1, K]. The heads that share keys ask side by side, as if they were tokens."""
    b, g, _, k = keys_BGSK.shape
    asked = q_BH1K.reshape(b, g, -1, k)
    if keys_BGSK.dtype == torch.float32 or b * g < PRODUCTS:  # whose bits must not depend on the rows beside it
        return F.scaled_dot_product_attention(asked, keys_BGSK, values_BGSK, attn_mask=mask).reshape(b, -1, 1, k)
    # of many texts two products are quicker; keys first, as oneDNN has no quick kernel for keys in a larger memory
    scores = (keys_BGSK.flatten(0, 1) @ (asked * k**-0.5).flatten(0, 1).transpose(1, 2)).transpose(1, 2)
    if mask is not None:
        scores = scores.unflatten(0, (b, g)).masked_fill(~mask, -torch.inf).flatten(0, 1)
    return (scores.softmax(dim=-1) @ values_BGSK.flatten(0, 1)).view(b, -1, 1, k)


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
            return self.down(gated_silu(h))
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
        x = x + dropout(y, self.config.dropout, self.training)
        return norm(x) if self.config.norm_at == "after" else x

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | Unpadded | None,
        causal: bool,
        turn: Turn | None,
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
            read = _readable(source.mask_BT)
            y, weights = self.cross(inner, read, False, None, source.states_BTD, cache, self.index, seen)
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

    recompute = False
    """Whether a block keeps only what comes in while it learns, and is computed again on the way back (Chen 2016)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_positions or 0, config.width)
        if config.embedding_norm:
            self.embedding_norm = norm(config, config.width)
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
        if c.cross != (source is not None):
            raise ValueError("a Transformer with cross-attention, and no other, must be given a source.")
        if cache is None and states is None and first is None and self._unpads(tokens):
            return self._unpadded(tokens)
        x = self._placed(tokens, 0 if cache is None else cache.length)
        if torch.is_autocast_enabled(x.device.type) and not torch.is_grad_enabled() and c.attention == "reading":
            x = x.to(
                torch.get_autocast_dtype(x.device.type)
            )  # what is added up need not be exact where nothing is learnt
        if states is not None:
            states["embedding"] = x
        mask, causal = self._mask(tokens, cache)
        turn = None
        if c.positions == "rotary":
            places = tokens.positions_BT
            if places.stride(0) == 0:  # the same in every row
                places = places[:1]
            turn = rotation(places, c.key_width, c.rotary_base, c.rotary_scaling)
            autocast = torch.is_autocast_enabled(x.device.type)
            kind = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
            turn = turn[0].to(kind), turn[1].to(kind)
        for block in self.blocks:
            last = block.index == c.layers - 1 and c.attention == "reading"
            asked = (x, mask, causal, turn, source, cache, states, first if last else None)
            kept = not (self.recompute and self.training and torch.is_grad_enabled())
            x = block(*asked) if kept else checkpoint(block, *asked, use_reentrant=False)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x[:, :first])

    def _unpads(self, tokens: Tokens) -> bool:
        """Whether to read the rows without their padding: where what is read is not exact anyhow."""
        c, x = self.config, tokens.states_BTD
        plain = c.attention == "reading" and c.positions != "rotary" and c.key_groups == c.heads
        quick = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        ragged = tokens.mask_BT is not None and tokens.segments_BT is None and not mapped(x)
        return plain and quick and ragged and not c.qk_norm and not c.cross

    def _unpadded(self, tokens: Tokens) -> Tensor:
        assert tokens.mask_BT is not None
        rows = Unpadded(tokens.mask_BT)
        x, places, columns = map(rows.list, (tokens.states_BTD, tokens.positions_BT, tokens.columns_BT))
        x = self._placed(Tokens(x, None, places, columns), 0).to(torch.get_autocast_dtype("cpu"))
        for block in self.blocks:
            x = block(x, rows, False, None, None, None, None)
        return rows.padded(self.norm(x))

    def new_cache(self) -> Cache:
        return Cache()

    def _placed(self, tokens: Tokens, past: int) -> Tensor:
        c, x = self.config, tokens.states_BTD
        if c.max_positions and past + tokens.shape[1] > c.max_positions:
            longest = int(tokens.positions_BT.max()) + 1
            if longest > c.max_positions:
                raise DataError(
                    f"a text must have at most {c.max_positions:,} tokens for this model. Got {longest:,}. "
                    "Cut it, or use a model with more positions."
                )
        if c.positions == "sinusoidal":
            x = x + sinusoids(tokens.positions_BT, c.width).to(x.dtype)
        elif c.positions == "learned":
            x = x + self.positions(tokens.positions_BT)
        if c.embedding_norm:
            x = self.embedding_norm(x)
        return dropout(x, c.dropout, self.training)

    def _mask(self, tokens: Tokens, cache: Cache | None) -> tuple[Tensor | None, bool]:
        """The mask [B or 1, 1, T, S] (True: may be read) or None, and whether plain causal order suffices."""
        c, valid, prefix = self.config, tokens.mask_BT, tokens.prefix_BT
        b, t, _ = tokens.shape
        device = tokens.states_BTD.device
        past = 0
        if tokens.segments_BT is not None and cache is not None:
            raise ValueError("rows that hold several texts cannot go on step by step.")
        if cache is not None:
            past = cache.length
            if valid is not None or cache.mask_BS is not None:
                now = torch.ones(b, t, dtype=torch.bool, device=device) if valid is None else valid
                before = cache.mask_BS
                if before is None:
                    before = torch.ones(b, past, dtype=torch.bool, device=device)
                valid = cache.mask_BS = torch.cat([before, now], dim=1)
        own = None
        if tokens.segments_BT is not None:  # an empty place reads the other empty ones: no row of the softmax is empty
            own = (tokens.segments_BT[:, :, None] == tokens.segments_BT[:, None, :])[:, None]
            valid = None
        if c.attention == "reading":
            return (_readable(valid), False) if own is None else (own, False)
        window = c.window if c.window is not None and past + t > c.window else None
        if valid is None and prefix is None and window is None and own is None and (past == 0 or t == 1):
            return None, t > 1
        rows = torch.arange(past, past + t, device=device)[:, None]
        columns = torch.arange(past + t, device=device)[None, :]
        seen = columns <= rows
        if window is not None:
            seen = seen & (columns > rows - window)
        seen = seen[None, None]
        if c.attention == "rewriting" and prefix is not None:
            # the places in the cache come before these, so every token sees them already
            seen = seen | F.pad(prefix, (past, 0))[:, None, None, :]
        if own is not None:
            seen = seen & own
        if valid is not None:
            # a place without a token reads itself, so that no row of the softmax is empty
            seen = (seen & valid[:, None, None, :]) | (columns == rows)[None, None]
        return seen, False


def _readable(mask_BT: Tensor | None) -> Tensor | None:
    """The mask [B, 1, 1, T] of what a reader may read; a row without any token reads its empty places."""
    if mask_BT is None:
        return None
    # in float32 a row's bits must not depend on whether those beside it are as long
    if torch.is_autocast_enabled("cpu") and not mapped(mask_BT) and bool(mask_BT.all()):
        return None
    return (mask_BT | ~mask_BT.any(dim=1, keepdim=True))[:, None, None, :]


class EncoderDecoder(nn.Module):
    """The textbook model (Vaswani 2017, figure 1): one Transformer reads the source, another writes the
    target and at every block also reads what the first made of the source. Both have the shape ``config``."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.encoder = Transformer(replace(config, attention="reading", cross=False))
        self.decoder = Transformer(replace(config, attention="writing", cross=True))

    def read(self, source: Tokens, states: dict[str, Tensor] | None = None) -> Tokens:
        """The source as the decoder sees it; once a text, however many steps are written."""
        return replace(source, states_BTD=self.encoder(source, states=states))

    def forward(
        self, source: Tokens, target: Tokens, cache: Cache | None = None, states: dict[str, Tensor] | None = None
    ) -> Tensor:
        """States [B, T, D] of the target's tokens."""
        return self.decoder(target, cache, self.read(source), states)
