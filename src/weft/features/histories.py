"""Codec of a history: the last items a row's user had, with the time between them and ratings where they are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data_settings import FeatureSettings
from weft.features.categories import UNKNOWN, CategoryCodec
from weft.features.codec import Codec, Codes
from weft.features.ragged import Ragged, bounds, spans
from weft.features.streams import Moments, Sampler

MOST_EVENTS = 100
GAP_BINS = 34


class SequenceCodec(Codec):
    """Codes of the last events of a history, oldest first: ``items`` (0: never seen or too rare), ``gap`` (bins of the
    seconds since the event before, 0: not known), ``rating`` (standardised, NaN: none). A missing history is empty."""

    type = "sequence"
    fields: ClassVar = {"items": np.int32, "gap": np.int32, "rating": np.float32}

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        super().__init__(name, settings)
        self.items = CategoryCodec(name, settings)
        self.max_events = (settings.max_events if settings else None) or 0
        self.timed, self.rating = False, (0.0, 0.0)
        self._lengths, self._ratings = Sampler(), Moments()

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        flat = pc.list_flatten(array)
        self.items.observe(rows, pc.struct_field(flat, "item"))
        self._lengths.add(rows, _lengths(array))
        self.timed |= pc.struct_field(flat, "time").null_count < len(flat)
        ratings = pc.struct_field(flat, "rating").drop_null()
        self._ratings.add(ratings.to_numpy(zero_copy_only=False).astype(np.float64))

    def join(self, other: SequenceCodec) -> None:
        self.items.join(other.items)
        self._lengths.join(other._lengths)
        self._ratings.merge(other._ratings)
        self.timed |= other.timed

    def finish(self) -> None:
        self.items.finish()
        sample = self._lengths.values()
        if not self.max_events:
            self.max_events = int(np.clip(np.quantile(sample, 0.99), 1, MOST_EVENTS)) if len(sample) else 1
        self._rate()
        self._lengths = Sampler()

    def merge(self, other: SequenceCodec) -> None:
        self.items.merge(other.items)
        self.max_events, self.timed = max(self.max_events, other.max_events), self.timed or other.timed
        self._ratings.merge(other._ratings)
        self._rate()

    def _rate(self) -> None:
        if self._ratings.count:
            self.rating = (self._ratings.mean, self._ratings.deviation or 1.0)

    def encode(self, array: pa.Array) -> Codes:
        lengths = _lengths(array)
        kept = np.minimum(lengths, self.max_events)
        offsets = bounds(kept)
        flat = pc.list_flatten(array).take(pa.array(spans(np.cumsum(lengths) - kept, kept)))
        items = self.items.encode(pc.struct_field(flat, "item"))["code"]
        time = pc.struct_field(flat, "time").to_numpy(zero_copy_only=False).astype(np.float64)
        first = np.zeros(len(time), bool)
        first[offsets[:-1][kept > 0]] = True
        gap = gap_bins(np.where(first, np.nan, np.diff(time, prepend=np.nan)))
        rating = pc.struct_field(flat, "rating").to_numpy(zero_copy_only=False).astype(np.float64)
        standard = (rating - self.rating[0]) / (self.rating[1] or 1.0)
        return {
            "items": Ragged((items - UNKNOWN).astype(np.int32), offsets),
            "gap": Ragged(gap.astype(np.int32), offsets),
            "rating": Ragged(standard.astype(np.float32), offsets),
        }

    def decode(self, codes: Codes) -> list:
        """The last ids of each row, None for one that was not kept and for no ids; without times and ratings."""
        return [self.items.decode({"code": row + UNKNOWN}) or None for row in codes["items"]]

    def state(self) -> dict[str, Any]:
        return {
            "items": self.items.state(), "max_events": self.max_events, "timed": self.timed,
            "rating": list(self.rating),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self.items.restore(state["items"])
        self.max_events, self.timed = int(state["max_events"]), bool(state["timed"])
        self.rating = (float(state["rating"][0]), float(state["rating"][1]))


def _lengths(array: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def gap_bins(seconds: np.ndarray) -> np.ndarray:
    """Seconds between two events as 1 + log2(1 + seconds), whole; 0 where it is not known."""
    known = np.isfinite(seconds)
    logs = np.log2(1 + np.maximum(0, np.where(known, seconds, 0)))
    return np.where(known, np.minimum(1 + logs.astype(np.int64), GAP_BINS - 1), 0)
