"""The one pass over the raw table: every row is cleaned, split, and kept as typed Arrow on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weft import engine, memory
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import NAMES, TEST, TRAIN, VALID, Splitter
from weft.data.table import RawBatch, Rejected, Table
from weft.errors import DataError, SettingsError, TooManyBadRows
from weft.preprocess.clean import MISSING_TARGET, CleanBatch, Cleaner, ColumnPlan, Noticed
from weft.preprocess.duplicates import EXAMPLES, TEXTS, Copies, Finder, Marker
from weft.preprocess.letters import Letters
from weft.progress import Bar, Silent

TEXTS_AT_ONCE = 512  # of a column of texts: each may be a book
ROW = ""  # the column of row numbers; no column of a table has an empty name
GROUP = "\0"  # stands before the names of the columns that say to which group a row belongs; nor has any name a NUL
NOT_USED, COPY = 255, 254
"""The parts of rows that were set aside, and of copies that were left out."""
COPIES_FILE = "duplicates.parquet"
WINDOW = 1 << 20  # rows looked at together where each costs a few bytes


class CleanRows:
    """Cleaned rows on disk, memory-mapped. ``parts``: what each of them is for (one byte a row)."""

    def __init__(self, path: Path, parts_by_row: np.ndarray | None = None):
        self._table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(memory.mapped(path)))).read_all()
        self.at_once = max(1, min(4_096, int(memory.PIECE / 8 * len(self) / path.stat().st_size)))
        """Pairs of rows that are a small part of a piece."""
        if parts_by_row is not None:
            self.deal(parts_by_row)

    def deal(self, parts_by_row: np.ndarray) -> None:
        """Let ``parts`` be those of all rows of the table, by their numbers."""
        self.parts = parts_by_row if len(parts_by_row) == len(self) else np.empty(len(self), np.uint8)
        if self.parts is not parts_by_row:
            start = 0
            for numbers in self._table.column(ROW).chunks:
                self.parts[start : start + len(numbers)] = parts_by_row[numbers.to_numpy()]
                start += len(numbers)

    def __len__(self) -> int:
        return self._table.num_rows

    @cached_property
    def rows(self) -> np.ndarray:
        """Their numbers in the table (eight bytes a row, made when asked for)."""
        return self._table.column(ROW).to_numpy()

    def batches(
        self, part: int | None = None, names: Sequence[str] | None = None, only: np.ndarray | None = None
    ) -> Iterator[CleanBatch]:
        """All rows in order, or those of a part; all columns, or some. ``only``: which of the rows at all."""
        names = names or [n for n in self._table.schema.names if n != ROW and not n.startswith(GROUP)]
        start = 0
        for batch in self._table.to_batches():
            here = slice(start, start + batch.num_rows)
            start += batch.num_rows
            if only is not None and not only[here].any():
                continue
            columns = {n: batch.column(batch.schema.get_field_index(n)) for n in names}
            found = CleanBatch(batch.column(0).to_numpy(), columns, [])
            if part is not None:
                found = found.chosen((self.parts[here] == part) & (True if only is None else only[here]))
            yield found
            memory.release()

    def told(self, bar: Bar) -> Iterator[dict[str, pa.Array]]:
        """The columns of each batch; the bar goes on."""
        for batch in self.batches():
            yield batch.columns
            bar.advance(len(batch.rows))

    def take(self, places: np.ndarray, names: list[str]) -> dict[str, pa.Array]:
        """Columns of some of the rows, in memory; ``places`` counts the cleaned rows from 0."""
        # batch by batch: Arrow would join all chunks of a column to take from it
        batches = self._table.select(names).to_batches()
        ends = np.cumsum([b.num_rows for b in batches])
        order = np.argsort(places, kind="stable")
        owner, first = np.unique(np.searchsorted(ends, places[order], side="right"), return_index=True)
        found = []
        for i, chosen in zip(owner, np.split(places[order], first[1:]), strict=False):
            found.append(batches[i].take(pa.array(chosen - (ends[i] - batches[i].num_rows))))
            memory.release()
        back = np.empty(len(places), np.int64)
        back[order] = np.arange(len(places))
        taken = pa.Table.from_batches(found, self._table.select(names).schema).take(pa.array(back)).combine_chunks()
        return {n: taken.column(n).combine_chunks() for n in names}

    def count(self, *parts: int) -> int:
        return sum(int(np.count_nonzero(self.parts == part)) for part in parts)

    def places(self, *parts: int) -> np.ndarray:
        """Which of the cleaned rows, counted from 0, are of the parts (int32 where that suffices)."""
        found = np.empty(self.count(*parts), np.int32 if len(self) < 1 << 31 else np.int64)
        filled = 0
        for start in range(0, len(self), WINDOW):
            here = start + np.flatnonzero(np.isin(self.parts[start : start + WINDOW], parts))
            found[filled : filled + len(here)] = here
            filled += len(here)
        return found


class Ingested:
    """What the pass found: how many rows were read, set aside (``rejected``), and of these for another reason than a
    missing target (``bad``, with the first ten)."""

    def __init__(self) -> None:
        self.read = self.rejected = self.bad = 0
        self.first: list[Rejected] = []
        self.stopped = False
        """Whether the rows after were not read: there were too many bad ones already."""
        self.dealt = True
        """Whether chance alone told train and valid apart."""
        self.copies: dict[str, Any] = {}
        """What is said of rows that are copies; empty where none are looked for."""
        self._reasons: Counter[str] = Counter()

    def add(self, rejected: Sequence[Rejected]) -> None:
        for r in rejected:
            reason = f"{r.column}: {r.reason}" if r.column else r.reason
            if len(self._reasons) < 10_000 or reason in self._reasons:
                self._reasons[reason] += 1
        bad = [r for r in rejected if r.reason != MISSING_TARGET]
        self.rejected, self.bad = self.rejected + len(rejected), self.bad + len(bad)
        self.first += bad[: 10 - len(self.first)]

    def reasons(self) -> dict[str, int]:
        return dict(self._reasons.most_common(20))


class Aside:
    """Rows left out, written to ``path`` while others are read; the file takes its name when the block ends, and is
    not there where there are none."""

    def __init__(self, path: Path):
        self.path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._writer = self._writer or pq.ParquetWriter(
                self._beside, rows.schema, compression="zstd", write_page_checksum=True
            )
            self._writer.write_table(rows)

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, kind: object, *raised: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if kind is None:
            self.path.unlink(missing_ok=True)
            if self._writer is not None:
                self._beside.replace(self.path)
        self._beside.unlink(missing_ok=True)


def make_cleaner(settings: Settings, plan: Plan) -> Cleaner:
    writes = plan.target_type in ("text", "dialogue")
    kind = {"class": "category", "text": "document"}.get(plan.target_type, plan.target_type)
    plans = {
        name: ColumnPlan(
            "document" if writes else t, plan.formats.get(name), plan.separators.get(name), plan.pictures.get(name)
        )
        for name, t in sorted(plan.types.items())
    }
    plans[plan.target] = ColumnPlan(kind, separator=plan.separator)
    if settings.preprocess.duplicates == "near" and not any(p.type in TEXTS for p in plans.values()):
        raise SettingsError(
            ["preprocess.duplicates: near compares texts. Got a table that has none. Say exact, or off."]
        )
    return Cleaner(plans, Letters.of(settings.preprocess, "nfc" if writes else "nfkc"), plan.target)


def ingest(
    settings: Settings, plan: Plan, table: Table, cleaner: Cleaner, path: Path, aside: Path, say: Silent
) -> tuple[CleanRows, np.ndarray, Ingested]:
    """Clean and split a table into ``path``; rows set aside go to ``aside`` (Parquet), if there are any, copies that
    are left out to ``duplicates.parquet`` beside it.

    Returns:
        the cleaned rows; for every row of the table its part (``NOT_USED`` where set aside, ``COPY`` where left out);
        what was found.

    Raises:
        TooManyBadRows: more than ``data.max_rejected`` of the rows are bad.
        DataError: no row can be used, or a part of the split is empty.
    """
    split = settings.data.split
    # where a row's part may not depend on other rows, it does not depend on their classes
    stratify = plan.target_type == "class" and settings.training.private is None
    splitter = Splitter(split, settings.training.seed, stratify)
    events = plan.target_type == "ranking"
    finder = None if events else Finder(cleaner.plans, plan.target, path.with_suffix(".copies"))
    found = _pass(settings, plan, table, cleaner, splitter, finder, path, aside, say)
    parts = np.full(found.read, NOT_USED, np.uint8)
    clean = CleanRows(path)
    way, copies = settings.preprocess.duplicates, None
    if finder is not None:
        known = splitter.given()
        copies = finder.exact(known)
        if way == "near":
            with say.bar("looking for copies", len(clean)) as bar:
                finder.near(copies, known, clean.told(bar), clean.take, clean.at_once)
        if way != "off":
            splitter.leave_out(copies.of >= 0, parts, COPY)
            found.copies = copies_facts(copies, way, known, clean)
            write_copies(copies, clean, table, aside.with_name(COPIES_FILE))
    found.dealt = splitter.dealt
    # of a ranking that is split in no way the last event of each user is judged, which is known once they are in order
    splitter.assign(parts)
    clean.deal(parts)
    if events and not (split.column or split.by or split.time):
        parts[clean.rows] = TRAIN
        clean.deal(parts)
    if copies is not None and way == "off":
        found.copies = copies_facts(copies, way, clean.parts, clean)
    return clean, parts, found


def _pass(
    settings: Settings, plan: Plan, table: Table, cleaner: Cleaner, splitter: Splitter, finder: Finder | None,
    path: Path, aside: Path, say: Silent,
) -> Ingested:  # fmt: skip
    """The pass itself. Raises as :func:`ingest`."""
    split = settings.data.split
    how = split.column or split.by or split.time
    extra = {name: ColumnPlan(kind, plan.formats.get(name)) for name, kind in plan.extra.items()}
    groups = Cleaner({name: ColumnPlan(kind) for name, kind in plan.groups.items()}, cleaner.letters)
    apart = Cleaner(extra, cleaner.letters)  # a column may be read one way and split by in another
    wanted = list(dict.fromkeys([*cleaner.plans, *extra, *plan.groups]))
    is_class = plan.target_type == "class"
    found, most = Ingested(), settings.data.max_rejected
    rows, writer = table.row_count(), None
    with Aside(aside) as beside_rows, say.bar("reading", rows or 0) as bar:
        at_once = TEXTS_AT_ONCE if plan.target_type == "text" else cleaner.batch_rows
        step = _Clean(cleaner, apart, groups, None if finder is None else finder.marker)
        for one in engine.over_table(step, table, wanted, at_once):
            done, beside, grouped = one.read
            cleaner.notice(one.noticed)
            found.read += len(done.rows) + len(done.rejected)
            bad = sorted(done.rejected, key=lambda r: r.row)
            found.add(bad)
            beside_rows.add(rejected_table(bad, table))
            if found.bad and (most == 0 or (rows is not None and found.bad > most * rows)):
                found.stopped = found.read != rows  # what comes cannot make it good
                break
            key = None if how is None else beside[how] if how in beside else done.columns[how]
            splitter.observe(done.rows, done.columns[plan.target] if is_class else None, key)
            if finder is not None:
                finder.add(one.marks)
            kept = {ROW: pa.array(done.rows), **{GROUP + n: a for n, a in grouped.items()}, **done.columns}
            batch = pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))
            writer = writer or pa.ipc.new_file(str(path), batch.schema)
            writer.write_batch(batch)
            bar.advance(len(done.rows) + len(done.rejected))
    if writer is not None:
        writer.close()
    if not found.read:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    if found.rejected == found.read and not found.stopped:
        why = f"{_place(found.first[0])}: {found.first[0].reason}" if found.first else "the target is missing in all"
        raise DataError(f"{table.name}: must hold rows that can be used. Got none of {found.read:,}; {why}.")
    check_limit(found, most, table.name, aside)
    return found


def copies_facts(copies: Copies, way: str, parts: np.ndarray, clean: CleanRows) -> dict[str, Any]:
    """What ``report.json`` says of copies. ``parts``: of all cleaned rows, as far as they are known."""
    places = np.flatnonzero(copies.of >= 0)
    first = copies.of[places]
    learnt = np.zeros(len(parts), bool)  # of a first row, whether it or one of its copies is learnt from
    learnt[first] = parts[first] == TRAIN
    learnt[first[parts[places] == TRAIN]] = True
    both = np.concatenate([places, np.unique(first)])
    of = np.concatenate([first, np.unique(first)])
    some = np.concatenate([places[:EXAMPLES], first[:EXAMPLES], np.array(copies.pairs, np.int64).ravel()])
    row = dict(zip(some.tolist(), clean.take(some, [ROW])[ROW].to_pylist(), strict=True))
    return {
        "way": way, "rows": len(places), "near": int((copies.alike[places] < 1).sum()),
        "left_out": 0 if way == "off" else len(places),
        **{f"in_{NAMES[part]}": int((learnt[of] & (parts[both] == part)).sum()) for part in (VALID, TEST)},
        "differing": int(np.count_nonzero(copies.differing)),
        "examples": [
            {"row": row[a], "duplicate_of": row[b], "similarity": float(copies.alike[a])}
            for a, b in zip(places[:EXAMPLES].tolist(), first[:EXAMPLES].tolist(), strict=True)
        ],
        "differing_examples": [[row[a], row[b]] for a, b in copies.pairs],
    }  # fmt: skip


def write_copies(copies: Copies, clean: CleanRows, table: Table, path: Path) -> None:
    """The rows left out: row, file and the row's number there, the row each is a copy of, how like they are, reason."""
    with Aside(path) as aside:
        for start in range(0, len(copies.of), WINDOW):
            places = start + np.flatnonzero(copies.of[start : start + WINDOW] >= 0)
            rows = clean.take(places, [ROW])[ROW]
            first = clean.take(copies.of[places].astype(np.int64), [ROW])[ROW]
            found = [table.place(row) for row in rows.to_pylist()]
            aside.add(pa.table({
                "row": rows, "file": pa.array([file for file, _ in found], pa.string()),
                "file_row": pa.array([row for _, row in found], pa.int64()), "duplicate_of": first,
                "similarity": pa.array(copies.alike[places].astype(np.float32)),
                "reason": pa.array([f"duplicate of row {row}" for row in first.to_pylist()], pa.string()),
            }))  # fmt: skip


