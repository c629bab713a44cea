"""Which row is learnt from (train), watched (valid) and judged on (test).

The share a row falls to depends on the seed, the row's number or its group, and nothing else: the same
rows on every run, whatever the batch size. One byte a row is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from weft.config import SplitSettings
from weft.errors import DataError, listing

TRAIN, VALID, TEST = 0, 1, 2
NAMES = ("train", "valid", "test")
_WORDS = {"train": TRAIN, "training": TRAIN, "valid": VALID, "validation": VALID, "val": VALID, "dev": VALID,
          "eval": VALID, "test": TEST, "testing": TEST, "holdout": TEST}  # fmt: skip


def uniform(seed: int, keys: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each integer key, by the SplitMix64 mixer (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


class Splitter:
    """Collects what the split needs while rows stream by, then assigns every row.

    ``observe`` takes row numbers with the target's class and the split column; ``assign`` returns, for
    the observed rows in order, TRAIN, VALID or TEST (uint8).
    """

    def __init__(self, settings: SplitSettings, seed: int, stratify: bool):
        self.settings, self.seed = settings, seed
        self.stratify = stratify and settings.stratify
        self._rows: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []
        self._codes: dict[str, int] = {}

    def observe(self, rows: np.ndarray, target: pa.Array | None, column: pa.Array | None) -> None:
        s = self.settings
        self._rows.append(rows)
        if s.column is not None:
            assert column is not None
            self._keys.append(_named_parts(s.column, rows, column))
        elif s.by is not None:
            assert column is not None
            self._keys.append(np.array([_stable(v) for v in column.to_pylist()], np.uint64))
        elif s.time is not None:
            assert column is not None
            values = column.to_numpy(zero_copy_only=False).astype(np.float64)
            self._keys.append(np.where(np.isnan(values), -np.inf, values))
        if self.stratify and target is not None:
            names = target.to_pylist()
            codes = [self._codes.setdefault(name, len(self._codes)) for name in names]
            self._classes.append(np.array(codes, np.int32))

    @property
    def dealt(self) -> bool:
        """Whether train and valid were told apart by chance alone, so that they may be dealt anew into folds."""
        s = self.settings
        return not (s.by or s.time) and not any((keys == VALID).any() for keys in self._keys)

    def assign(self) -> np.ndarray:
        """Raises DataError where a part comes out empty."""
        s = self.settings
        rows = _joined(self._rows, np.int64)
        if s.column is not None:
            parts = _joined(self._keys, np.uint8)
            if not (parts == VALID).any():
                train = np.flatnonzero(parts == TRAIN)
                strata = _joined(self._classes, np.int32)[train] if self._classes else None
                chosen = self._lowest(rows[train], s.valid / max(1e-9, 1 - s.test), strata)
                parts[train[chosen]] = VALID
        elif s.by is not None:
            draw = uniform(self.seed, _joined(self._keys, np.uint64))
            parts = np.where(draw < s.test, TEST, np.where(draw < s.test + s.valid, VALID, TRAIN)).astype(np.uint8)
        elif s.time is not None:
            order = np.argsort(_joined(self._keys, np.float64), kind="stable")
            parts = np.zeros(len(rows), np.uint8)
            test, valid = round(len(rows) * s.test), round(len(rows) * s.valid)
            parts[order[len(rows) - test :]] = TEST
            parts[order[len(rows) - test - valid : len(rows) - test]] = VALID
        else:
            strata = _joined(self._classes, np.int32) if self._classes else None
            parts = np.zeros(len(rows), np.uint8)
            parts[self._lowest(rows, s.test, strata)] = TEST
            rest = np.flatnonzero(parts == TRAIN)
            inner = strata[rest] if strata is not None else None
            parts[rest[self._lowest(rows[rest], s.valid / (1 - s.test), inner)]] = VALID
        self._check(parts)
        return parts

    def _lowest(self, rows: np.ndarray, share: float, strata: np.ndarray | None) -> np.ndarray:
        """Places of the ``share`` of rows with the lowest draw: exact to one row in every stratum and in all."""
        draw = uniform(self.seed, rows)
        if strata is None:
            strata = np.zeros(len(rows), np.int32)
        order = np.lexsort((draw, strata))
        sizes = np.bincount(strata, minlength=1)
        starts = np.cumsum(sizes) - sizes
        rank = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows)) - np.repeat(starts, sizes)
        ends = np.floor(np.cumsum(sizes) * share + 0.5 - 1e-9).astype(np.int64)  # rounding carries over
        wanted = np.diff(ends, prepend=0)
        return np.flatnonzero(rank < wanted[strata])

    def _check(self, parts: np.ndarray) -> None:
        counts = np.bincount(parts, minlength=3)
        s = self.settings
        needed = [TRAIN, VALID, *([TEST] if s.test > 0 or s.column else [])]
        empty = [NAMES[p] for p in needed if counts[p] == 0]
        if empty:
            what = f"by column '{s.column or s.by or s.time}'" if (s.column or s.by or s.time) else "at random"
            raise DataError(
                f"data.split: every part must hold rows. Got none in {listing(empty)} when {len(parts):,} rows "
                f"were split {what}. Give more rows, or change the shares or the column."
            )


def _named_parts(name: str, rows: np.ndarray, column: pa.Array) -> np.ndarray:
    parts = np.empty(len(rows), np.uint8)
    for place, value in enumerate(column.to_pylist()):
        part = _WORDS.get(str(value).strip().lower())
        if part is None:
            raise DataError(
                f"data.split.column: '{name}' must say train, valid or test. Got {value!r} in row "
                f"{int(rows[place])}. Correct it, or split another way."
            )
        parts[place] = part
    return parts


def _stable(value: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")


def _joined(pieces: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(pieces).astype(dtype, copy=False) if pieces else np.zeros(0, dtype)
