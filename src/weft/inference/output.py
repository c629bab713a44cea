"""Predictions to a file: Parquet, CSV or JSON Lines by the file's ending, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from weft.data.table import Rejected
from weft.errors import UsageError, listing
from weft.files import json_text
from weft.preprocess.ingest import rejected_table

ENDINGS = (".parquet", ".csv", ".jsonl")


class TableWriter(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer of tables of one schema. The file takes its name when the block ends without an error.

    Raises:
        UsageError: the ending is not known or the folder is not there.
    """
    makers: dict[str, Callable[[Path, pa.Schema], TableWriter]] = {
        ".parquet": _Parquet,
        ".csv": _Csv,
        ".jsonl": _JsonLines,
    }
    check(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer = makers[path.suffix.lower()](beside, schema)
        try:
            yield writer
        finally:
            writer.close()
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def set_aside(path: Path, rejected: list[Rejected]) -> str | None:
    """Write the rows set aside beside the output ``path``; the name of their file, None where there are none."""
    beside = path.with_name(path.stem + ".rejected.parquet")
    beside.unlink(missing_ok=True)
    if not rejected:
        return None
    with writing(beside, rejected_table([]).schema) as writer:
        writer.write(rejected_table(rejected))
    return str(beside)


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


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema):
        # vectors hardly repeat: a dictionary of their numbers makes the file larger and slower
        repeats = [f.name for f in schema if not pa.types.is_fixed_size_list(f.type)]
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", write_page_checksum=True, use_dictionary=repeats
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = pa.schema([(f.name, f.type if _fits_csv(f.type) else pa.string()) for f in schema])
        self._writer = pacsv.CSVWriter(path, self._schema)

    def write(self, table: pa.Table) -> None:
        columns = [
            column if _fits_csv(column.type) else pa.array(map(_word, column.to_pylist()), pa.string())
            for column in table.columns
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, path: Path, schema: pa.Schema):
        self._stream = path.open("w", encoding="utf-8")

    def write(self, table: pa.Table) -> None:
        rows: list[dict[str, Any]] = table.to_pylist()
        self._stream.writelines(json_text(row) + "\n" for row in rows)

    def close(self) -> None:
        self._stream.close()


def _fits_csv(kind: pa.DataType) -> bool:
    simple = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_date)
    return any(test(kind) for test in simple)


def _word(value: Any) -> str | None:
    """A value that CSV has no form of, as a text."""
    return None if value is None else value if isinstance(value, str) else json_text(value).strip('"')
