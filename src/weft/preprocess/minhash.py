"""Candidates of like texts: MinHash signatures by one permutation (Li, Owen & Zhang 2012) and bands of them (Leskovec,
Rajaraman & Ullman, Mining of Massive Datasets, 3.4).

Two texts whose shingles have a Jaccard similarity s share a bin's minimum with probability s, all of a band with
s^ROWS, and one of the bands with 1 - (1 - s^ROWS)^BANDS: 0.988 at 0.8, 0.33 at 0.6, 0.002 at 0.3.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np

from weft.data.split import mixed

BANDS, ROWS = 24, 8
_BINS = BANDS * ROWS
_NONE = np.uint32(0xFFFFFFFF)
_ORDERS = np.random.default_rng(1).permuted(np.tile(np.arange(_BINS), (64, 1)), axis=1)
_KEYS = mixed(np.arange(1, _BINS + 1, dtype=np.uint64)) | np.uint64(1)


def bands(elements: np.ndarray, owner: np.ndarray, rows: int) -> np.ndarray:
    """A number for each band of each row [N, BANDS]; rows in which one is equal are candidates.

    ``elements`` of all rows, and the row that each is of; every row has one at least.
    """
    drawn = mixed(elements)
    place = owner * _BINS + ((drawn >> np.uint64(32)) * np.uint64(_BINS) >> np.uint64(32)).astype(np.int64)
    found = np.full(rows * _BINS, _NONE)
    np.minimum.at(found, place, drawn.astype(np.uint32))
    signatures = _filled(found.reshape(rows, _BINS)).astype(np.uint64)
    return mixed(mixed((signatures + np.uint64(1)) * _KEYS).reshape(rows, BANDS, ROWS).sum(axis=2))


def _filled(signatures: np.ndarray) -> np.ndarray:
    """Empty bins take what another one holds, looked for in the same order in every row (Shrivastava 2017); as those
    filled before give too, a few looks fill all."""
    for order in cycle(_ORDERS):
        empty = signatures == _NONE
        if not empty.any():
            return signatures
        signatures = np.where(empty, signatures[:, order], signatures)
    raise AssertionError
