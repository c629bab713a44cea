"""Table: named columns whose rows come as Arrow record batches, never all at once.

``Table.open`` reads CSV, JSON Lines, Parquet and Arrow from files, globs, folders and fsspec addresses;
``Table.of`` takes anything with ``__arrow_c_stream__`` (pandas, polars, Arrow, DuckDB) without a copy.
CSV and JSON Lines come as text: nothing is decided here, so that a bad cell costs its row and not the
file. Every batch carries the number of its first row; rows that are no rows at all (a CSV line with too
many fields, a line that is not JSON) come out as ``Rejected``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weft.errors import DataError, UsageError, listing

BATCH_ROWS = 16_384
_ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip


@dataclass(frozen=True)
class Rejected:
    """A row set aside: ``row`` is its number in the table (from 0), ``text`` what came."""

    row: int
    column: str
    reason: str
    text: str


@dataclass
class RawBatch:
    """Rows ``rows`` (numbers in the table, ascending) of a table, as they came."""

    rows: np.ndarray
    batch: pa.RecordBatch
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """One file of a table."""

    path: str
    size: int
    format: str
    filesystem: Any


class Table:
    """Named, typed columns and a way to stream their rows again and again, in one order."""

    def __init__(self, name: str, columns: dict[str, pa.DataType], parts: Sequence[Part], memory: pa.Table | None):
        self.name = name
        self.columns = columns
        self.parts = list(parts)
        self._memory = memory

    @classmethod
    def open(cls, source: str | Path | Sequence[str | Path], format: str | None = None) -> Table:
        """A table over files.

        Raises:
            DataError: nothing is there, a file is empty or unreadable, columns differ between files.
            UsageError: the ending of a file does not tell its format.
        """
        addresses = [str(s) for s in (source if isinstance(source, (list, tuple)) else [source])]
        parts = [part for address in addresses for part in _find(address, format)]
        name = addresses[0] if len(addresses) == 1 else f"{addresses[0]} and {len(addresses) - 1} more"
        columns: dict[str, pa.DataType] = {}
        for part in parts:
            found = _columns_of(part)
            if columns and list(found) != list(columns):
                odd = sorted(set(found) ^ set(columns)) or list(found)
                raise DataError(
                    f"{part.path}: every file of a table must have the same columns in the same order as "
                    f"{parts[0].path}. Got a difference in {listing(odd)}. Read them as separate tables."
                )
            columns = columns or found
        return cls(name, columns, parts, None)

    @classmethod
    def of(cls, data: Any) -> Table:
        """A table over rows in memory: anything with ``__arrow_c_stream__``, or a mapping of columns."""
        if isinstance(data, Table):
            return data
        if isinstance(data, (str, Path)):
            return cls.open(data)
        if isinstance(data, pa.RecordBatch):
            memory = pa.Table.from_batches([data])
        elif hasattr(data, "__arrow_c_stream__"):
            memory = pa.table(data)
        elif isinstance(data, dict):
            try:
                memory = pa.table(data)
            except (pa.ArrowException, TypeError) as error:
                raise DataError(f"table: a mapping must hold equally long columns. Got: {error}") from None
        else:
            raise UsageError(
                f"table: must be a path or anything with __arrow_c_stream__ (pandas, polars, Arrow, DuckDB). "
                f"Got {type(data).__name__}. Collect a LazyFrame first."
            )
        _check_names(memory.schema.names, "table")
        memory = pa.table([_plain(c) for c in memory.columns], names=memory.schema.names)
        return cls("table", {f.name: f.type for f in memory.schema}, [], memory)

    def batches(self, columns: Iterable[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[RawBatch]:
        """Stream the table; ``columns`` keeps only those (in that order), ``rows`` bounds a batch."""
        keep = list(self.columns) if columns is None else list(columns)
        start = 0
        if self._memory is not None:
            for batch in self._memory.select(keep).to_batches(max_chunksize=rows):
                yield RawBatch(_count(start, batch.num_rows), batch)
                start += batch.num_rows
            return
        for part in self.parts:
            reader = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet, "arrow": _read_arrow}
            for raw in reader[part.format](part, keep, list(self.columns), start, rows):
                yield raw
                last = [raw.rows[-1]] if len(raw.rows) else []
                start = max([start - 1, *last, *(r.row for r in raw.rejected)]) + 1

    def row_count(self) -> int | None:
        """Rows where the files say so without being read (Parquet, rows in memory); else None."""
        if self._memory is not None:
            return self._memory.num_rows
        if any(part.format != "parquet" for part in self.parts):
            return None
        count = 0
        for part in self.parts:
            with _binary(part) as stream:
                count += pq.ParquetFile(stream).metadata.num_rows
        return count

    def head(self, rows: int) -> pa.Table:
        """The first ``rows`` rows, as they came."""
        taken, batches = 0, []
        for raw in self.batches(rows=min(rows, BATCH_ROWS)):
            batches.append(_readable(raw.batch.slice(0, rows - taken), self.columns))
            taken += batches[-1].num_rows
            if taken >= rows:
                break
        if not batches:
            return pa.table({name: pa.array([], kind) for name, kind in self.columns.items()})
        return pa.Table.from_batches(batches)

    def fingerprint(self) -> str:
        """sha256 over the bytes of the files, or over the rows in memory: the same data, the same word."""
        digest = hashlib.sha256()
        for part in self.parts:
            with part.filesystem.open(part.path, "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        if self._memory is not None:
            sink = _Digest(digest)
            with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), self._memory.schema.remove_metadata()) as writer:
                writer.write_table(self._memory.replace_schema_metadata(None), max_chunksize=BATCH_ROWS)
        return digest.hexdigest()


def _readable(batch: pa.RecordBatch, columns: dict[str, pa.DataType]) -> pa.RecordBatch:
    """Bytes in a text column (cells that are not UTF-8) shown with replacement characters."""
    arrays = [
        pa.array([None if b is None else b.decode("utf-8", "replace") for b in array.to_pylist()], pa.string())
        if columns[name] == pa.string() and pa.types.is_binary(array.type)
        else array
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


class _Digest(io.RawIOBase):
    """A file that keeps nothing but the hash of what is written to it."""

    def __init__(self, digest: Any):
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self._digest.update(block)
        return len(block)


# ------------------------------------------------------------------------------------------- finding


def _find(address: str, format: str | None) -> list[Part]:
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        if any(sign in path for sign in "*?["):
            paths = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            paths = sorted(p for p in filesystem.find(path) if _hidden(p, path) is False)
        else:
            paths = [path] if filesystem.exists(path) else []
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{address}: must be a file, glob, folder or fsspec address. Got: {error}") from None
    if not paths:
        raise DataError(f"{address}: there is no such file. Check the path, or quote the glob.")
    parts = []
    for p in paths:
        kind = format or _ENDINGS.get(Path(p.removesuffix(".gz")).suffix.lower())
        if kind is None:
            if len(paths) > 1:
                continue
            raise UsageError(
                f"{p}: the ending must be one of {listing(sorted(_ENDINGS), 20)}. "
                f"Say data.format if the content is one of those."
            )
        try:
            size = int(filesystem.size(p) or 0)
        except OSError as error:
            raise DataError(f"{p}: must be readable. Got: {error}.") from None
        if size == 0:
            raise DataError(f"{p}: the file is empty (0 bytes). Remove it or name another one.")
        parts.append(Part(p, size, kind, filesystem))
    if not parts:
        raise DataError(f"{address}: holds no file that ends in {listing(sorted(_ENDINGS), 20)}.")
    return parts


def _hidden(path: str, root: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in path[len(root) :].split("/"))


def _columns_of(part: Part) -> dict[str, pa.DataType]:
    try:
        if part.format == "parquet":
            with _binary(part) as stream:
                schema = pq.ParquetFile(stream).schema_arrow
        elif part.format == "arrow":
            with _binary(part) as stream:
                schema = _arrow_reader(stream).schema
        elif part.format == "csv":
            with _text(part) as stream:
                names = next(_csv_rows(stream, part.path), [])
            _check_names(names, part.path)
            return dict.fromkeys(names, pa.string())
        else:
            names = _jsonl_names(part)
            return dict.fromkeys(names, pa.string())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{part.path}: must be a readable {part.format} file. Got: {error}.") from None
    _check_names(schema.names, part.path)
    return {f.name: _plain_type(f.type) for f in schema}


def _check_names(names: Sequence[str], where: str) -> None:
    if not names:
        raise DataError(f"{where}: a table must have at least one column. Got none.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: column names must differ. Got {listing(twice)} more than once. Rename them.")
    if any(not name.strip() for name in names):
        place = [i + 1 for i, name in enumerate(names) if not name.strip()]
        raise DataError(f"{where}: every column must have a name. Column {place[0]} has none. Name it.")


# ------------------------------------------------------------------------------------------- reading


def _binary(part: Part) -> Any:
    if getattr(part.filesystem, "protocol", None) in ("file", ("file", "local")):
        return pa.memory_map(part.path, "r")
    return part.filesystem.open(part.path, "rb")


def _text(part: Part) -> IO[str]:
    """Text of a file; bytes that are not UTF-8 become lone surrogates and are found by the cleaner."""
    stream = fsspec.open(
        part.filesystem.unstrip_protocol(part.path), "rt", encoding="utf-8-sig", errors="surrogateescape",
        newline="", compression="infer",
    ).open()  # fmt: skip
    return stream


def _csv_rows(stream: IO[str], path: str) -> Iterator[list[str]]:
    """Fields of each line, the header first; a line that is no CSV comes as one field that starts with NUL."""
    csv.field_size_limit(1 << 27)
    first = stream.readline(1 << 20)
    if _not_utf8(first):
        raise DataError(f"{path}: the header must be UTF-8 text. Convert it: iconv -t UTF-8 {path} > table.csv")
    delimiter = max([",", "\t", ";", "|"], key=first.count)
    stream.seek(0)
    reader = csv.reader(stream, delimiter=delimiter)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield [f"\0{error}"]


def _not_utf8(text: str) -> bool:
    return "\0" in text or any("\udc80" <= letter <= "\udcff" for letter in text)


def _read_csv(part: Part, keep: list[str], names: list[str], start: int, rows: int) -> Iterator[RawBatch]:
    with _text(part) as stream:
        lines = _csv_rows(stream, part.path)
        next(lines)
        places = [names.index(name) for name in keep]
        number = itertools.count(start)
        while chunk := list(itertools.islice(lines, rows)):
            good, ids, bad = [], [], []
            for fields in chunk:
                if not fields:
                    continue  # a blank line is no row
                row = next(number)
                if len(fields) == len(names):
                    good.append(fields)
                    ids.append(row)
                else:
                    bad.append(Rejected(row, "", _wrong_fields(fields, names), ",".join(fields)[:1000]))
            cells = list(zip(*good, strict=True)) if good else [()] * len(names)
            arrays = [_strings(cells[i]) for i in places]
            yield RawBatch(_ids(ids), pa.RecordBatch.from_arrays(arrays, names=keep), bad)


def _wrong_fields(fields: list[str], names: list[str]) -> str:
    if fields and fields[0].startswith("\0"):
        return f"not a CSV line: {fields[0][1:]}"
    return f"must have {len(names)} fields like the header, has {len(fields)}"


def _strings(cells: Sequence[str | None]) -> pa.Array:
    """Text cells; an empty cell is missing, one with bytes that are not UTF-8 keeps them for the cleaner."""
    cells = [cell if cell else None for cell in cells]
    try:
        return pa.array(cells, pa.string())
    except (UnicodeEncodeError, pa.ArrowException):
        raw = [None if c is None else c.encode("utf-8", "surrogateescape") for c in cells]
        return pa.array(raw, pa.binary())


def _jsonl_names(part: Part) -> list[str]:
    names: dict[str, None] = {}
    with _text(part) as stream:
        if stream.read(1) == "[":
            raise DataError(
                f"{part.path}: must be JSON Lines, one object a line. Got a JSON array. "
                f"Convert it: jq -c '.[]' {Path(part.path).name} > table.jsonl"
            )
        stream.seek(0)
        for line in itertools.islice(stream, 2_000):
            row = _json(line)
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
    if not names:
        raise DataError(f"{part.path}: must be JSON Lines, one object a line. Got no object in its first lines.")
    _check_names(list(names), part.path)
    return list(names)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_jsonl(part: Part, keep: list[str], names: list[str], start: int, rows: int) -> Iterator[RawBatch]:
    known = set(names)
    with _text(part) as stream:
        number = itertools.count(start)
        while chunk := list(itertools.islice(stream, rows)):
            good, ids, bad = [], [], []
            for line in chunk:
                if not line.strip():
                    continue
                row, value = next(number), _json(line)
                if isinstance(value, dict) and value.keys() <= known:
                    good.append(value)
                    ids.append(row)
                else:
                    odd = listing(sorted(value.keys() - known)) if isinstance(value, dict) else ""
                    reason = f"has columns that the first rows do not: {odd}" if odd else "not a JSON object"
                    bad.append(Rejected(row, "", reason, line[:1000].rstrip("\n")))
            arrays = [_strings([_cell(value.get(name)) for value in good]) for name in keep]
            yield RawBatch(_ids(ids), pa.RecordBatch.from_arrays(arrays, names=keep), bad)


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


def _read_parquet(part: Part, keep: list[str], names: list[str], start: int, rows: int) -> Iterator[RawBatch]:
    with _binary(part) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=rows, columns=keep):
            yield RawBatch(_count(start, batch.num_rows), _ordered(batch, keep))
            start += batch.num_rows


def _arrow_reader(stream: Any) -> Any:
    try:
        return pa.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_stream(stream)


def _read_arrow(part: Part, keep: list[str], names: list[str], start: int, rows: int) -> Iterator[RawBatch]:
    with _binary(part) as stream:
        reader = _arrow_reader(stream)
        whole = (
            (reader.get_batch(i) for i in range(reader.num_record_batches))
            if isinstance(reader, pa.ipc.RecordBatchFileReader)
            else reader
        )
        for batch in whole:
            for offset in range(0, batch.num_rows, rows):
                piece = batch.slice(offset, rows)
                yield RawBatch(_count(start, piece.num_rows), _ordered(piece, keep))
                start += piece.num_rows


def _ordered(batch: pa.RecordBatch, keep: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_plain(batch.column(name)) for name in keep], names=keep)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The few Arrow types the rest of Weft sees: dictionaries, views, large and decimal types unfolded."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_decimal(kind):
        return pa.float64()
    return kind


def _plain(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    wanted = _plain_type(column.type)
    return column if column.type == wanted else pc.cast(column, wanted, safe=False)


def _count(start: int, rows: int) -> np.ndarray:
    return np.arange(start, start + rows, dtype=np.int64)


def _ids(ids: list[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int64)
