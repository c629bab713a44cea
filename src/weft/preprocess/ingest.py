"""The one pass over the raw table: every row is cleaned, split, and kept as typed Arrow on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weft import engine, memory
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import NAMES, TEST, TRAIN, VALID, Splitter
from weft.data.table import Rejected, Table
from weft.errors import DataError, SettingsError, TooManyBadRows
from weft.preprocess.aside import Aside, rejected_table
from weft.preprocess.clean import MISSING_TARGET, CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.clean_step import CleanStep
from weft.preprocess.duplicates import EXAMPLES, TEXTS, Copies, Finder
from weft.preprocess.letters import Letters
from weft.progress import Bar, Silent

TEXTS_AT_ONCE = 512  # of a column of texts: each may be a book
ROW = ""  # the column of row numbers; no column of a table has an empty name
GROUP = "\0"  # stands before the names of the columns that say to which group a row belongs; nor has any name a NUL
NOT_USED, COPY, UNLABELLED = 255, 254, 253
"""The parts of rows that were set aside, of copies that were left out, and of rows without a target that a teacher
answers."""
COPIES_FILE = "duplicates.parquet"
BESIDE = ".unlabelled"  # the end of the name of a file of rows without a target
WINDOW = 1 << 20  # rows looked at together where each costs a few bytes


class CleanRows:
    """Cleaned rows on disk, memory-mapped; after them those without a target, where such are kept. ``parts``: what
    each of them is for (one byte a row)."""

    def __init__(self, path: Path, parts_by_row: np.ndarray | None = None):
        self._table = _mapped(path)
        self._in_order = True
        if parts_by_row is not None and (beside := path.with_suffix(BESIDE)).exists():
            self._table, self._in_order = pa.concat_tables([self._table, _mapped(beside)]), False
        self.at_once = max(1, min(4_096, int(memory.PIECE / 8 * len(self) / path.stat().st_size)))
        """Pairs of rows that are a small part of a piece."""
        if parts_by_row is not None:
            self.deal(parts_by_row)

    def deal(self, parts_by_row: np.ndarray) -> None:
        """Let ``parts`` be those of all rows of the table, by their numbers."""
        whole = self._in_order and len(parts_by_row) == len(self)
        self.parts = parts_by_row if whole else np.empty(len(self), np.uint8)
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
        self,
        part: int | tuple[int, ...] | None = None,
        names: Sequence[str] | None = None,
        only: np.ndarray | None = None,
    ) -> Iterator[CleanBatch]:  # fmt: skip
        """All rows in order, or those of some parts; all columns, or some. ``only``: which of the rows at all."""
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
                found = found.chosen(np.isin(self.parts[here], part) & (True if only is None else only[here]))
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
    """What the pass found: how many rows were read, set aside (``rejected``), of these for another reason than a
    missing target (``bad``, with the first ten), and kept without a target (``unlabelled``)."""

    def __init__(self) -> None:
        self.read = self.rejected = self.bad = self.unlabelled = 0
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
    labelled = None if _taught(settings, plan) else plan.target
    return Cleaner(plans, Letters.of(settings.preprocess, "nfc" if writes else "nfkc"), labelled)


def _taught(settings: Settings, plan: Plan) -> bool:
    """Whether a teacher answers rows without a target."""
    return settings.training.distil is not None and plan.target_type in ("class", "number")


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
    if found.unlabelled:
        parts[_mapped(path.with_suffix(BESIDE)).column(ROW).to_numpy()] = UNLABELLED
        clean = CleanRows(path, parts)
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
    rows = table.row_count()
    writers: list[pa.ipc.RecordBatchFileWriter | None] = [None, None]
    path.with_suffix(BESIDE).unlink(missing_ok=True)
    with Aside(aside) as beside_rows, say.bar("reading", rows or 0) as bar:
        at_once = TEXTS_AT_ONCE if plan.target_type == "text" else cleaner.batch_rows
        taught = (plan.target, split.column) if _taught(settings, plan) else None
        step = CleanStep(cleaner, apart, groups, None if finder is None else finder.marker, taught)
        for one in engine.over_table(step, table, wanted, at_once):
            done, beside, grouped = one.read
            cleaner.notice(one.noticed)
            without = one.unlabelled
            count = 0 if without is None else len(without.rows)
            here = len(done.rows) + len(done.rejected) + count
            found.read, found.unlabelled = found.read + here, found.unlabelled + count
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
            writers[0] = _written(writers[0], path, done, grouped)
            if without is not None and count:  # of no groups: distil and fairness exclude each other
                writers[1] = _written(writers[1], path.with_suffix(BESIDE), without, {})
            bar.advance(here)
    for writer in writers:
        if writer is not None:
            writer.close()
    if not found.read:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    if found.rejected + found.unlabelled == found.read and not found.stopped:
        why = f"{_place(found.first[0])}: {found.first[0].reason}" if found.first else "the target is missing in all"
        raise DataError(f"{table.name}: must hold rows that can be used. Got none of {found.read:,}; {why}.")
    check_limit(found, most, table.name, aside)
    return found


def _written(
    writer: pa.ipc.RecordBatchFileWriter | None, path: Path, clean: CleanBatch, grouped: dict[str, pa.Array]
) -> pa.ipc.RecordBatchFileWriter:
    """What writes ``path``, opened where it was not, with some more rows."""
    kept = {ROW: pa.array(clean.rows), **{GROUP + n: a for n, a in grouped.items()}, **clean.columns}
    batch = pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))
    writer = writer or pa.ipc.new_file(str(path), batch.schema)
    writer.write_batch(batch)
    return writer


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(memory.mapped(path)))).read_all()


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
    counts = [f"{clean.count(p):,} {name}" for p, name in enumerate(NAMES)]
    if without := clean.count(UNLABELLED):
        counts.append(f"{without:,} without a target, which the teacher answers")
    return f"{', '.join(counts)} ({way})"
