"""Copies among the rows of a table: exact ones by fingerprints, near ones by MinHash, each with the row it is like.

What a row is told by is everything that is read of it. A label (a class, a number, ...) must be equal: rows that are
alike in all else and differ there are counted, and stay. Of near copies each column of texts must have a Jaccard
similarity of at least ``ALIKE`` over its shingles, and the row as a whole, where a cell of another column that differs
counts as ``CHANGED`` shingles. The bands of :mod:`weft.preprocess.minhash` only propose: every pair is compared.

The first row of a group is kept, of one that is learnt from before one that is judged on. A row is left out only where
a row that is kept is like it, so that of a chain of small changes not only the first stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft import engine
from weft.data.split import mixed
from weft.preprocess import minhash
from weft.preprocess.buckets import Buckets
from weft.preprocess.clean import ColumnPlan
from weft.preprocess.fingerprints import MOST_BYTES, fingerprints, row_fingerprints, shingles, within

ALIKE = 0.8
CHANGED = 10
TEXTS = ("text", "document", "verbatim", "dialogue")
EXAMPLES = 10
_BYTES = 1 << 22
"""Of texts whose shingles are held at once, or one text."""
_LOOP = 1 << 18
Take = Callable[[np.ndarray, list[str]], dict[str, pa.Array]]
_BETWEEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Copies:
    """By place among the cleaned rows: of which row each is a copy (-1: of none), and how like they are (1: equal)."""

    of: np.ndarray
    alike: np.ndarray
    differing: np.ndarray
    """Whether another row is like it and has another label."""
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Some such rows."""

    def differ(self, first: np.ndarray, second: np.ndarray) -> None:
        self.differing[first] = self.differing[second] = True
        seen = zip(first[:EXAMPLES].tolist(), second[:EXAMPLES].tolist(), strict=True)
        self.pairs = sorted({*self.pairs, *((min(pair), max(pair)) for pair in seen)})[:EXAMPLES]


Said = tuple[str, dict[str, Any]]
_LEFT_OUT = (
    "Copies left out: {rows:,}, of which {near:,} are only nearly equal to the row that stays. duplicates.parquet "
    "names it."
)
_COUNTED = (
    "Rows equal to an earlier one in all that is read: {rows:,}. They are used, as they may be two that look alike."
)
_CROSSED = {
    True: "Of the copies left out {count:,} were {part} rows whose original is learnt from: they would have made the "
    "figures too good.",
    False: "Of the {part} rows {count:,} are copies of rows that are learnt from: they may make the figures too good. "
    "preprocess.duplicates: exact leaves them out.",
}  # fmt: skip
_DIFFERING = (
    "Rows that are like another one and have another answer: {differing:,}, such as rows {one:,} and {other:,} "
    "(counted from 0). At most one of the two is right, or what tells them apart is not in the table."
)


def first_copies(finder: Finder, columns: Mapping[str, pa.Array], near: bool) -> int:
    """How many of some rows that are in memory are copies of others."""
    finder.add(finder.marker(columns))
    rows = len(next(iter(columns.values())))
    parts = np.zeros(rows, np.uint8)
    found = finder.exact(parts)
    if near:
        finder.near(found, parts, [columns], lambda p, names: {n: columns[n].take(pa.array(p)) for n in names}, rows)
    return int(np.count_nonzero(found.of >= 0))


def copies_said(facts: Mapping[str, Any] | None) -> list[Said]:
    """What the figures of copies (as in ``report.json``) mean: phrases and what fills them."""
    said: list[Said] = []
    if not facts:
        return said
    if facts["rows"]:
        said.append((_LEFT_OUT if facts["left_out"] else _COUNTED, {n: facts[n] for n in ("rows", "near")}))
    for part in ("test", "valid"):
        if count := facts[f"in_{part}"]:
            said.append((_CROSSED[facts["left_out"] > 0], {"count": count, "part": part}))
    if facts["differing"]:
        one, other = facts["differing_examples"][0]
        said.append((_DIFFERING, {"differing": facts["differing"], "one": one, "other": other}))
    return said


