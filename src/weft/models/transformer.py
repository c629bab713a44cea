"""The Transformer (Vaswani et al. 2017), once, for every task.

    x <- x + MultiHead(norm(x)),   x <- x + FFN(norm(x))    (or the norm after the sum; ``weft.models.attention``)
    FFN(x) = max(0, x W_1 + b_1) W_2 + b_2                  (or gelu, or gated silu)

The attention mask is all that differs between reading (every token sees every token), writing (a token
sees itself and those before) and rewriting (as writing, but all see the source). The textbook's encoder-decoder
is two of them, the second with cross-attention. A family of checkpoints is a row of settings, not a class.

Shape suffixes: B batch, T tokens, S tokens that are read (T + those in the cache), D width.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from weft.errors import DataError
from weft.models.attention import Attention, Cache
from weft.models.dropout import dropout
from weft.models.fused import RMSNorm, gated_silu
from weft.models.mapped import mapped
from weft.models.positions import Turn, rotation, sinusoids
from weft.models.shape import TransformerConfig
from weft.models.tokens import Tokens
from weft.models.unpadded import Unpadded


def norm(config: TransformerConfig, width: int) -> nn.Module:
    """LayerNorm (Ba 2016) or RMSNorm."""
    if config.norm == "rms":
        return RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.biases == "all")


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
            # what is added up need not be exact where nothing is learnt
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if states is not None:
            states["embedding"] = x
        mask, causal = self._mask(tokens, cache)
        turn = None
        # a row of numbers and categories stands at place 0, where nothing is turned
        placed = x.device.type != "cpu" or mapped(x) or bool(tokens.positions_BT.any())
        if c.positions == "rotary" and placed:
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
