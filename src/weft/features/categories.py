"""Codec of categories, by their frequency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data_settings import FeatureSettings
from weft.features.codec import Codec, Codes

MISSING, UNKNOWN, FIRST = 0, 1, 2
MOST_CATEGORIES = 10_000


class CategoryCodec(Codec):
    """Code of a category; one never seen, or too rare to be kept, is UNKNOWN, which training teaches."""

    type = "category"
    fields: ClassVar = {"code": np.int32}

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        super().__init__(name, settings)
        self.categories: list[str] = []
        self.counts: dict[str, int] = {}
        """Of the rows that hold each; known while a run is made."""
        self._counts: Counter[str] = Counter()
        self._places: pa.Array | None = None

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        self._add({entry["values"]: entry["counts"] for entry in pc.value_counts(array.drop_null()).to_pylist()})

    def join(self, other: CategoryCodec) -> None:
        self._add(other._counts)

    def _add(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)
        if len(self._counts) > 100 * MOST_CATEGORIES:  # many and rare: the rarest cannot make the list
            self._counts = Counter(dict(self._counts.most_common(50 * MOST_CATEGORIES)))

    def finish(self) -> None:
        most = (self.settings.max_categories if self.settings else None) or MOST_CATEGORIES
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        self.counts = dict(ranked[:most])
        self.categories = list(self.counts)
        self._counts = Counter()
        self._places = None

    def merge(self, other: CategoryCodec) -> None:
        self._counts = Counter(self.counts) + Counter(other.counts)
        self.finish()

    def encode(self, array: pa.Array) -> Codes:
        if self._places is None:
            self._places = pa.array(self.categories, pa.string())
        found = pc.index_in(array, value_set=self._places).to_numpy(zero_copy_only=False)
        codes = np.where(np.isnan(found), UNKNOWN, np.nan_to_num(found) + FIRST)
        return {"code": np.where(array.is_null().to_numpy(zero_copy_only=False), MISSING, codes).astype(np.int32)}

    def decode(self, codes: Codes) -> list:
        return [self.categories[c - FIRST] if c >= FIRST else None for c in codes["code"]]

    def state(self) -> dict[str, Any]:
        return {"categories": self.categories}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.categories, self._places = list(state["categories"]), None
