"""Rows of different lengths in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.preprocess.fingerprints import within


@dataclass
class Ragged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: Any = np.int64) -> Ragged:
        """Lists as one array."""
        offsets = bounds([len(row) for row in rows])
        return cls(np.fromiter((value for row in rows for value in row), dtype, int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def first(self, lengths: np.ndarray) -> Ragged:
        """The first ``lengths`` values of each row."""
        return Ragged(self.values[spans(self.offsets[:-1], lengths)], bounds(lengths))

    def take(self, rows: np.ndarray) -> Ragged:
        """Some rows, in the order asked; reads nothing else of a mapped file."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        return Ragged(np.asarray(self.values[spans(starts, lengths)]), bounds(lengths))


def bounds(lengths: np.ndarray | Sequence[int]) -> np.ndarray:
    """Where each of some rows begins that lie one after the other, and where the last ends [N + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places from each start on, as many as its length says."""
    return np.repeat(starts, lengths) + within(lengths)


def take(array: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """The codes of some rows, in the order asked; reads nothing else of a mapped file."""
    return array.take(rows) if isinstance(array, Ragged) else np.asarray(array[rows])


def joined(pieces: Sequence[Ragged]) -> Ragged:
    """The rows of all pieces, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    lengths = np.concatenate([np.zeros(0, np.int64), *(p.lengths() for p in pieces)])
    return Ragged(np.concatenate([p.values for p in pieces]), bounds(lengths))
