"""The recurrent network of the textbooks, behind the same call as the Transformer.

    rnn    h_t = tanh(W_hh h_{t-1} + W_xh x_t + b_h)                                     (Elman 1990)
    gru    r, z = sigmoid(W x_t + U h_{t-1} + b);  n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + c_n))
           h_t = (1 - z) n + z h_{t-1}                                                   (Cho 2014)
    lstm   i, f, o = sigmoid(W x_t + U h_{t-1} + b);  g = tanh(W_g x_t + U_g h_{t-1} + b_g)
           c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)                                     (Hochreiter 1997)
    then   y_t = W_hy h_t + b_y

Layers stand on one another: x_t of a layer is h_t of the one below. When writing, a token sees those
before it. When reading, a second network runs from the end to the beginning and h_t joins both, so that
the first token has seen the whole row. Places without a token are passed over, wherever they stand.

Shape suffixes: B batch, T tokens, D width, N directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from weft.models.tokens import Tokens

Hidden = tuple[Tensor, ...]
"""(h,) or for the lstm (h, c), [N, B, D] each."""

KERNELS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape of a recurrent network."""

    width: int
    layers: int
    cell: Literal["rnn", "gru", "lstm"] = "lstm"
    attention: Literal["reading", "writing"] = "reading"
    """The Transformer's word: reading runs both ways, writing forwards only."""
    dropout: float = 0.0
    """Between layers and before the output, never from step to step (Zaremba 2014)."""

    def __post_init__(self) -> None:
        if self.cell not in KERNELS:
            raise ValueError(f"cell must be one of {', '.join(KERNELS)}. Got {self.cell!r}.")
        if self.attention not in ("reading", "writing"):
            raise ValueError(f"attention of a recurrent network must be reading or writing. Got {self.attention!r}.")


@dataclass
class RecurrentCache:
    """The last hidden state of every layer: all that a recurrent network keeps of what it has read."""

    hidden: list[Hidden] = field(default_factory=list)
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.hidden = [tuple(part[:, rows] for part in layer) for layer in self.hidden]


class Recurrent(nn.Module):
    """Tokens (+ cache) -> states [B, T, D]."""

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.directions = 2 if config.attention == "reading" else 1
        widths = [config.width, *[self.directions * config.width] * (config.layers - 1)]
        self.layers = nn.ModuleList(
            KERNELS[config.cell](w, config.width, batch_first=True, bidirectional=self.directions == 2)
            for w in widths
        )  # fmt: skip
        self.out = nn.Linear(self.directions * config.width, config.width)
        self.initialise()

    def initialise(self) -> None:
        """W_xh normal(0, 1/sqrt(fan in)); W_hh orthogonal, a gate at a time; an lstm begins by remembering."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                nn.init.zeros_(parameter)
            elif "weight_hh" in name:
                for gate in parameter.data.chunk(parameter.shape[0] // parameter.shape[1]):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            if self.config.cell == "lstm" and "bias_ih" in name:
                parameter.data.chunk(4)[1].fill_(1.0)  # the forget gate's bias (Jozefowicz 2015)

    def forward(
        self,
        tokens: Tokens,
        cache: RecurrentCache | None = None,
        source: Tokens | None = None,
        states: dict[str, Tensor] | None = None,
        first: int | None = None,
    ) -> Tensor:
        """States of every token, or of the ``first`` ones only.

        Args:
            cache: the hidden states so far; replaced in place (writing only).
            source: not for recurrent networks; to write after reading, read the source first.
            states: a dict to fill with named states ("embedding" [B, T, D], "layer00.output" [B, T, N D], ...).
        """
        if source is not None:
            raise ValueError("a recurrent network cannot read a second sequence. Put its tokens before the first's.")
        if tokens.segments_BT is not None:
            raise ValueError("a recurrent network reads one text a row. Give each its own.")
        if cache is not None and self.directions == 2:
            raise ValueError("a network that reads both ways cannot go on step by step. Use attention='writing'.")
        x, valid = tokens.states_BTD, tokens.mask_BT
        if states is not None:
            states["embedding"] = x
        if valid is None:
            x, hidden = self._run(x, None, cache, states)
        else:
            # the kernels want the tokens first and the empty places last, without a change of order
            order = (~valid).long().argsort(dim=1, stable=True)
            lengths = valid.sum(dim=1)
            packed: dict[str, Tensor] | None = None if states is None else {}
            x, hidden = self._run(_gather(x, order), lengths, cache, packed)
            back = order.argsort(dim=1)
            x = _gather(x, back)
            if states is not None:
                states.update({name: _gather(state, back) for name, state in (packed or {}).items()})
        if cache is not None:
            cache.hidden = hidden
            cache.length += tokens.shape[1]
        return self.out(F.dropout(x[:, :first], self.config.dropout, self.training))

    def new_cache(self) -> RecurrentCache:
        return RecurrentCache()

    def _run(
        self, x_BTD: Tensor, lengths: Tensor | None, cache: RecurrentCache | None, states: dict[str, Tensor] | None
    ) -> tuple[Tensor, list[Hidden]]:
        """Through all layers; rows have ``lengths`` tokens at their beginning (None: all T)."""
        last: list[Hidden] = []
        for i, layer in enumerate(self.layers):
            start = cache.hidden[i] if cache is not None and cache.hidden else None
            if i:
                x_BTD = F.dropout(x_BTD, self.config.dropout, self.training)
            x_BTD, end = self._layer(layer, x_BTD, lengths, start)
            last.append(end)
            if states is not None:
                states[f"layer{i:02d}.output"] = x_BTD
        return x_BTD, last

    def _layer(
        self, layer: nn.Module, x_BTD: Tensor, lengths: Tensor | None, start: Hidden | None
    ) -> tuple[Tensor, Hidden]:
        lstm = self.config.cell == "lstm"
        given = start if lstm or start is None else start[0]
        if lengths is None:
            y, end = layer(x_BTD, given)
            return y, end if lstm else (end,)
        # a row without any token runs one empty step, which its own hidden state then ignores
        packed = pack_padded_sequence(x_BTD, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        y, end = layer(packed, given)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=x_BTD.shape[1])
        end = end if lstm else (end,)
        before = start or tuple(torch.zeros_like(h) for h in end)
        read = (lengths > 0)[None, :, None]
        return y, tuple(torch.where(read, new, old) for new, old in zip(end, before, strict=True))


def _gather(x_BTD: Tensor, order_BT: Tensor) -> Tensor:
    return x_BTD.gather(1, order_BT.unsqueeze(-1).expand(-1, -1, x_BTD.shape[-1]))