@dataclass
class _Cleaned:
    """A batch cleaned for the model, with the columns read beside it and those of groups; what tells its rows from
    others; what was noticed."""

    read: tuple[CleanBatch, dict[str, pa.Array], dict[str, pa.Array]]
    marks: dict[str, np.ndarray]
    noticed: Noticed


class _Clean:
    """The step of the pass: a row bad for any of the cleaners is set aside."""

    def __init__(self, cleaner: Cleaner, apart: Cleaner, groups: Cleaner, marker: Marker | None):
        self.cleaners, self.marker = (cleaner, apart, groups), marker

    def __call__(self, raw: RawBatch) -> _Cleaned:
        cleaner = self.cleaners[0]
        done = [c(RawBatch(raw.rows, raw.batch, raw.rejected if c is cleaner else [], raw.folder)) if c.plans else None
                for c in self.cleaners]  # fmt: skip
        read = [batch for batch in done if batch is not None]
        both, rejected = read[0].rows, {r.row: r for batch in reversed(read) for r in batch.rejected}
        for batch in read[1:]:
            both = np.intersect1d(both, batch.rows)
        kept = [{} if b is None else b.chosen(np.isin(b.rows, both)).columns if len(b.rows) > len(both) else b.columns
                for b in done]  # fmt: skip
        clean = CleanBatch(both, kept[0], list(rejected.values()))
        marks = {} if self.marker is None else self.marker(clean.columns)
        return _Cleaned((clean, kept[1], kept[2]), marks, cleaner.told())


