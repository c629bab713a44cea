"""Predictions to a file: Parquet, CSV or JSON Lines by the file's ending, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from weft.errors import UsageError, listing

ENDINGS = (".parquet", ".csv", ".jsonl")


class TableWriter(Protocol):
    def write(self, table: pa.Table) -> None: ...


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer of tables of one schema. The file takes its name when the block ends without an error.

    Raises:
        UsageError: the ending is not known or the folder is not there.
    """
    makers = {".parquet": _Parquet, ".csv": _Csv, ".jsonl": _JsonLines}
    check(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        writer = makers[path.suffix.lower()](beside, schema)
        try:
            yield writer
        finally:
            writer.close()
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check(path: Path) -> None:
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: the output must end in {listing(ENDINGS)}.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: the folder {path.absolute().parent} must exist. Create it.")


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema):
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, path: Path, schema: pa.Schema):
        self._writer = pacsv.CSVWriter(path, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    def __init__(self, path: Path, schema: pa.Schema):
        self._stream = path.open("w", encoding="utf-8")

    def write(self, table: pa.Table) -> None:
        rows: list[dict[str, Any]] = table.to_pylist()
        self._stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def close(self) -> None:
        self._stream.close()
