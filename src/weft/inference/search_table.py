"""The nearest rows of an index for every query of a table's column, into a file that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weft.data.table import Rejected, Table
from weft.errors import UsageError
from weft.inference import output
from weft.inference.embed import Embedder, check_columns
from weft.inference.search import VectorIndex
from weft.progress import Bar, Silent

QUERIES_AT_ONCE = 32_768
"""Queries that share one reading of an index without a graph."""
_WRITTEN_AT_ONCE = 1_024


def search_table(
    embedder: Embedder,
    index: VectorIndex,
    table: Table,
    column: str,
    out: Path,
    top: int = 10,
    say: Silent | None = None,
) -> dict[str, Any]:
    """Write for each query its nearest rows, best first: ``query_row``, ``rank``, ``score`` and the index's columns.

    A missing query finds nothing; one that cannot be read is set aside beside ``out``. A column of the index that has
    one of those three names comes as ``index NAME``.

    Returns the counts: rows in = searched + missing + rejected.
    """
    say = say or Silent()
    output.check(out)
    check_columns(table, [column])
    if out.resolve() == index.path.resolve():
        raise UsageError(f"{out}: the output must not be the index that is read. Choose another name with -o.")
    head = {"query_row": pa.int64(), "rank": pa.int32(), "score": pa.float32()}
    fields = [index.file.schema_arrow.field(name) for name in index.columns]
    named = [f.with_name(f"index {f.name}") if f.name in head else f for f in fields]
    schema = pa.schema([*head.items(), *named])
    done = _Done()
    with output.writing(out, schema) as writer, say.bar("searching", table.row_count() or 0) as bar:
        for rows, queries_QD in _blocks(embedder, table, column, done, bar):
            scores, places = index.search(queries_QD, top)
            for start in range(0, len(rows), _WRITTEN_AT_ONCE):
                some = slice(start, start + _WRITTEN_AT_ONCE)
                writer.write(_found(rows[some], scores[some], places[some], index, schema))
    return {
        "rows": done.searched + done.missing + len(done.rejected), "searched": done.searched, "missing": done.missing,
        "rejected": len(done.rejected), "output": str(out), "rejected_output": output.set_aside(out, done.rejected),
    }  # fmt: skip


@dataclass
class _Done:
    searched: int = 0
    missing: int = 0
    rejected: list[Rejected] = field(default_factory=list)


def _blocks(
    embedder: Embedder, table: Table, column: str, done: _Done, bar: Bar
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and vectors of the queries that there are, ``QUERIES_AT_ONCE`` or so; counted in ``done``."""
    rows: list[np.ndarray] = []
    vectors: list[np.ndarray] = []
    for piece in embedder.table(table, column):
        there = np.array([t is not None for t in piece.texts], bool)
        rows.append(piece.rows[there])
        vectors.append(piece.vectors[there])
        done.searched += int(there.sum())
        done.missing += int((~there).sum())
        done.rejected += piece.rejected
        bar.advance(len(there) + len(piece.rejected))
        if sum(map(len, rows)) >= QUERIES_AT_ONCE:
            yield np.concatenate(rows), np.concatenate(vectors)
            rows, vectors = [], []
    if sum(map(len, rows)):
        yield np.concatenate(rows), np.concatenate(vectors)


def _found(rows: np.ndarray, scores: np.ndarray, places: np.ndarray, index: VectorIndex, schema: pa.Schema) -> pa.Table:
    count = places.shape[1]
    columns = [
        pa.array(np.repeat(rows, count)),
        pa.array(np.tile(np.arange(1, count + 1, dtype=np.int32), len(rows))),
        pa.array(scores.ravel().astype(np.float32)),
    ]
    return pa.table([*columns, *index.take(places.ravel()).columns], schema=schema)
