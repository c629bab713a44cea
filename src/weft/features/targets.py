"""Targets: the answers that training compares with, as codes.

A class is its place among the classes of the training rows; labels are a row of 0 and 1; a number is standardised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.config import TargetSettings
from weft.errors import DataError
from weft.features.codecs import Moments, numbers

UNSEEN = -1
"""The code of a class that the training rows do not hold."""
OUTSIDE = -2
"""The code of a row that is said to belong to none of the classes (out of scope)."""


class ClassTarget:
    """The classes of the target, in alphabetical order (numeric order where all are numbers).

    ``out_of_scope``: the word of the column for rows that belong to none of them; it is never a class.
    """

    type = "class"
    dtype = np.int64

    def __init__(self, name: str, classes: Sequence[str] = (), out_of_scope: str | None = None):
        self.name, self.classes, self.out_of_scope = name, list(classes), out_of_scope
        self._counts: Counter[str] = Counter()
        self.counts: list[int] = []

    def observe(self, array: pa.Array) -> None:
        for entry in pc.value_counts(array.drop_null()).to_pylist():
            if entry["values"] != self.out_of_scope:
                self._counts[entry["values"]] += entry["counts"]

    def merge(self, other: Any) -> None:
        """Be as one that saw the rows of both; none has finished."""
        self._counts.update(other._counts)

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
        """Codes of the classes; UNSEEN for one that training never saw, OUTSIDE for the out-of-scope word."""
        found = pc.index_in(array, value_set=pa.array(self.classes, pa.string()))
        codes = pc.fill_null(found, UNSEEN).to_numpy(zero_copy_only=False).astype(np.int64)
        if self.out_of_scope is not None:
            outside = pc.fill_null(pc.equal(array, self.out_of_scope), False)
            codes[outside.to_numpy(zero_copy_only=False)] = OUTSIDE
        return codes

    def state(self) -> dict[str, Any]:
        apart = {} if self.out_of_scope is None else {"out_of_scope": self.out_of_scope}
        return {"type": self.type, "name": self.name, "classes": self.classes, "counts": self.counts, **apart}


class LabelsTarget:
    """Any number of labels a row, of those that the training rows hold, in alphabetical order."""

    type = "labels"
    dtype = np.int8

    def __init__(self, name: str, classes: Sequence[str] = ()):
        self.name, self.classes = name, list(classes)
        self._counts: Counter[str] = Counter()
        self.counts: list[int] = []
        """Training rows that hold each label."""
        self.rows = 0

    def observe(self, array: pa.Array) -> None:
        """``array``: a list of texts a row, none twice."""
        self.rows += len(array) - array.null_count
        self._counts.update(pc.list_flatten(array).to_pylist())

    def merge(self, other: Any) -> None:
        """Be as one that saw the rows of both; none has finished."""
        self.rows += other.rows
        self._counts.update(other._counts)

    def finish(self) -> None:
        """Raises DataError where there is no label, or none that only some rows hold."""
        if all(count == self.rows for count in self._counts.values()):
            got = "the same labels in every row" if self._counts else "no label at all"
            raise DataError(
                f"target '{self.name}': must hold labels that some training rows have and others have not. Got {got}. "
                f"Choose another target, or give other rows."
            )
        self.classes = _in_order(self._counts)
        self.counts = [self._counts[c] for c in self.classes]

    def encode(self, array: pa.Array) -> np.ndarray:
        """[N, L] of 0 and 1; UNSEEN all along a row that has a label which training never saw."""
        place = {name: i for i, name in enumerate(self.classes)}
        codes = np.zeros((len(array), len(self.classes)), np.int8)
        for row, labels in enumerate(array.to_pylist()):
            found = [place.get(label, UNSEEN) for label in labels or ()]
            if UNSEEN in found:
                codes[row] = UNSEEN
            else:
                codes[row, found] = 1
        return codes

    def state(self) -> dict[str, Any]:
        return {
            "type": self.type, "name": self.name, "classes": self.classes, "counts": self.counts, "rows": self.rows,
        }  # fmt: skip


class NumberTarget:
    """A number to predict, standardised for training."""

    type = "number"
    dtype = np.float32
    classes: ClassVar[list[str]] = []
    """A number has none."""

    def __init__(self, name: str, mean: float = 0.0, deviation: float = 1.0):
        self.name, self.mean, self.deviation = name, mean, deviation
        self._moments = Moments()

    def observe(self, array: pa.Array) -> None:
        values = numbers(array)
        self._moments.add(values[~np.isnan(values)])

    def merge(self, other: Any) -> None:
        """Be as one that saw the rows of both; none has finished."""
        self._moments.merge(other._moments)

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


Target = ClassTarget | LabelsTarget | NumberTarget


def known(codes: np.ndarray) -> np.ndarray:
    """Of encoded rows those that can be judged: of a class, with labels, that training saw; a number."""
    if codes.dtype.kind == "f":
        return ~np.isnan(codes)
    return (codes if codes.ndim == 1 else codes[:, 0]) >= 0


def outside(codes: np.ndarray) -> np.ndarray:
    """Of encoded rows those that belong to none of the classes."""
    return codes == OUTSIDE if codes.ndim == 1 else np.zeros(len(codes), bool)


def most_rows(outputs: int | None) -> int:
    """Rows that figures are made of at most, drawn at random: a share of 100,000 is sure to 0.3 points. Of an answer
    with many numbers fewer, so that memory has a bound."""
    return max(10_000, min(100_000, 20_000_000 // (outputs or 1)))


def new_target(kind: str, settings: TargetSettings) -> Target:
    """A target that has seen no row yet; ``kind``: class, labels or number."""
    if kind == "class":
        return ClassTarget(settings.name, out_of_scope=settings.out_of_scope)
    return LabelsTarget(settings.name) if kind == "labels" else NumberTarget(settings.name)


def target_from(state: Mapping[str, Any]) -> Target:
    if state["type"] == "class":
        target = ClassTarget(state["name"], state["classes"], state.get("out_of_scope"))
        target.counts = list(state["counts"])
        return target
    if state["type"] == "labels":
        labels = LabelsTarget(state["name"], state["classes"])
        labels.counts, labels.rows = list(state["counts"]), state["rows"]
        return labels
    return NumberTarget(state["name"], state["mean"], state["deviation"])


def _in_order(names: Mapping[str, int]) -> list[str]:
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
