"""Events as examples of what comes next: windows of each user's training events, and single questions.

A user with more events than the context has several windows, cut at another place in every epoch; each asks for the
events of one stretch and shows those before it too, so that what is asked has as much behind it as at prediction.

Shape suffixes: B users, T events, M items (candidates).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from weft.data.split import TRAIN
from weft.features.batching import collate, each_field, in_turn
from weft.features.events import UNKNOWN, Events
from weft.features.histories import gap_bins
from weft.features.pieces import IGNORED, Cuts, hash_of
from weft.features.ragged import take
from weft.features.store import RowCodes

POWER = 0.75
"""Of an item's count, by which it is drawn as a wrong answer (Mikolov 2013)."""
EVENTS_AT_ONCE, SCORES = 16_384, 1 << 23
"""Events that are read, and scores that are held, at once."""
Columns = dict[str, dict[str, Tensor]]


@dataclass
class HistoryBatch:
    """Events of some users, the candidates for what comes next, and what came.

    items_BT: int64, places among the candidates, 0 for an item that is not in the catalogue and after the last event.
    targets_BT: int64 [B, T + 1], the place of what comes after the beginning and after each event, IGNORED where
        nothing is asked.
    lengths_B: events of each. gaps_BT: int64, bins of the seconds since the event before. ratings_BT: NaN where none.
    candidates_M: int64, codes of items; the first is 0, no item.
    weights_M: float, added to the scores (the correction of sampled candidates); None: all items are there.
    columns: what is known of the candidates.
    """

    items_BT: Tensor
    targets_BT: Tensor
    lengths_B: Tensor
    gaps_BT: Tensor
    ratings_BT: Tensor
    candidates_M: Tensor
    weights_M: Tensor | None
    columns: Columns

    def to(self, device: torch.device | str) -> HistoryBatch:
        if str(device) == "cpu":
            return self
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved, columns=each_field(self.columns, lambda t: t.to(device)))

    def row(self, place_1: Tensor) -> HistoryBatch:
        """One user alone; the candidates are those of all."""
        names = ("items_BT", "targets_BT", "lengths_B", "gaps_BT", "ratings_BT")
        return replace(self, **{name: getattr(self, name)[place_1] for name in names})


