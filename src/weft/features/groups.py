"""To which group each row belongs: by the values of a category, by ranges of a number, or by several columns at once.

Read batch by batch; a row costs eight bytes a column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from weft.data.plan import group_types
from weft.data.table import RawBatch, Table
from weft.errors import DataError
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.letters import Letters

MISSING, OTHERS = "(missing)", "(others)"
MOST_GROUPS = 30
MOST_VALUES = 10_000
FEW = 10
"""Values of a number up to which each is a group of its own."""


@dataclass
class Members:
    """One way to part the rows. ``place`` [N] counts ``names``, of which the largest group is the first; ``binned``:
    the groups are ranges of a number."""

    column: str
    names: list[str]
    place: np.ndarray
    binned: bool = False

    def rows(self, group: int) -> np.ndarray:
        return np.flatnonzero(self.place == group)


class GroupColumns:
    """Reads the columns ``by`` of a table as codes [N, K]: a number as it is, a category as the place of its value;
    NaN where it is missing.

    Raises:
        DataError: the table lacks one, or it holds neither categories nor numbers.
    """

    def __init__(self, by: Sequence[str], types: Mapping[str, str], letters: Letters | None):
        self.by, self.types = list(dict.fromkeys(by)), types
        self._cleaner = Cleaner({name: ColumnPlan(types[name]) for name in self.by}, letters)
        self._values: dict[str, dict[str, int]] = {name: {} for name in self.by}

    @classmethod
    def of(cls, table: Table, by: Sequence[str], letters: Letters | None = None) -> GroupColumns:
        return cls(by, group_types(table, by), letters)

    def read(self, raw: RawBatch, rows: np.ndarray) -> np.ndarray:
        """Codes of the ``rows`` of a batch, by their numbers [N, K]. A number that cannot be read counts as missing."""
        found = np.full((len(rows), len(self.by)), np.nan)
        clean = self._cleaner(RawBatch(raw.rows, raw.batch, folder=raw.folder))
        _, mine, theirs = np.intersect1d(rows, clean.rows, return_indices=True)
        codes = self.codes({name: clean.columns[name] for name in self.by})
        found[mine] = codes[theirs]
        return found

    def codes(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Codes of cleaned cells [N, K]."""
        return np.stack([self._codes(name, columns[name]) for name in self.by], axis=1)

    def _codes(self, name: str, cells: pa.Array) -> np.ndarray:
        if self.types[name] == "number":
            return cells.to_numpy(zero_copy_only=False).astype(np.float64)
        words, known = cells.dictionary_encode(), self._values[name]
        places = [known.setdefault(word, len(known)) for word in words.dictionary.to_pylist()]
        if len(known) > MOST_VALUES:
            raise DataError(
                f"column '{name}': must say to which group a row belongs. Got more than {MOST_VALUES:,} different "
                f"values. Name another column."
            )
        indices = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(np.array(places, np.float64), np.nan)[indices]

    def members(self, codes: np.ndarray) -> list[Members]:
        """The groups by each column, and by all of them at once where there are several.

        Raises:
            DataError: a column says the same of every row.
        """
        found = [self._members(k, codes[:, k]) for k in range(len(self.by))]
        if len(found) > 1:
            together = np.stack([m.place for m in found], axis=1)
            cells, place = np.unique(together, axis=0, return_inverse=True)
            names = [" × ".join(m.names[i] for m, i in zip(found, cell, strict=True)) for cell in cells.tolist()]
            found.append(_largest_first(Members(" × ".join(self.by), names, place.reshape(-1))))
        return found

    def _members(self, column: int, codes: np.ndarray) -> Members:
        name = self.by[column]
        known = np.unique(codes[~np.isnan(codes)])
        edges: list[tuple[float, float]] = [(v, v) for v in known.tolist()]
        number = self.types[name] == "number"
        binned = number and len(known) > FEW
        if binned:
            edges = list(ranges(codes[~np.isnan(codes)]))
        words = list(self._values[name])
        names = [_range(low, high) if number else words[int(low)] for low, high in edges]
        place = np.full(len(codes), len(edges))
        for group, (low, high) in enumerate(edges):
            place[(codes >= low) & (codes <= high)] = group
        if (place == len(edges)).any():
            names.append(MISSING)
        if len(names) < 2:
            raise DataError(
                f"column '{name}': must hold at least two groups in the rows that are judged. Got "
                f"{f'only {names[0]!r}' if names else 'none'}. Name another column."
            )
        found = Members(name, names, place, binned)
        return found if binned else _largest_first(found)


def _largest_first(members: Members) -> Members:
    """The groups by their size; beyond the largest ``MOST_GROUPS`` the others are one."""
    counts = Counter(members.place.tolist())
    order = sorted(range(len(members.names)), key=lambda g: (-counts[g], members.names[g]))
    new = np.empty(len(order), np.int64)
    new[order] = np.arange(len(order))
    names = [members.names[g] for g in order]
    if len(names) > MOST_GROUPS:
        new, names = np.minimum(new, MOST_GROUPS), [*names[:MOST_GROUPS], OTHERS]
    return Members(members.column, names, new[members.place], members.binned)


def _range(low: float, high: float) -> str:
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def ranges(values: np.ndarray) -> Sequence[tuple[float, float]]:
    """The least and the largest value of each quarter; a value that is in two quarters stays in the lower."""
    if not len(values):
        return []
    edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75), method="lower"))
    place = np.searchsorted(edges, values)
    parts = [values[place == k] for k in range(len(edges) + 1)]
    return [(float(part.min()), float(part.max())) for part in parts if len(part)]