class Marker:
    """What tells rows by: of each the fingerprints of what is read of it and of its label, and the bands of its texts.
    ``label``: the column that must be equal."""

    def __init__(self, plans: Mapping[str, ColumnPlan], label: str):
        self.texts = [n for n, plan in plans.items() if plan.type in TEXTS]
        self.label = label if label not in self.texts else None
        self.others = [n for n in plans if n not in (*self.texts, self.label)]

    def __call__(self, columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
        """Fields ``key``, ``more`` and ``label`` of each row of a batch."""
        rows = len(next(iter(columns.values())))
        read = row_fingerprints({n: columns[n] for n in (*self.texts, *self.others)}, rows)
        return {"key": read[:, 0], "more": read[:, 1], "label": self.labels(columns)}

    def labels(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        if self.label is not None:
            return fingerprints(columns[self.label])[:, 0]
        return np.zeros(len(columns[self.texts[0]]), np.uint64)

    def bands(self, asked: tuple[Mapping[str, pa.Array], np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Fields ``key``, ``label`` and ``place``, a record for each band of each row of a batch that is asked for."""
        columns, wanted = asked
        texts, found = [columns[name] for name in self.texts], []
        labels = self.labels(columns).astype(np.uint16)
        for some in _slices(texts):
            use = np.flatnonzero(wanted[some])
            elements, owners = [], []
            for number, text in enumerate(texts):
                values, counts = shingles(text[some].take(pa.array(use)))
                elements.append(values | np.uint64(number << 40))
                owners.append(np.repeat(np.arange(len(use)), counts))
            owner = np.concatenate(owners)
            spoken = np.flatnonzero(np.bincount(owner, minlength=len(use)))  # no text, no likeness
            number_of = np.zeros(len(use), np.int64)
            number_of[spoken] = np.arange(len(spoken))
            bands = minhash.bands(np.concatenate(elements), number_of[owner], len(spoken))
            each: dict[str, np.ndarray] = {
                "label": labels[some][use[spoken]],
                "place": np.arange(len(wanted))[some][use[spoken]],
            }
            found.append({"key": bands.ravel(), **{n: np.repeat(v, minhash.BANDS) for n, v in each.items()}})
        return found


class Finder:
    """Is given the marks of every cleaned batch (``add``), then finds the copies."""

    def __init__(self, plans: Mapping[str, ColumnPlan], label: str, folder: Path):
        self.marker, self.folder = Marker(plans, label), folder
        kind = np.dtype([("key", "<u8"), ("more", "<u8"), ("label", "<u8"), ("place", "<i8")])
        self._rows, self._count = Buckets(folder / "rows", kind), 0

    def add(self, marks: dict[str, np.ndarray]) -> None:
        """``marks``: what the marker makes of the next rows."""
        rows = len(marks["key"])
        self._rows.add(**marks, place=np.arange(self._count, self._count + rows))
        self._count += rows

    def exact(self, parts: np.ndarray) -> Copies:
        """The rows that are equal to another. ``parts``: of each row, as far as they are known, [N]."""
        kind = np.int32 if self._count < 1 << 31 else np.int64
        ones = np.broadcast_to(np.float32(1), self._count)
        found = Copies(np.full(self._count, -1, kind), ones, np.zeros(self._count, bool))
        for records in self._rows:
            records = _repeated(records)
            order = np.lexsort(
                (records["place"], parts[records["place"]], records["label"], records["more"], records["key"])
            )
            records = records[order]
            one = _as_before(records, "key", "more")
            equal = one & _as_before(records, "label")
            place, first = records["place"], _run_start(equal)
            found.of[place[equal]] = place[first[equal]]
            other = one & ~equal  # as the run before, with another label
            found.differ(place[_run_start(one)[other]], place[other])
        # of rows that are equal one is in a pair: whether it is alike to one of another label holds for all
        copies = np.flatnonzero(found.of >= 0)
        found.differing[copies] = found.differing[found.of[copies]]
        return found

    def near(
        self, found: Copies, parts: np.ndarray, batches: Iterable[Mapping[str, pa.Array]], take: Take, at_once: int
    ) -> None:
        """Add to the exact copies those that are nearly so.

        Args:
            batches: the columns of all rows, in their order.
            take: gives columns of some rows, by their places.
            at_once: pairs of rows that may be held at once.
        """
        proposed = Buckets(self.folder / "pairs", np.dtype([("key", "<u8"), ("first", "<i8"), ("second", "<i8")]))
        for first, second in self._candidates(self._bands(found, batches), parts):
            proposed.add(key=mixed(mixed(first.view(np.uint64)) + second.view(np.uint64) * _BETWEEN), first=first,
                         second=second)  # fmt: skip
        edges = []
        for records in proposed:
            pairs = _different(records["first"], records["second"])
            for start in range(0, len(pairs[0]), at_once):
                first, second = (side[start : start + at_once] for side in pairs)
                alike, equal = self._compare(take, first, second)
                near = alike >= ALIKE
                found.differ(first[near & ~equal], second[near & ~equal])
                near &= equal
                edges.append((first[near], second[near], alike[near]))
        if edges:
            _leave_out(found, parts, *(np.concatenate(column) for column in zip(*edges, strict=True)))

    def _bands(self, found: Copies, batches: Iterable[Mapping[str, pa.Array]]) -> Buckets:
        kind = np.dtype([("key", "<u8"), ("label", "<u2"), ("place", np.min_scalar_type(max(1, self._count)))])
        buckets = Buckets(self.folder / "bands", kind)
        marker, starts = self.marker, deque[int]()

        def asked() -> Iterator[tuple[dict[str, pa.Array], np.ndarray]]:
            start = 0
            for columns in batches:
                starts.append(start)
                rows = len(columns[marker.texts[0]])
                names = [*marker.texts, *([marker.label] if marker.label else [])]
                yield {n: columns[n] for n in names}, found.of[start : start + rows] < 0
                start += rows

        for bands in engine.over(marker.bands, asked()):
            start = starts.popleft()
            for fields in bands:
                buckets.add(**fields | {"place": fields["place"] + start})
        return buckets

    @staticmethod
    def _candidates(bands: Buckets, parts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of the rows of one band: each with the first of its label, and with the one before it."""
        for records in bands:
            records = _repeated(records)
            place = records["place"].astype(np.int64)
            order = np.lexsort((place, parts[place], records["label"], records["key"]))
            records, place = records[order], place[order]
            one, same = _as_before(records, "key"), _as_before(records, "key", "label")
            first = np.where(same, _run_start(same), _run_start(one))
            second = np.flatnonzero(one)
            pairs = np.concatenate([place[first[second]], place[second - 1]]), np.tile(place[second], 2)
            other = pairs[0] != pairs[1]
            yield _different(pairs[0][other], pairs[1][other])

    def _compare(self, take: Take, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How like the rows of each pair are, 0 where a text is not, and whether their labels are equal."""
        marker = self.marker
        places, back = np.unique(np.concatenate([first, second]), return_inverse=True)
        a, b = np.split(back, 2)
        columns = take(places, [*marker.texts, *marker.others, *([marker.label] if marker.label else [])])
        shared, whole, alike = np.zeros(len(a)), np.zeros(len(a)), np.ones(len(a), bool)
        for name in marker.texts:
            both, either = jaccard(*shingles(columns[name]), a, b)
            shared, whole = shared + both, whole + either
            alike &= both >= ALIKE * either
        for name in marker.others:
            marks = fingerprints(columns[name])[:, 0]
            whole += CHANGED * (marks[a] != marks[b])
        labels = marker.labels(columns)
        return np.where(alike, shared / np.maximum(whole, 1), 0), labels[a] == labels[b]


def jaccard(
    values: np.ndarray, counts: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs of texts, told by their numbers: how many different shingles both have, and either.

    ``values`` below 2^40 are the shingles of all texts, ``counts`` of each; at most 2^22 pairs.
    """
    starts = np.cumsum(counts) - counts
    keys = []
    for side, texts in enumerate((first, second)):
        many = counts[texts]
        pair = np.repeat(np.arange(len(texts), dtype=np.uint64), many)
        keys.append(pair << np.uint64(41) | values[np.repeat(starts[texts], many) + within(many)] << np.uint64(1)
                    | np.uint64(side))  # fmt: skip
    different = np.sort(np.concatenate(keys))
    different = different[np.append(True, different[1:] != different[:-1])[: len(different)]]
    shared = different[1:][different[1:] >> np.uint64(1) == different[:-1] >> np.uint64(1)]
    total, both = (
        np.bincount((k >> np.uint64(41)).astype(np.int64), minlength=len(first)) for k in (different, shared)
    )
    return both, total - both


def _leave_out(found: Copies, parts: np.ndarray, first: np.ndarray, second: np.ndarray, alike: np.ndarray) -> None:
    """Of like rows leave out each that is like one that is kept, the first of them first."""
    order = np.lexsort((first, parts[first], second, parts[second]))
    gone, found.alike = bytearray(len(found.of)), found.alike.copy()
    for start in range(0, len(order), _LOOP):
        some = order[start : start + _LOOP]
        for edge, one, other in zip(some.tolist(), first[some].tolist(), second[some].tolist(), strict=True):
            if not gone[one] and not gone[other]:
                gone[other] = 1
                found.of[other], found.alike[other] = one, alike[edge]
    for start in range(0, len(found.of), _LOOP):  # equal rows of one that is left out are copies of what it is like
        here = start + np.flatnonzero(found.of[start : start + _LOOP] >= 0)
        over = here[found.of[found.of[here]] >= 0]
        found.alike[over] = found.alike[found.of[over]]
        found.of[over] = found.of[found.of[over]]


def _repeated(records: np.ndarray) -> np.ndarray:
    """Those whose key another one has."""
    order = np.argsort(records["key"])
    again = np.concatenate([[False], np.diff(records["key"][order]) == 0, [False]])
    return records[order[again[1:] | again[:-1]]]


def _different(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once."""
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new = np.ones(len(order), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return first[new], second[new]


def _as_before(records: np.ndarray, *names: str) -> np.ndarray:
    """Whether each has in all these fields what the one before it has."""
    found = np.ones(len(records), bool)
    found[:1] = False
    for name in names:
        found[1:] &= records[name][1:] == records[name][:-1]
    return found


def _run_start(as_before: np.ndarray) -> np.ndarray:
    """Where the run begins that each is part of."""
    return np.maximum.accumulate(np.where(as_before, 0, np.arange(len(as_before))))


def _slices(texts: list[pa.Array]) -> Iterator[slice]:
    """Rows that hold few bytes together, or one row."""
    sizes = sum(pc.fill_null(pc.binary_length(t), 0).to_numpy(zero_copy_only=False).astype(np.int64) for t in texts)
    piece = np.cumsum(np.minimum(sizes, MOST_BYTES)) // _BYTES
    ends = [*np.flatnonzero(np.diff(piece)) + 1, len(piece)]
    for start, end in zip([0, *ends], ends, strict=False):
        yield slice(start, end)
