"""``weft embed RUN DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
from cyclopts import Parameter

from weft.cli import Engine, Json, Many, Memory, Out, answer
from weft.data.table import RawBatch, Table
from weft.engine import running
from weft.errors import UsageError
from weft.inference import output
from weft.inference.embed import text_column, text_reader
from weft.inference.parts import Piece, fingerprint, steps, write_job
from weft.inference.search import MEASURED_NEAREST, VECTOR, GraphBuilder, recall, remove_graphs
from weft.memory import limit
from weft.progress import Spoken
from weft.runs.opening import open_embedder


def embed(
    run: Path,
    data: str,
    /,
    *,
    out: Out,
    column: str | None = None,
    keep: Many = (),
    graph: Annotated[bool, Parameter(negative=())] = False,
    engine: Engine = "local",
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Turn a column of texts into vectors of length one, row by row.

    Args:
        run: An imported checkpoint, or a run trained from one.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The vectors, with row numbers and the text itself: .parquet.
        column: The column to read (default: the only one that holds texts).
        keep: A column of the input to repeat in the output; may be given several times.
        graph: Build a graph for fast search beside the vectors, for millions of rows (needs usearch).
    """
    limit(memory)
    if out.suffix.lower() != ".parquet":
        raise UsageError(f"{out}: vectors are written as .parquet.")
    output.check(out)
    table = Table.open(data)
    if column is None:
        column = text_column(table)
    wanted = tuple(dict.fromkeys([column, *keep]))
    table.require(wanted)  # before the model is loaded
    embedder = open_embedder(run)
    kind = pa.list_(pa.float32(), embedder.width)
    schema = output.schema_of(table, wanted, {VECTOR: kind})
    builder = GraphBuilder(out, embedder.width) if graph else None

    reader = text_reader(table, column, wanted)

    def work(raw: RawBatch) -> Piece:
        some = embedder.rows(reader.read(raw))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(some.vectors.ravel()), embedder.width)
        rows = pa.table({"row": pa.array(some.rows), **some.kept, VECTOR: vectors}, schema=schema)
        return Piece(rows, some.rejected, some.end, {"rows": len(some.rows), "cut": some.cut})

    job = {"model": fingerprint(embedder.model, embedder.source.tokenizer), "column": column, "graph": graph}
    joining = (builder.join, builder.save) if builder else ()
    with running(engine):
        done = write_job(
            out, builder.schema(schema) if builder else schema, table, job, steps(reader, work), "embedding", Spoken(),
            *joining,
        )  # fmt: skip
    rows, cut, rejected = (done.counts[name] for name in ("rows", "cut", "rejected"))
    remove_graphs(out)
    found = recall(out, embedder.width) if builder is not None and rows else None
    answer(
        json,
        {
            "output": str(out),
            "rows": rows + rejected,
            "embedded": rows,
            "rejected": rejected,
            "width": embedder.width,
            "column": column,
            "cut": cut,
            "rejected_output": done.rejected_output,
            "graph": None if builder is None else str(out.with_name(builder.name)),
            "recall": found,
        },
        [
            f"{rows:,} texts of '{column}' as vectors of width {embedder.width}"
            + (f"; {cut:,} were longer than the model reads and were cut" if cut else ""),
            f"wrote:   {out}",
            *([] if found is None else [f"graph:   finds {found:.1%} of the {MEASURED_NEAREST} nearest rows"]),
            *([f"aside:   {rejected:,} rows, {done.rejected_output}"] if rejected else []),
            f'next:    weft search {run} {out} "your words"',
        ],
    )