def _place(bad: Rejected) -> str:
    return f"row {bad.row}, column '{bad.column}'" if bad.column else f"row {bad.row}"


def check_limit(found: Ingested, limit: float, table: str, file: Path) -> None:
    """Raises TooManyBadRows, with the first ten, where more than the share ``limit`` of the rows are bad."""
    if found.bad > limit * found.read:
        shown = "\n".join(f"  {_place(r)}: {r.reason}" for r in found.first[: 10 if limit else 1])
        read = f"{'the first ' if found.stopped else ''}{found.read:,}"
        raise TooManyBadRows(
            f"{table}: at most {limit:.1%} of the rows may be bad (data.max_rejected). Got {found.bad:,} of {read}. "
            f"Correct them or allow more. All are in {file}; the first (rows count from 0):\n{shown}"
        )


def split_in_words(settings: Settings, clean: CleanRows) -> str:
    s = settings.data.split
    way = "at random"
    if s.column:
        way = f"by column '{s.column}'"
    elif s.by:
        way = f"rows of one '{s.by}' together"
    elif s.time:
        way = f"the latest by '{s.time}' last"
    return ", ".join(f"{clean.count(p):,} {name}" for p, name in enumerate(NAMES)) + f" ({way})"


def rejected_table(rejected: Sequence[Rejected], table: Table) -> pa.Table:
    """Rows of ``table`` set aside, as a table: row, file and the row's number there, column, reason, text."""
    places = [table.place(r.row) for r in rejected]
    return pa.table(
        {
            "row": pa.array([r.row for r in rejected], pa.int64()),
            "file": pa.array([file for file, _ in places], pa.string()),
            "file_row": pa.array([row for _, row in places], pa.int64()),
            "column": pa.array([r.column for r in rejected], pa.string()),
            "reason": pa.array([r.reason for r in rejected], pa.string()),
            "text": pa.array([_printable(r.text) for r in rejected], pa.string()),
        }
    )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
