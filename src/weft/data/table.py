"""Table: named columns whose rows come as Arrow record batches, never all at once.

``Table.open`` reads CSV, JSON Lines, SQuAD's JSON, Parquet, Arrow and plain text from files, globs, folders and
fsspec addresses, and a folder of pictures with a class a sub-folder; ``Table.of`` takes anything with
``__arrow_c_stream__`` (pandas, polars, Arrow, DuckDB) without a copy.
CSV and JSON Lines come as text: nothing is decided here, so that a bad cell costs its row and not the
file. Every batch carries the number of its first row; rows that are no rows at all (a CSV line with too
many fields, a line that is not JSON) come out as ``Rejected``.
"""

from __future__ import annotations

import hashlib
import math
import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.finding import common_columns, find
from weft.data.formats import batches_of, group_sizes, row_count, rows_about
from weft.data.parts import PANDAS_INDEX, Part, check_names, count, readable
from weft.data.parts import RawBatch as RawBatch
from weft.data.parts import Rejected as Rejected
from weft.data.pictures import pixel_type
from weft.data.plain import plain
from weft.data.split import uniform
from weft.errors import DataError, UsageError, did_you_mean, listing

BATCH_ROWS = 16_384
_BATCH_BYTES = 1 << 26  # of a batch, where cells hold pictures or books
_ADVICE = {
    "LazyFrame": " Collect it first: frame.collect().",
    "DatasetDict": " Take one of its parts: dataset['train'].",
    "IterableDataset": " Write it to Parquet first, or load it without streaming.",
}
_MOST_OF_A_GROUP = 1 << 17  # rows of a row group that one worker reads and answers whole
_SAMPLE_BYTES = 1 << 28
_SAMPLE_SEED = 7  # not the seed of a split, whose draws these would follow
_MOST_TO_SAMPLE = 1 << 30  # bytes of Parquet, or a sixteenth of it in text


@dataclass
class Fragment:
    """Some rows of a table, read or to be read: what :func:`batches_of` is given, and the first row that is wanted."""

    what: Part | RawBatch
    keep: list[str] = field(default_factory=list)
    columns: Mapping[str, pa.DataType] = field(default_factory=dict)
    start: int = 0
    rows: int = 0
    first: int = 0

    def batches(self) -> Iterator[RawBatch]:
        """Raises DataError where the file is not on this machine."""
        if isinstance(self.what, RawBatch):
            yield self.what
            return
        if not self.what.filesystem.exists(self.what.path):
            raise DataError(
                f"{self.what.path}: must be where every worker can read it. It is not on {socket.gethostname()}. Put "
                f"it into a folder that all machines share, or an object store."
            )
        start = self.start
        for raw in batches_of(self.what, self.keep, self.columns, start, self.rows):
            first, start = start, raw.end(start)
            if first >= self.first:
                yield raw