class Candidates:
    """Which items a step scores: all of them, or those of the batch and some that are drawn.

    Of the drawn ones the score is corrected by how often they are drawn, so that the sum of the exponents over all
    candidates is in expectation that over all items (Bengio & Senecal 2008; Yi 2019): with S the items of the batch,
    which are always there, and k draws of q among all items,

        sum_{j in S} e^{s_j} + sum_{drawn j not in S} e^{s_j} / (k q_j).

    Args:
        counts: training events of each item [V].
        drawn: k; None: every item is a candidate.
        columns: what is known of each item, encoded.
    """

    def __init__(self, counts: np.ndarray, drawn: int | None, columns: RowCodes):
        self.size, self.drawn, self.columns = len(counts), drawn, columns
        share = np.maximum(counts, 1).astype(np.float64) ** POWER
        self.share = share / share.sum()
        self._sum = np.cumsum(self.share)

    def of(self, own: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Codes [M] of the items of the batch, ``own``, and of those drawn; what to add to their scores [M]."""
        assert self.drawn is not None
        draws = 1 + np.minimum(np.searchsorted(self._sum, random.random(self.drawn)), self.size - 1)
        found, times = np.unique(draws, return_counts=True)
        new = ~np.isin(found, own)
        found, times = found[new], times[new]
        weights = np.log(times / (self.drawn * self.share[found - 1]))
        return np.concatenate([own, found]), np.concatenate([np.zeros(len(own)), weights]).astype(np.float32)

    def known_of(self, codes: np.ndarray) -> Columns:
        """What is known of items, as tensors; of no item what is known of the first, which nobody reads."""
        places = np.maximum(codes, 1) - 1
        return collate(each_field(self.columns, lambda array: take(array, places)), len(places)).columns


class NextItems:
    """Batches of the events of some users.

    Args:
        context: events that are read at most.
    """

    def __init__(self, events: Events, candidates: Candidates, context: int, seed: int = 0):
        self.events, self.candidates, self.context, self.seed = events, candidates, context, seed

    def cuts(self) -> Cuts:
        """Stretches of the events of all users up to the last that is learnt from."""
        lengths = np.zeros(len(self.events.offsets) - 1, np.int64)
        for piece in self.events.pieces():
            places = np.flatnonzero(self.events.parts[piece] == TRAIN) + piece.start
            users = self.events.owners(places)
            lengths[users] = places - self.events.offsets[users] + 1  # the last one stays
        learnt = np.flatnonzero(lengths)
        return Cuts(learnt, lengths[learnt], max(1, self.context // 2))

    def windows(self, cuts: Cuts) -> np.ndarray:
        """Events that a window of each stretch reads, at most."""
        return np.minimum(cuts.lengths() + self.context // 2, self.context)

    def batch(self, cuts: Cuts, numbers: np.ndarray, epoch: int) -> HistoryBatch:
        """Windows that end with the stretches ``numbers``, as an epoch cuts them."""
        starts, stops = cuts.spans(numbers, self.seed, epoch)
        first = self.events.offsets[cuts.document[numbers]]
        random = np.random.Generator(np.random.Philox(key=[self.seed, hash_of(epoch, numbers)]))
        return self._batch(first, first + starts, first + stops, random)

    def questions(self, places: np.ndarray, users: np.ndarray | None = None) -> HistoryBatch:
        """What comes at each place (an event), of which those before it are read; every item is a candidate.

        ``users``: whose places they are, where one may be that after a user's last event.
        """
        first = self.events.offsets[self.events.owners(places) if users is None else users]
        return self._batch(first, places, places + 1, None)

    def in_turn(self, places: np.ndarray) -> Iterator[np.ndarray]:
        """Places (events) that are asked for, some at once: those with like histories, whose scores fit in memory."""
        lengths = places - self.events.offsets[self.events.owners(places)]
        yield from (places[chosen] for chosen in self.groups(lengths))

    def groups(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Numbers of histories of these lengths, some at once."""
        rows = max(1, SCORES // (self.candidates.size + 1))
        for chosen in in_turn(np.arange(len(lengths)), np.minimum(lengths, self.context), EVENTS_AT_ONCE, 1):
            yield from np.split(chosen, range(rows, len(chosen), rows))

    def _batch(
        self, first: np.ndarray, start: np.ndarray, stop: np.ndarray, random: np.random.Generator | None
    ) -> HistoryBatch:
        """``first``: the user's first event; from ``start`` to ``stop`` it is asked for."""
        begin = np.maximum(first, stop - 1 - self.context)
        lengths = np.maximum(stop - 1 - begin, 0)
        inside = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
        place = np.where(inside, begin[:, None] + np.arange(inside.shape[1]), 0)
        codes = np.where(inside, self.events.items[place], UNKNOWN).astype(np.int64)
        after = begin[:, None] + np.arange(inside.shape[1] + 1)
        asked = (after >= start[:, None]) & (after < stop[:, None])
        asked[:, 1:] &= inside
        # the beginning asks for the first event of all only
        asked[:, 0] &= begin == first
        target = np.where(asked, self.events.items[np.where(asked, after, 0)], UNKNOWN).astype(np.int64)
        candidates, weights = np.arange(self.candidates.size + 1), None
        if random is not None:
            asked &= self.events.parts[np.where(asked, after, 0)] == TRAIN
        if random is not None and self.candidates.drawn is not None:
            own = np.unique(np.concatenate([[UNKNOWN], codes.ravel(), target.ravel()]))
            candidates, weights = self.candidates.of(own, random)
            codes, target = np.searchsorted(own, codes), np.searchsorted(own, target)
        gaps, ratings = self._beside(place, inside, first)
        targets = np.where(asked & (target > 0), target, IGNORED)
        known = self.candidates.known_of(candidates) if random is not None and self.candidates.columns else {}
        return HistoryBatch(
            torch.from_numpy(codes), torch.from_numpy(targets), torch.from_numpy(lengths), torch.from_numpy(gaps),
            torch.from_numpy(ratings), torch.from_numpy(candidates),
            None if weights is None else torch.from_numpy(weights), known,
        )  # fmt: skip

    def _beside(self, place: np.ndarray, inside: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bins of the seconds since the event before, and ratings."""
        times, ratings = self.events.times, self.events.ratings
        gaps = np.zeros(place.shape, np.int64)
        if times is not None:
            before = np.maximum(place - 1, first[:, None])
            gaps = np.where(inside & (place > first[:, None]), gap_bins(times[place] - times[before]), 0)
        if ratings is None:
            return gaps, np.full(place.shape, np.nan, np.float32)
        return gaps, np.where(inside, ratings[place], np.nan).astype(np.float32)
