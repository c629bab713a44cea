"""Why an item was recommended: the events of the history and what is known of the item are players.

What the model says is f = ln p / (1 - p) of the item among all items. Without an event the history is shorter; without
a column the item has the typical value of all items there. Events are taken away while the item stays what it is, and
columns while the history does,

    v(S) = f(events in S, item) + f(history, columns in S) - f(history, item),

since an item of another kind would be one that the history speaks against.

Shape suffixes: N hidden rows, P players.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from weft.features.batching import collate
from weft.features.events import Events
from weft.inference.ranking import Ranker, events_from
from weft.results.explain.asked import OneAnswer
from weft.results.explain.game import TINY
from weft.results.explain.players import in_words, typical
from weft.results.explain.texts import Player


class Recommendation(OneAnswer):
    """The question why an item, by its ``code``, is recommended to a user.

    Args:
        first, stop: where the user's events begin in ``events``, and the place after the last that is read.
        target: what items are called.
    """

    task = "ranking"

    def __init__(self, ranker: Ranker, events: Events, first: int, stop: int, code: int, target: str):
        self.ranker, self.code, self.target = ranker, code, target
        self.of, self.answer = ranker.catalogue.names[code - 1].as_py(), ranker.catalogue.titles([code])[0]
        self.places = np.arange(max(first, stop - ranker.model.config.context), stop)
        self.events = events
        catalogue = ranker.catalogue
        self.cells = {c.name: catalogue.columns[c.name][code - 1].as_py() for c in catalogue.codecs}
        self.players = [Player(target, title) for title in catalogue.titles(events.items[self.places])]
        for codec in catalogue.codecs:
            shown = "(image)" if codec.type == "image" else in_words(codec, self.cells[codec.name])
            self.players.append(Player(codec.name, shown))

    def ask(self, present: np.ndarray) -> np.ndarray:
        """Log odds [N, 1] of the item without some events and columns."""
        events, columns = np.split(present, [len(self.places)], axis=1)
        known, back = np.unique(columns, axis=0, return_inverse=True)
        whole = np.ones((1, len(self.places)), bool)
        of_columns = np.concatenate([self._with(some, whole) for some in known])[back.ravel()]
        return (self._log_odds(events) + of_columns - self._log_odds(whole))[:, None]

    @torch.no_grad()
    def _with(self, columns: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Log odds [N] with some columns, of histories with some events."""
        ranker, code = self.ranker, self.code
        held = ranker.vectors[code].clone(), ranker.bias[code].clone()
        if not columns.all():
            vector, bias = ranker.model.items(torch.tensor([code], device=held[0].device), self._known(columns))
            ranker.vectors[code], ranker.bias[code] = vector[0], bias[0]
        try:
            return self._log_odds(there)
        finally:
            ranker.vectors[code], ranker.bias[code] = held

    def _log_odds(self, there: np.ndarray) -> np.ndarray:
        places = np.concatenate([self.places[kept] for kept in there])
        offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        beside = [None if v is None else v[places] for v in (self.events.times, self.events.ratings)]
        events = events_from(offsets, self.events.items[places], *beside)
        data, found = self.ranker.data(events), np.zeros(len(there))
        for some in data.groups(events.lengths()):
            scores = self.ranker.scores(data, events.offsets[some + 1], some).astype(np.float64)
            own = scores[:, self.code - 1].copy()
            scores[:, self.code - 1] = -np.inf
            # of a catalogue of one item there is no other
            found[some] = own - np.logaddexp(np.logaddexp.reduce(scores, axis=1), own + np.log(TINY))
        return found

    def _known(self, columns: np.ndarray) -> dict[str, dict[str, torch.Tensor]]:
        """What is known of the item, where some columns hold the typical value."""
        catalogue = self.ranker.catalogue
        codes = {}
        for codec, there in zip(catalogue.codecs, columns.tolist(), strict=True):
            cell = self.cells[codec.name] if there else typical(codec)
            codes[codec.name] = codec.encode(pa.array([cell], catalogue.columns[codec.name].type))
        batch = collate(codes, 1).to(self.ranker.vectors.device)
        return batch.columns