class Table:
    """Named, typed columns and a way to stream their rows again and again, in one order."""

    def __init__(self, name: str, columns: dict[str, pa.DataType], parts: Sequence[Part], memory: pa.Table | None):
        self.name = name
        self.columns = columns
        self.parts = list(parts)
        self._memory = memory
        self._folder = Path.cwd()
        """Where the relative paths of rows in memory begin."""
        self._first = 0
        self._owner = np.zeros(max(1, len(self.parts)), np.int64)  # by which address each file was found
        self._starts: list[int] = []  # the first row of each file that was reached

    @classmethod
    def open(cls, source: str | Path | Sequence[str | Path], format: str | None = None) -> Table:
        """A table over files.

        Raises:
            DataError: nothing is there, a file is empty or unreadable, columns differ between files.
            UsageError: the ending of a file does not tell its format.
        """
        addresses = [str(s) for s in (source if isinstance(source, (list, tuple)) else [source])]
        groups = [find(address, format) for address in addresses]
        parts, sizes = [part for group in groups for part in group], [len(group) for group in groups]
        if len(groups) == 1:  # of one folder or glob each file is apart
            sizes = [1] * len(parts)
        name = addresses[0] if len(addresses) == 1 else f"{addresses[0]} and {len(addresses) - 1} more"
        found = cls(name, common_columns(parts), parts, None)
        found._owner = np.repeat(np.arange(len(sizes)), sizes)
        return found

    @classmethod
    def of(cls, data: Any) -> Table:
        """A table over rows in memory: anything with ``__arrow_c_stream__``, a Hugging Face dataset, or a mapping of
        columns."""
        if isinstance(data, Table):
            return data
        if isinstance(data, (str, Path)):
            return cls.open(data)
        advice = _ADVICE.get(type(data).__name__, "")
        if kind_of_table(data) == "datasets" and not advice:
            data = data.with_format("arrow")[:]
        if isinstance(data, dict) and not advice:
            data = {name: _tensors(values) for name, values in data.items()}
        if isinstance(data, pa.RecordBatch):
            memory = pa.Table.from_batches([data])
        elif not advice and (isinstance(data, dict) or hasattr(data, "__arrow_c_stream__")):
            try:
                memory = pa.table(data)
            except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
                said = "; ".join(str(a) for a in error.args) or type(error).__name__
                raise DataError(
                    f"table: must be equally long columns of one type each, with different names. Got: {said}."
                ) from None
        else:
            raise UsageError(
                f"table: must be a path, a mapping of columns, a Hugging Face dataset, or anything with "
                f"__arrow_c_stream__ (pandas, polars, Arrow, DuckDB). Got {type(data).__name__}.{advice}"
            )
        kept = [i for i, n in enumerate(memory.schema.names) if not PANDAS_INDEX.fullmatch(n)]
        memory = memory.select(kept)
        check_names(memory.schema.names, "table")
        memory = pa.table([plain(c) for c in memory.columns], names=memory.schema.names)
        return cls("table", {f.name: f.type for f in memory.schema}, [], memory)

    def require(self, names: Iterable[str]) -> None:
        """Raises DataError for the first of the names that is no column."""
        for name in names:
            if name not in self.columns:
                near = did_you_mean(name, self.columns)
                raise DataError(f"{self.name}: there is no column '{name}'.{near} It has {listing(self.columns, 20)}.")

    def batches(self, columns: Iterable[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[RawBatch]:
        """Stream the table; ``columns`` keeps only those (in that order), ``rows`` bounds a batch."""
        keep = list(self.columns) if columns is None else list(columns)
        start = 0
        rows = max(1, min(rows, int(_BATCH_BYTES / self._row_bytes())))
        if self._memory is not None:
            for batch in self._memory.select(keep).to_batches(max_chunksize=rows):
                if start >= self._first:
                    yield RawBatch(count(start, batch.num_rows), batch, folder=self._folder)
                start += batch.num_rows
            return
        for number, part in enumerate(self.parts):
            self._starts[number:] = [start]
            known = row_count(part) if start < self._first else None
            if known is not None and start + known <= self._first:
                start += known
                continue
            for raw in batches_of(part, keep, self.columns, start, rows):
                first, start = start, raw.end(start)
                if first >= self._first:
                    yield raw
                assert first >= self._first or start <= self._first, "a batch ended there when the rows were read first"

    def fragments(self, columns: Iterable[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[Fragment]:
        """What :meth:`batches` streams, in pieces of their own: a row group of Parquet, to be read by who gets it, else
        a batch that is read already."""
        keep = list(self.columns) if columns is None else list(columns)
        rows = max(1, min(rows, int(_BATCH_BYTES / self._row_bytes())))
        start = 0
        for number, part in enumerate(self.parts):
            sizes = group_sizes(part)
            if max(sizes, default=_MOST_OF_A_GROUP + 1) > _MOST_OF_A_GROUP:
                break
            self._starts[number:] = [start]
            for group, size in enumerate(sizes):
                if start + size > self._first:
                    yield Fragment(replace(part, group=group), keep, self.columns, start, rows, self._first)
                start += size
        else:
            if self.parts:
                return
        rest = self.after(max(start, self._first))
        rest._starts = self._starts
        for raw in rest.batches(keep, rows):
            yield Fragment(raw)

    def after(self, row: int) -> Table:
        """The same rows but those before ``row``, which must be where a batch of the same size ended."""
        rest = Table(self.name, self.columns, self.parts, self._memory)
        rest._first = row
        return rest

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row that was streamed, and its number there (from 0); of rows in memory an empty name."""
        number = bisect_right(self._starts, row) - 1
        return (self.parts[number].path, row - self._starts[number]) if self.parts else ("", row)

    def owners(self, rows: np.ndarray) -> np.ndarray:
        """Under which address, by its place among those given, rows that were streamed were found; of a single
        address in which file."""
        return self._owner[np.maximum(np.searchsorted(self._starts, rows, side="right") - 1, 0)]

    def stamp(self) -> str:
        """A word that is another one where the rows are; that of files is made without reading them."""
        if self._memory is not None:
            return self.fingerprint()
        known = []
        for part in self.parts:
            with readable(part):
                facts = part.filesystem.info(part.path)
                known.append((part.path, facts["size"], facts.get("mtime") or part.filesystem.ukey(part.path)))
        return hashlib.sha256(repr(known).encode("utf-8", "backslashreplace")).hexdigest()

    def _row_bytes(self) -> float:
        """Bytes of a row, where it is known without reading."""
        total = self._memory.nbytes if self._memory is not None else sum(p.size for p in self.parts if not p.files)
        return max(1.0, total / max(1, self.row_count() or total))

    def row_count(self) -> int | None:
        """Rows where the files say so without being read (Parquet, rows in memory); else None."""
        if self._memory is not None:
            return self._memory.num_rows
        counts = [row_count(part) for part in self.parts]
        return None if None in counts else sum(c or 0 for c in counts)

    def rows_about(self) -> int | None:
        """Rows as far as can be told without reading the files."""
        counts = [row_count(part) or rows_about(part) for part in self.parts]
        return self.row_count() if self._memory is not None else None if None in counts else sum(c or 0 for c in counts)

    def head(self, rows: int, most_bytes: float = math.inf) -> pa.Table:
        """The first ``rows`` rows, as they came; fewer where they hold more than ``most_bytes``."""
        taken, size, batches = 0, 0, []
        if rows <= 0:
            return pa.table({name: pa.array([], kind) for name, kind in self.columns.items()})
        for raw in self.batches(rows=min(rows, BATCH_ROWS)):
            batches.append(shown(raw.batch.slice(0, rows - taken), self.columns))
            taken, size = taken + batches[-1].num_rows, size + batches[-1].nbytes
            if size > most_bytes:
                over = math.ceil(batches[-1].num_rows * (size - most_bytes) / batches[-1].nbytes)
                batches[-1] = batches[-1].slice(0, max(1, batches[-1].num_rows - over))
            if taken >= rows or size > most_bytes:
                break
        if not batches:
            return pa.table({name: pa.array([], kind) for name, kind in self.columns.items()})
        return pa.Table.from_batches(batches)

    def rows(self, numbers: Sequence[int]) -> Table:
        """A table of some rows, by their numbers from 0, in the order asked; read as far as the last of them.

        Raises:
            DataError: the table has no such row, or it is no row that can be read.
        """
        found: dict[int, pa.Table] = {}
        folder = self._folder
        wanted, last = sorted(set(numbers)), -1
        for raw in self.batches():
            for place in np.flatnonzero(np.isin(raw.rows, wanted)).tolist():
                one = pa.Table.from_batches([shown(raw.batch.slice(place, 1), self.columns)])
                found[int(raw.rows[place])], folder = one, raw.folder or folder
            bad = next((r for r in raw.rejected if r.row in wanted), None)
            if bad is not None:
                raise DataError(f"{self.name}: row {bad.row} {bad.reason}. Correct it, or choose another row.")
            last = max([last, *raw.rows[-1:].tolist(), *(r.row for r in raw.rejected)])
            if len(found) == len(wanted):
                some = Table.of(pa.concat_tables([found[n] for n in numbers]))
                some.name, some._folder = self.name, folder
                return some
        absent = next(n for n in wanted if n not in found)
        raise DataError(f"{self.name}: there is no row {absent}. It has {last + 1:,} rows, counted from 0.")

    def sample(self, rows: int) -> pa.Table:
        """At most ``rows`` rows in the table's order: a quarter are its first (where a running number shows), the
        others drawn from the whole (where a sorted table shows all its kinds).

        Of files too large to be read twice, the first rows of up to 64 of them.
        """
        costs = [part.size * (1 if part.format in ("parquet", "arrow") else 16) for part in self.parts]
        if sum(costs) > _MOST_TO_SAMPLE:
            chosen = self.parts[:: -(-len(self.parts) // 64)]
            pieces = [Table(self.name, self.columns, [part], None).head(-(-rows // len(chosen))) for part in chosen]
            return pa.concat_tables(pieces).slice(0, rows)
        rows = max(1, min(rows, int(_SAMPLE_BYTES / self._row_bytes())))
        kept, draws = self.head(0), np.zeros(0)
        for raw in self.batches():
            kept = pa.concat_tables([kept, pa.Table.from_batches([shown(raw.batch, self.columns)])])
            drawn = np.where(raw.rows < rows // 4, -1.0, uniform(_SAMPLE_SEED, raw.rows))
            draws = np.concatenate([draws, drawn])
            if len(draws) > rows:
                places = np.sort(np.argpartition(draws, rows)[:rows])
                kept, draws = kept.take(pa.array(places)), draws[places]
        return kept

    def fingerprint(self) -> str:
        """sha256 over the bytes of the files, or over the rows in memory: the same data, the same word."""
        digest = hashlib.sha256()
        for part in self.parts:
            for file in part.files or [part.path]:
                if part.files:
                    digest.update(f"{file.removeprefix(part.path)} {part.filesystem.size(file)} ".encode())
                elif len(self.parts) > 1:
                    digest.update(b"file of %d bytes " % part.size)
                with readable(part), part.filesystem.open(file, "rb") as stream:
                    for block in iter(lambda: stream.read(1 << 20), b""):
                        digest.update(block)
        if self._memory is not None:
            digest.update(
                repr([(f.name, str(f.type)) for f in self._memory.schema]).encode("utf-8", "backslashreplace")
            )
            for start in range(0, self._memory.num_rows, BATCH_ROWS):  # whatever the chunks are
                piece = self._memory.slice(start, BATCH_ROWS)
                for column in piece.columns:
                    for block in _canonical(column):
                        digest.update(b"%d " % len(block))
                        digest.update(block)
        return digest.hexdigest()


def kind_of_table(data: Any) -> str:
    """The library that a table in memory is of: ``pandas``, ``polars``, ``duckdb``, ``datasets``, ..."""
    return type(data).__module__.partition(".")[0].lstrip("_")


def like(given: Any, table: pa.Table) -> Any:
    """``table`` as the kind of table that was given: pandas, polars, DuckDB, a Hugging Face dataset or Arrow."""
    kind = kind_of_table(given)
    if kind == "pandas":
        return table.to_pandas().set_index(given.index)
    if kind == "polars":
        import polars

        return polars.from_arrow(table)
    if kind == "duckdb":
        import duckdb

        return duckdb.from_arrow(table)
    if kind == "datasets":
        import datasets

        return datasets.Dataset(table)
    return table


def _tensors(values: Any) -> Any:
    """A NumPy array of pictures [N, H, W] or [N, H, W, C] as Arrow has it; anything else as it came."""
    if isinstance(values, np.ndarray) and values.ndim in (3, 4):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    return values


def _canonical(column: pa.ChunkedArray) -> Iterator[bytes]:
    """The values as bytes that do not depend on chunks, offsets or what lies under a missing value."""
    kind = column.type
    array = pa.concat_arrays(column.chunks)
    yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes()
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        filled = pa.concat_arrays([array.fill_null("" if pa.types.is_string(kind) else b"")])
        yield pc.binary_length(filled).to_numpy().astype(np.int64).tobytes()
        _, offsets, data = filled.buffers()
        ends = np.frombuffer(offsets, np.int32)[filled.offset : filled.offset + len(filled) + 1]
        yield bytes(memoryview(data)[ends[0] : ends[-1]]) if data is not None else b""
    elif pixel_type(kind) is not None or (pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type)):
        yield pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64).tobytes()
        yield from _canonical(pa.chunked_array([array.flatten()]))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        yield array.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False).tobytes()
    else:
        yield repr(array.cast(pa.int64()).to_pylist() if pa.types.is_timestamp(kind) else array.to_pylist()).encode()


def shown(batch: pa.RecordBatch, columns: dict[str, pa.DataType]) -> pa.RecordBatch:
    """Cells of a text column that are not UTF-8 shown with replacement characters."""
    arrays = []
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if columns[name] == pa.string() and not _is_utf8(array):
            cells = array.cast(pa.binary()).to_pylist()
            array = pa.array([None if b is None else b.decode("utf-8", "replace") for b in cells], pa.string())
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _is_utf8(array: pa.Array) -> bool:
    if not pa.types.is_string(array.type):
        return False
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
