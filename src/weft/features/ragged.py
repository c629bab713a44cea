"""Rows of different lengths in one array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Ragged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def take(array: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """The codes of some rows, in the order asked; reads nothing else of a mapped file."""
    return take_ragged(array, rows) if isinstance(array, Ragged) else np.asarray(array[rows])


def take_ragged(array: Ragged, rows: np.ndarray) -> Ragged:
    starts = array.offsets[rows]
    lengths = array.offsets[rows + 1] - starts
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    places = np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])
    return Ragged(np.asarray(array.values[places]), bounds)


def joined(pieces: list[Ragged]) -> Ragged:
    """The rows of all pieces, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    lengths = np.concatenate([np.zeros(1, np.int64), *(p.lengths() for p in pieces)])
    return Ragged(np.concatenate([p.values for p in pieces]), np.cumsum(lengths))
