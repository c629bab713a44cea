"""The model that says which item comes next: a user's events read in order, every item scored.

A causal Transformer (SASRec; Kang & McAuley 2018) or a recurrent network (GRU4Rec; Hidasi 2016) reads the events; the
score of an item is the product of the state with the item's own vector, which is also what is read of it (tied). Where
users come back to what they had, a second path says how likely each item of the history is to be had again, by how
recently and how often it was (the idea of RepeatNet, Ren 2019, within one softmax):

    score(j) = h . v_j + b_j                                                             j is new to the user
    score(j) = g (h . v_j + b_j) + a_r(h) + c_n(h) + d_t(h) + q(h) . k(x_s)              j is in the history

r: how many other items the user had since, n: how often j was had, t: how many events ago, s: the last event with j.
The first line alone is trained too, on all items: what comes back would else be explained by coming back, and the
vectors would learn little of which items go together.

Shape suffixes: B users, T events, M items (candidates), N places that are asked for, S events that are looked back at,
D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.codecs import Codec
from weft.features.histories import GAP_BINS
from weft.features.next_items import HistoryBatch
from weft.features.pieces import IGNORED
from weft.models.backbone import AroundBackbone, BackboneConfig, build
from weft.models.embeddings import RowEmbedding
from weft.models.fused import RMSNorm
from weft.models.histories import BINS, count_bins, rating_inputs
from weft.models.mapped import mapped
from weft.models.tokens import START, Tokens

Columns = dict[str, dict[str, Tensor]]

ALONE = 0.5
"""Weight of the loss of the scores without what is said of coming back."""


@dataclass(frozen=True)
class RankingConfig(AroundBackbone):
    """Shape of a RankingModel."""

    backbone: BackboneConfig
    items: int
    """Items with a vector of their own."""
    context: int
    """Last events that are read."""
    dropout: float
    timed: bool
    rating: tuple[float, float] | None
    """Mean and deviation of the ratings, where there are any."""
    repeats: bool
    """Whether users come back to items."""
    id_dropout: float = 0.3
    """Share of the items that training shows by their columns alone, where they have columns."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rating", self.rating and tuple(self.rating))  # a list as it comes back from JSON


class ItemVectors(nn.Module):
    """A vector an item: its own (that of no item where training never saw it) and what its columns say."""

    def __init__(self, items: int, width: int, codecs: Sequence[Codec], id_dropout: float):
        super().__init__()
        self.items, self.id_dropout = items, id_dropout
        self.ids = nn.Embedding(items + 1, width)
        self.bias = nn.Embedding(items + 1, 1)
        nn.init.normal_(self.ids.weight, std=START)
        nn.init.zeros_(self.ids.weight[0])
        nn.init.zeros_(self.bias.weight)
        self.columns = RowEmbedding(codecs, width) if codecs else None
        if codecs:
            self.norm = RMSNorm(width)
            self.up = nn.Linear(width, 2 * width)
            self.down = nn.Linear(2 * width, width)

    def forward(self, codes_M: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
        """Vectors [M, D] and biases [M] of items, by their codes."""
        own = codes_M.masked_fill(codes_M > self.items, 0)
        if self.columns is None:
            return self.ids(own), self.bias(own).squeeze(-1)
        if self.training and self.id_dropout:
            own = own.masked_fill(torch.rand(own.shape, device=own.device) < self.id_dropout, 0)
        tokens = self.columns(columns)
        here = torch.ones_like(tokens.columns_BT) if tokens.mask_BT is None else tokens.mask_BT.long()
        mean = (tokens.states_BTD * here.unsqueeze(-1)).sum(dim=1) / here.sum(dim=1, keepdim=True).clamp(min=1)
        said = self.down(F.relu(self.up(self.norm(mean)))) * START
        said = said * (codes_M > 0).unsqueeze(-1)
        return self.ids(own) + said, self.bias(own).squeeze(-1)


class Repeats(nn.Module):
    """How likely each item of the history is to be had again, by the state of the place that asks."""

    def __init__(self, width: int):
        super().__init__()
        self.bins = nn.Linear(width, 3 * BINS)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.bins.weight)
        nn.init.zeros_(self.bins.bias)
        nn.init.zeros_(self.query.weight)
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, states_BTD: Tensor, events_BSD: Tensor, back: Lookback) -> Tensor:
        """What is added to the score of the item of event s at place t [B, T, S]; 0 where it is not its last."""
        found = self.query(states_BTD) @ self.key(events_BSD).transpose(1, 2) / math.sqrt(states_BTD.shape[-1])
        for scores, bins in zip(self.bins(states_BTD).split(BINS, dim=-1), back.bins, strict=True):
            found = found + scores.gather(2, bins)
        return found.float().masked_fill(~back.last, 0.0)


@dataclass
class Lookback:
    """At each place t which events s are the last with their item so far [B, T, S], and in which bins they are."""

    last: Tensor
    bins: list[Tensor]

    @classmethod
    def of(cls, items_BS: Tensor, places_BT: Tensor) -> Lookback:
        """``places_BT``: how many events each place has read."""
        s = items_BS.shape[1]
        number = torch.arange(s, device=items_BS.device)
        same = (items_BS[:, :, None] == items_BS[:, None, :]) & (items_BS > 0)[:, :, None]
        later = same & (number[None, :] > number[:, None])
        after = torch.where(later.any(-1), later.int().argmax(-1), s)  # the next event with this item
        times = (same & (number[None, :] <= number[:, None])).sum(-1)
        read = places_BT[:, :, None]
        last = (number < read) & (after[:, None, :] >= read) & (items_BS > 0)[:, None, :]
        others = last.flip(-1).long().cumsum(-1).flip(-1) - 1
        ago = read - 1 - number
        bins = [count_bins(others), count_bins((times - 1)[:, None, :].expand_as(last)), count_bins(ago)]
        return cls(last, bins)


