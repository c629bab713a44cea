"""Which row is learnt from (train), watched (valid) and judged on (test).

The share a row falls to depends on the seed, the row's number or its group, and nothing else: the same
rows on every run, whatever the batch size. One byte a row is kept.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from weft.data_settings import SplitSettings
from weft.errors import DataError, listing

TRAIN, VALID, TEST = 0, 1, 2
NAMES = ("train", "valid", "test")
_WORDS = {"train": TRAIN, "training": TRAIN, "valid": VALID, "validation": VALID, "val": VALID, "dev": VALID,
          "eval": VALID, "test": TEST, "testing": TEST, "holdout": TEST}  # fmt: skip


def uniform(seed: int, keys: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each integer key."""
    with np.errstate(over="ignore"):
        z = mixed(keys.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


def mixed(z: np.ndarray) -> np.ndarray:
    """64 bits that look drawn at random, for 64 bits: the SplitMix64 mixer (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))


@dataclass
class _Piece:
    """What is kept of some rows: the first's number, a bit for each number from it on, part, class and time."""

    first: int
    there: np.ndarray
    parts: np.ndarray
    classes: np.ndarray | None
    times: np.ndarray | None

    def rows(self) -> np.ndarray:
        return self.first + np.flatnonzero(np.unpackbits(self.there))


class Splitter:
    """Collects what the split needs while rows stream by, two bytes a row or so, then assigns every row.

    ``observe`` takes row numbers (ascending) with the target's class and the split column; ``assign`` returns, for
    the observed rows in order, TRAIN, VALID or TEST (uint8).
    """

    def __init__(self, settings: SplitSettings, seed: int, stratify: bool):
        self.settings, self.seed = settings, seed
        self.stratify = stratify and settings.stratify and not (settings.by or settings.time)
        self._pieces: list[_Piece] = []
        self._codes: dict[str, int] = {}

    def observe(self, rows: np.ndarray, target: pa.Array | None, column: pa.Array | None) -> None:
        if not len(rows):
            return
        s = self.settings
        parts, classes, times = np.zeros(len(rows), np.uint8), None, None
        if s.column is not None:
            assert column is not None
            parts = named_parts(s.column, rows, column)
        elif s.by is not None:
            assert column is not None
            words, places = _distinct(column)
            draw = uniform(self.seed, np.array([_stable(v) for v in words], np.uint64))
            found = np.where(draw < s.test, TEST, np.where(draw < s.test + s.valid, VALID, TRAIN))
            parts = found.astype(np.uint8)[places]
        elif s.time is not None:
            assert column is not None
            times = column.to_numpy(zero_copy_only=False).astype(np.float64)
            times[np.isnan(times)] = -np.inf
        if self.stratify and target is not None:
            words, places = _distinct(target)
            codes = np.array([self._codes.setdefault(name, len(self._codes)) for name in words], np.int64)
            classes = codes.astype(np.min_scalar_type(len(self._codes)))[places]
        there = np.zeros(int(rows[-1] - rows[0]) + 1, bool)
        there[rows - rows[0]] = True
        self._pieces.append(_Piece(int(rows[0]), np.packbits(there), parts, classes, times))

    @property
    def dealt(self) -> bool:
        """Whether train and valid were told apart by chance alone, so that they may be dealt anew into folds."""
        s = self.settings
        return not (s.by or s.time) and not (s.column and any((p.parts == VALID).any() for p in self._pieces))

    def given(self) -> np.ndarray:
        """Of the observed rows in order, the parts that are known before any is drawn: TRAIN where that is so."""
        return np.concatenate([np.zeros(0, np.uint8), *(p.parts for p in self._pieces)])

    def leave_out(self, mask: np.ndarray, parts_by_row: np.ndarray, part: int) -> None:
        """Of the observed rows in order, drop some; ``parts_by_row`` has ``part`` at their numbers."""
        start = 0
        for piece in self._pieces:
            gone = mask[start : start + len(piece.parts)]
            start += len(gone)
            rows = piece.rows()
            parts_by_row[rows[gone]] = part
            there = np.zeros(int(rows[-1]) - piece.first + 1, bool)
            there[rows[~gone] - piece.first] = True
            piece.there, piece.parts = np.packbits(there), piece.parts[~gone]
            piece.classes, piece.times = (None if a is None else a[~gone] for a in (piece.classes, piece.times))

    def assign(self, parts_by_row: np.ndarray | None = None) -> np.ndarray:
        """``parts_by_row``, where it is given, is filled at the numbers of the observed rows.

        Raises DataError where a part comes out empty.
        """
        s, dealt = self.settings, self.dealt
        if s.time is not None:
            self._by_time()
        elif s.by is None and s.column is None:
            self._draw(s.test, TEST)
            self._draw(s.valid / (1 - s.test), VALID)
        elif dealt:
            self._draw(s.valid / max(1e-9, 1 - s.test), VALID)
        self._check(sum((np.bincount(p.parts, minlength=3) for p in self._pieces), np.zeros(3, np.int64)))
        if parts_by_row is not None:
            for piece in self._pieces:
                parts_by_row[piece.rows()] = piece.parts
        return np.concatenate([p.parts for p in self._pieces])

    def _by_time(self) -> None:
        """The latest rows to TEST, those before to VALID; of one time the last in the table are the latest."""
        s = self.settings
        times = np.concatenate([p.times for p in self._pieces if p.times is not None])
        test, valid = round(len(times) * s.test), round(len(times) * s.valid)
        parts = _latest(times, test + valid).astype(np.uint8) * np.uint8(VALID)
        parts[_latest(times, test)] = TEST
        start = 0
        for piece in self._pieces:
            piece.parts = parts[start : start + len(piece.parts)]
            start += len(piece.parts)

    def _draw(self, share: float, part: int) -> None:
        """The ``share`` of the TRAIN rows with the lowest draw to ``part``: exact to one row in every class and in all.

        Draws are made anew at each look and never held: the highest one chosen must lie near ``share``, and only
        those near it are sorted.
        """
        strata = max(1, len(self._codes))
        sizes = np.zeros(strata, np.int64)
        for piece in self._pieces:
            sizes += np.bincount(_strata(piece)[piece.parts == TRAIN], minlength=strata)
        if not sizes.any():
            return
        ends = np.floor(np.cumsum(sizes) * share + 0.5 - 1e-9).astype(np.int64)  # rounding carries over
        wanted = np.diff(ends, prepend=0)
        middle = wanted / np.maximum(sizes, 1)
        margin = 6 * np.sqrt(middle * (1 - middle) / np.maximum(sizes, 1)) + 20 / np.maximum(sizes, 1)
        while True:
            low, high = middle - margin, middle + margin
            below, near = np.zeros(strata, np.int64), []
            for number, piece in enumerate(self._pieces):
                places = np.flatnonzero(piece.parts == TRAIN)
                own, draw = _strata(piece)[places], uniform(self.seed, piece.rows()[places])
                below += np.bincount(own[draw < low[own]], minlength=strata)
                some = np.flatnonzero((draw >= low[own]) & (draw <= high[own]))
                near.append((own[some], draw[some], np.full(len(some), number), places[some]))
            stratum, draws, numbers, at = (np.concatenate(column) for column in zip(*near, strict=True))
            held = np.bincount(stratum, minlength=strata)
            missed = (wanted < below) | (wanted > below + held)
            if not missed.any():
                break
            margin[missed] = margin[missed] * 8 + 1e-6
        order = np.lexsort((draws, stratum))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(held) - held, held)
        chosen = order[rank < (wanted - below)[stratum[order]]]
        for piece in self._pieces:
            places = np.flatnonzero(piece.parts == TRAIN)
            own, draw = _strata(piece)[places], uniform(self.seed, piece.rows()[places])
            piece.parts[places[draw < low[own]]] = part
        for number, place in zip(numbers[chosen].tolist(), at[chosen].tolist(), strict=True):
            self._pieces[number].parts[place] = part

    def _check(self, counts: np.ndarray) -> None:
        s = self.settings
        needed = [TRAIN, VALID, *([TEST] if s.test > 0 or s.column else [])]
        empty = [NAMES[p] for p in needed if counts[p] == 0]
        if empty:
            what = f"by column '{s.column or s.by or s.time}'" if (s.column or s.by or s.time) else "at random"
            raise DataError(
                f"data.split: every part must hold rows. Got none in {listing(empty)} when {counts.sum():,} rows "
                f"were split {what}. Give more rows, or change the shares or the column."
            )


