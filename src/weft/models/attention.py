"""Attention (Vaswani et al. 2017), and the cache of keys and values that writing a token at a time reads.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V
    MultiHead(Q, K, V) = concat(head_1, ..., head_h) W^O,   head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)

Shape suffixes: B batch, T tokens, S tokens that are read (T + those in the cache), D width, H heads,
G groups of keys, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.models.causal import BLOCK, causal_attention, keeps_maps, trains_here
from weft.models.fused import RMSNorm
from weft.models.mapped import mapped
from weft.models.positions import Turn, rotate
from weft.models.shape import TransformerConfig
from weft.models.unpadded import Unpadded

LEAST_ROOM = 64
"""Tokens that a cache has room for beyond those it was made of."""
VECTOR = 16
"""Numbers of float32 in a register of AVX-512."""
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
        past, new = self.length, keys.shape[2]
        if block == len(self.pairs):  # memory of their own, as what they are parts of holds the queries too
            room = (0, 0, 0, max(new, LEAST_ROOM))
            self.pairs.append((F.pad(keys, room), F.pad(values, room)))
            return keys, values
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
        elif keeps_maps(q) and q.dtype == torch.bfloat16 and own:
            # half the time of the fused kernel, and of its way back
            y, _ = attend(q, key, value, mask, causal, dropped)
        elif q.shape[2] == 1 and not dropped:
            y = attend_once(q, key, value, mask)
        else:
            grouped = c.key_groups != c.heads
            if not causal:
                key, value, mask = filled_up(key, value, mask)
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


def filled_up(key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask with a few places more, which nobody reads, where their number is then a multiple of
    ``VECTOR``: the fused kernel of a CPU takes what is left of a row number by number, in up to four times the time."""
    more = -key.shape[2] % VECTOR
    if key.device.type != "cpu" or key.dtype != torch.float32 or not 0 < more <= VECTOR // 2:
        return key, value, mask
    seen = key.new_ones(1, 1, 1, key.shape[2], dtype=torch.bool) if mask is None else mask
    room = (0, 0, 0, more)
    return F.pad(key, room), F.pad(value, room), F.pad(seen, (0, more))


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
