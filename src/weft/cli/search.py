"""``weft search RUN INDEX "QUERY"``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli import Json, Out, answer, typed
from weft.data.table import Table
from weft.errors import UsageError
from weft.inference.search import VectorIndex
from weft.inference.search_table import search_table
from weft.progress import Spoken
from weft.runs.opening import open_embedder


def search(
    run: Path,
    index: Path,
    query: str | None = None,
    /,
    *,
    top: int = 10,
    exact: Annotated[bool, Parameter(negative=())] = False,
    data: str | None = None,
    column: str | None = None,
    out: Out | None = None,
    json: Json = False,
) -> None:
    """Find the rows of an index whose meaning is nearest to a query, or to every row of a table.

    Args:
        run: The model that made the index.
        index: The file that weft embed wrote.
        query: The words to look for, in any language the model reads.
        top: How many rows to show.
        exact: Compare every vector, also where the index has a graph.
        data: A table of queries: file, glob, folder or address.
        column: The column of the table that holds the queries.
        out: What was found for the table: .parquet, .csv or .jsonl.
    """
    if top < 1:
        raise UsageError(f"--top: must be at least 1. Got {top}.")
    if (query is None) == (data is None):
        raise UsageError("there must be a QUERY, or a table of them (--data TABLE --column NAME -o OUT); not both.")
    if (data is None) != (column is None) or (data is None) != (out is None):
        raise UsageError("a table of queries needs all of --data TABLE, --column NAME and -o OUT.")
    if query is not None and not query.strip():
        raise UsageError("the query must hold words. Got an empty one.")
    embedder = open_embedder(run)
    vectors = VectorIndex(index, embedder.width, exact)
    if query is not None:
        scores, places = vectors.search(embedder([query])[0], top)
        rows = vectors.take(places[0]).to_pylist()
        found = [{"score": round(float(s), 4), **r} for s, r in zip(scores[0], rows, strict=True)]
        lines = []
        for entry in found:
            words = " | ".join(str(v) for k, v in entry.items() if k not in ("score", "row"))
            lines.append(f"{entry['score']:>7.3f}  row {entry['row']:<8} {words[:160]}")
        answer(json, {"query": query, "found": found}, lines)
    elif data is not None and column is not None and out is not None:
        done = search_table(embedder, vectors, Table.open(data), column, out, top, Spoken())
        lines = [
            f"{done['rows']:,} rows = {done['searched']:,} searched + {done['missing']:,} without a query + "
            f"{done['rejected']:,} set aside",
            f"wrote:   {out}",
        ]
        answer(json, done, [*lines, f'next:    {typed("search", run, index)} "your words"'])