def _strata(piece: _Piece) -> np.ndarray:
    return np.zeros(len(piece.parts), np.uint8) if piece.classes is None else piece.classes


def _latest(times: np.ndarray, count: int) -> np.ndarray:
    """A mask of the ``count`` highest; of equal ones the last."""
    if not count:
        return np.zeros(len(times), bool)
    place = len(times) - count
    edge = np.partition(times, place)[place]
    found = times > edge
    found[np.flatnonzero(times == edge)[-(count - int(found.sum())) :]] = True
    return found


def _distinct(column: pa.Array) -> tuple[list, np.ndarray]:
    """The different values, None among them, and which of them each cell holds."""
    found = column.dictionary_encode(null_encoding="encode")
    return found.dictionary.to_pylist(), found.indices.to_numpy()


def named_parts(name: str, rows: np.ndarray, column: pa.Array) -> np.ndarray:
    """The parts that a column says. Raises DataError where it says none."""
    words, places = _distinct(column)
    found = [_WORDS.get(str(value).strip().lower()) for value in words]
    for code, part in enumerate(found):
        if part is None:
            raise DataError(
                f"data.split.column: '{name}' must say train, valid or test. Got {words[code]!r} in row "
                f"{int(rows[np.flatnonzero(places == code)[0]])}. Correct it, or split another way."
            )
    return np.array(found, np.uint8)[places]


def _stable(value: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")
