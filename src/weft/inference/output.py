"""Tables to a file: Parquet, CSV or JSON Lines by the file's ending."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from weft.data.table import RawBatch, Table, shown
from weft.errors import UsageError, did_you_mean, listing
from weft.files import json_text

ENDINGS = (".parquet", ".csv", ".jsonl")


class TableWriter(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer of tables of one schema to ``path``, which is on the disk when the block ends."""
    makers: dict[str, Callable[[IO[bytes], pa.Schema], TableWriter]] = {
        ".parquet": _Parquet,
        ".csv": _Csv,
        ".jsonl": _JsonLines,
    }
    with path.open("wb") as stream:
        writer = makers[path.suffix.lower()](stream, schema)
        yield writer
        writer.close()
        stream.flush()
        os.fsync(stream.fileno())


def set_aside_name(path: Path) -> Path:
    """Where the rows set aside of an output go."""
    return path.with_name(path.stem + ".rejected.parquet")


def check(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: the output must end in {listing(ENDINGS)}.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{path}: the folder {folder} must exist. Create it.")
    if path.is_dir():
        raise UsageError(f"{path}: must be a file. It is a folder. Choose another name.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: the folder {folder} must be writable. It is not. Choose another.")


def schema_of(
    table: Table, keep: Sequence[str], said: Mapping[str, pa.DataType], columns: Sequence[str] = ()
) -> pa.Schema:
    """Columns of an output: ``row``, those kept of a table, what is said of each row; or some, in the order asked for.

    Raises:
        UsageError: a kept column has the name of another, or one that is asked for is none.
        DataError: the table lacks one that is to be kept.
    """
    for name in keep:
        if name in ("row", *said):
            raise UsageError(f"--keep {name}: the output has a column of that name already. Rename it in the input.")
    table.require(keep)
    schema = pa.schema([("row", pa.int64()), *((n, table.columns[n]) for n in keep), *said.items()])
    for name in columns:
        if name not in schema.names:
            near = did_you_mean(name, schema.names)
            raise UsageError(f"--columns {name}: must be one of {listing(schema.names)}.{near}")
    if len(set(columns)) < len(columns):
        raise UsageError(f"--columns: each column is written once. Got {listing(columns)}.")
    return pa.schema([schema.field(name) for name in columns]) if columns else schema


def kept(columns: dict[str, pa.DataType], keep: Sequence[str], raw: RawBatch, rows: np.ndarray) -> dict[str, pa.Array]:
    """Cells of some ``columns`` of a table as they came, of some rows of a batch."""
    places = pa.array(np.searchsorted(raw.rows, rows))
    cells = shown(raw.batch.select(list(keep)), columns).take(places)
    return {name: cells.column(i).cast(columns[name]) for i, name in enumerate(keep)}


class _Parquet:
    def __init__(self, stream: IO[bytes], schema: pa.Schema):
        # vectors hardly repeat: a dictionary of their numbers makes the file larger and slower
        repeats = [f.name for f in schema if not pa.types.is_fixed_size_list(f.type)]
        self._writer = pq.ParquetWriter(
            stream, schema, compression="zstd", write_page_checksum=True, use_dictionary=repeats
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, stream: IO[bytes], schema: pa.Schema):
        self._schema = pa.schema([(f.name, f.type if _fits_csv(f.type) else pa.string()) for f in schema])
        self._writer = pacsv.CSVWriter(stream, self._schema)

    def write(self, table: pa.Table) -> None:
        columns = [
            column if _fits_csv(column.type) else pa.array(map(_word, column.to_pylist()), pa.string())
            for column in table.columns
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, stream: IO[bytes], schema: pa.Schema):
        self._stream = stream

    def write(self, table: pa.Table) -> None:
        rows: list[dict[str, Any]] = table.to_pylist()
        self._stream.writelines((json_text(row) + "\n").encode("utf-8") for row in rows)

    def close(self) -> None:
        """There is nothing to add."""


def _fits_csv(kind: pa.DataType) -> bool:
    simple = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_date)
    return any(test(kind) for test in simple)


def _word(value: Any) -> str | None:
    """A value that CSV has no form of, as a text."""
    return None if value is None else value if isinstance(value, str) else json_text(value).strip('"')