class RankingModel(nn.Module):
    """Events -> scores of every candidate for what comes next."""

    def __init__(self, config: RankingConfig, codecs: Sequence[Codec] = ()):
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.items = ItemVectors(config.items, width, codecs, config.id_dropout)
        self.begin = nn.Parameter(torch.randn(width) * START)
        if config.timed:
            self.gaps = nn.Embedding(GAP_BINS, width)
            nn.init.normal_(self.gaps.weight, std=START / 2)
        if config.rating is not None:
            self.rating = nn.Linear(2, width, bias=False)
            nn.init.normal_(self.rating.weight, std=START)
        self.backbone = build(config.backbone)
        self.norm = RMSNorm(width)
        if config.repeats:
            self.repeats = Repeats(width)

    @torch.no_grad()
    def begin_with(self, counts: np.ndarray) -> None:
        """Start from the popularity of the items: ``counts``, training events of each [V]."""
        known = torch.tensor(counts[: self.config.items], dtype=torch.float32) + 1
        self.items.bias.weight[1:, 0] = (known / known.mean()).log()

    def loss(self, batch: HistoryBatch, smoothing: float = 0.0) -> Tensor:
        """Mean of -log p(what came next) over the places that ask, in nats."""
        vectors, bias = self.items(batch.candidates_M, batch.columns)
        asked = batch.targets_BT != IGNORED
        if mapped(asked):
            asked = torch.ones(asked.shape, dtype=torch.bool, device=asked.device)
        plain, scores = self._scores(batch, vectors, bias, asked)
        targets = batch.targets_BT[asked]
        targets = torch.where(targets == IGNORED, IGNORED, targets - 1)

        def cost(of: Tensor) -> Tensor:
            return F.cross_entropy(of, targets, reduction="sum", label_smoothing=smoothing if self.training else 0.0)

        total = cost(scores)
        if self.training and self.config.repeats:
            total = total + ALONE * cost(plain)
        return total / (targets != IGNORED).sum().clamp(min=1)

    def scores(self, batch: HistoryBatch, vectors_MD: Tensor, bias_M: Tensor) -> Tensor:
        """Scores of what comes after the last event, of every candidate but the first, which is no item [B, M - 1]."""
        asked = torch.arange(batch.items_BT.shape[1] + 1, device=vectors_MD.device) == batch.lengths_B[:, None]
        return self._scores(batch, vectors_MD, bias_M, asked)[1]

    def _scores(
        self, batch: HistoryBatch, vectors_MD: Tensor, bias_M: Tensor, asked_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores [N, M - 1] of the places that ask, row by row: without what is said of coming back, and with it."""
        events = self._events(batch, vectors_MD)
        begin = self.begin.expand(len(events), 1, -1)
        states = self.norm(self.backbone(self._tokens(torch.cat([begin, events], dim=1))))
        chosen = F.dropout(states[asked_BT], self.config.dropout, self.training)
        plain = F.linear(chosen.float(), vectors_MD.float(), bias_M.float())
        if batch.weights_M is not None:
            plain = plain + batch.weights_M
        scores = self._again(plain, states, events, batch.items_BT, asked_BT) if self.config.repeats else plain
        return plain[:, 1:], scores[:, 1:]

    def _again(self, scores: Tensor, states: Tensor, events: Tensor, items_BT: Tensor, asked_BT: Tensor) -> Tensor:
        places = torch.arange(states.shape[1], device=states.device).expand(len(states), -1)
        back = Lookback.of(items_BT, places)
        bonus, last = self.repeats(states, events, back)[asked_BT], back.last[asked_BT]
        items = items_BT[asked_BT.nonzero(as_tuple=True)[0]]
        own = scores.gather(1, items).masked_fill(~last, 0.0)
        return scores.scatter_add(1, items, bonus + (self.repeats.share - 1) * own)

    def _events(self, batch: HistoryBatch, vectors_MD: Tensor) -> Tensor:
        x = vectors_MD[batch.items_BT]
        if self.config.timed:
            x = x + self.gaps(batch.gaps_BT)
        if self.config.rating is not None:
            mean, deviation = self.config.rating
            x = x + self.rating(rating_inputs((batch.ratings_BT - mean) / deviation))
        return F.dropout(x, self.config.dropout, self.training)

    @staticmethod
    def _tokens(states_BTD: Tensor) -> Tokens:
        # empty places come last, where no event reads them
        b, t, _ = states_BTD.shape
        places = torch.arange(t, device=states_BTD.device).expand(b, t)
        return Tokens(states_BTD, None, places, torch.zeros_like(places))

    @torch.no_grad()
    def all_items(self, columns_of: Any, count: int, at_once: int = 8_192) -> tuple[Tensor, Tensor]:
        """Vectors [V + 1, D] and biases [V + 1] of a whole catalogue of ``count`` items, by their codes."""
        self.eval()
        device = self.begin.device
        parts = []
        for codes in torch.arange(count + 1, device=device).split(at_once):
            parts.append(self.items(codes, columns_of(np.asarray(codes.cpu())) if self.items.columns else {}))
        return torch.cat([v for v, _ in parts]), torch.cat([b for _, b in parts])
