"""The nearest rows of an index for every query of a table's column, into a file that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weft.data.table import Rejected, Table
from weft.errors import UsageError
from weft.inference.embed import Embedded, Embedder
from weft.inference.parts import Piece, fingerprint, write_job
from weft.inference.search import VectorIndex
from weft.progress import Silent

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
    table.require([column])
    if out.resolve() == index.path.resolve():
        raise UsageError(f"{out}: the output must not be the index that is read. Choose another name with -o.")
    head = {"query_row": pa.int64(), "rank": pa.int32(), "score": pa.float32()}
    fields = [index.file.schema_arrow.field(name) for name in index.columns]
    named = [f.with_name(f"index {f.name}") if f.name in head else f for f in fields]
    schema = pa.schema([*head.items(), *named])

    def work(rest: Table) -> Iterator[Piece]:
        for block in _blocks(embedder, rest, column):
            scores, places = index.search(block.vectors_QD, top) if len(block.rows) else np.zeros((2, 0, 0), np.int64)
            for start in range(0, len(block.rows), _WRITTEN_AT_ONCE):
                some = slice(start, start + _WRITTEN_AT_ONCE)
                yield Piece(_found(block.rows[some], scores[some], places[some], index, schema), [], None)
            counts = {"searched": len(block.rows), "missing": block.missing}
            yield Piece(schema.empty_table(), block.rejected, block.end, counts)

    job = {
        "model": fingerprint(embedder.model, embedder.source.tokenizer), "column": column, "top": top,
        "index": (str(index.path.resolve()), index.path.stat().st_mtime_ns, index.graph is None),
    }  # fmt: skip
    done = write_job(out, schema, table, job, work, "searching", say or Silent())
    counts = done.counts
    return {
        "rows": counts["searched"] + counts["missing"] + counts["rejected"], "searched": counts["searched"],
        "missing": counts["missing"], "rejected": counts["rejected"], "output": str(out),
        "rejected_output": done.rejected_output,
    }  # fmt: skip


@dataclass
class _Block:
    """Queries that are searched together: their row numbers and vectors; how many are missing, which were set aside;
    the number after the last row."""

    rows: np.ndarray
    vectors_QD: np.ndarray
    missing: int
    rejected: list[Rejected]
    end: int


def _blocks(embedder: Embedder, table: Table, column: str) -> Iterator[_Block]:
    """The queries, ``QUERIES_AT_ONCE`` or so at a time."""
    pieces: list[Embedded] = []
    for piece in embedder.table(table, column):
        pieces.append(piece)
        if sum(len(p.rows) for p in pieces) >= QUERIES_AT_ONCE:
            yield _block(pieces)
            pieces = []
    if pieces:
        yield _block(pieces)


def _block(pieces: list[Embedded]) -> _Block:
    there = np.array([t is not None for p in pieces for t in p.texts], bool)
    rows, vectors = (np.concatenate([getattr(p, name) for p in pieces])[there] for name in ("rows", "vectors"))
    return _Block(rows, vectors, int((~there).sum()), [r for p in pieces for r in p.rejected], pieces[-1].end)


def _found(rows: np.ndarray, scores: np.ndarray, places: np.ndarray, index: VectorIndex, schema: pa.Schema) -> pa.Table:
    count = places.shape[1]
    columns = [
        pa.array(np.repeat(rows, count)),
        pa.array(np.tile(np.arange(1, count + 1, dtype=np.int32), len(rows))),
        pa.array(scores.ravel().astype(np.float32)),
    ]
    return pa.table([*columns, *index.take(places.ravel()).columns], schema=schema)
