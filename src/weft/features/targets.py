"""Targets: the answers that training compares with, as codes.

A class is its place among the classes of the training rows; a number is standardised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.errors import DataError
from weft.features.codecs import Moments, numbers


class ClassTarget:
    """The classes of the target, in alphabetical order (numeric order where all are numbers)."""

    type = "class"
    dtype = np.int64

    def __init__(self, name: str, classes: Sequence[str] = ()):
        self.name, self.classes = name, list(classes)
        self._counts: Counter[str] = Counter()
        self.counts: list[int] = []

    def observe(self, array: pa.Array) -> None:
        for entry in pc.value_counts(array.drop_null()).to_pylist():
            self._counts[entry["values"]] += entry["counts"]

    def finish(self) -> None:
        """Raises DataError where there are not at least two classes."""
        if len(self._counts) < 2:
            got = f"only {next(iter(self._counts))!r}" if self._counts else "no value at all"
            raise DataError(
                f"target '{self.name}': must hold at least two classes in the training rows. Got {got}. "
                f"Choose another target, or give rows of both."
            )
        self.classes = _in_order(self._counts)
        self.counts = [self._counts[c] for c in self.classes]

    def encode(self, array: pa.Array) -> np.ndarray:
        """Codes of the classes; -1 for one that training never saw."""
        found = pc.index_in(array, value_set=pa.array(self.classes, pa.string()))
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def state(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name, "classes": self.classes, "counts": self.counts}


class NumberTarget:
    """A number to predict, standardised for training."""

    type = "number"
    dtype = np.float32

    def __init__(self, name: str, mean: float = 0.0, deviation: float = 1.0):
        self.name, self.mean, self.deviation = name, mean, deviation
        self._moments = Moments()

    def observe(self, array: pa.Array) -> None:
        values = numbers(array)
        self._moments.add(values[~np.isnan(values)])

    def finish(self) -> None:
        self.mean, self.deviation = self._moments.mean, self._moments.deviation
        if not self.deviation:
            raise DataError(
                f"target '{self.name}': must vary in the training rows. Got {self.mean:g} in every row. "
                f"Choose another target."
            )

    def encode(self, array: pa.Array) -> np.ndarray:
        return ((numbers(array) - self.mean) / self.deviation).astype(np.float32)

    def state(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name, "mean": self.mean, "deviation": self.deviation}


Target = ClassTarget | NumberTarget


def target_from(state: Mapping[str, Any]) -> Target:
    if state["type"] == "class":
        target = ClassTarget(state["name"], state["classes"])
        target.counts = list(state["counts"])
        return target
    return NumberTarget(state["name"], state["mean"], state["deviation"])


def _in_order(names: Mapping[str, int]) -> list[str]:
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
