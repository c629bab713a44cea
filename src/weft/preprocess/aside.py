"""Rows left out, as a file of them says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from weft.data.table import Rejected, Table


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
