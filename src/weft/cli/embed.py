"""``weft embed RUN DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
from cyclopts import Parameter

from weft.cli import Engine, Json, Many, Memory, To, answer, typed
from weft.data.stores import fetched, is_address
from weft.data.table import RawBatch, Table
from weft.engine import running
from weft.errors import UsageError
from weft.inference import output
from weft.inference.delivery import Delivery
from weft.inference.embed import text_column, text_reader
from weft.inference.parts import Piece, fingerprint, steps, write_job
from weft.inference.search import MEASURED_NEAREST, VECTOR, GraphBuilder, recall, remove_graphs
from weft.memory import limit
from weft.progress import Spoken
from weft.runs.opening import open_embedder


def embed(
    run: str,
    data: str,
    /,
    *,
    out: To,
    column: str | None = None,
    keep: Many = (),
    graph: Annotated[bool, Parameter(negative=())] = False,
    engine: Engine = "local",
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Turn a column of texts into vectors of length one, row by row.

    Args:
        run: An imported checkpoint, or a run trained from one; its folder or address.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The vectors, with row numbers and the text itself: .parquet, an address, or a folder of parts (OUT/).
        column: The column to read (default: the only one that holds texts).
        keep: A column of the input to repeat in the output; may be given several times.
        graph: Build a graph for fast search beside the vectors, for millions of rows (needs usearch).
    """
    limit(memory)
    if not out.endswith((".parquet", "/")):
        raise UsageError(f"{out}: vectors are written as .parquet, or as a folder of parts (OUT/).")
    if graph and (out.endswith("/") or is_address(out)):
        raise UsageError(f"--graph: stands beside a file of this machine. Got {out}. Leave one of them out.")
    table = Table.open(data)
    if column is None:
        column = text_column(table)
    wanted = tuple(dict.fromkeys([column, *keep]))
    table.require(wanted)  # before the model is loaded
    with fetched(run) as folder:
        embedder = open_embedder(folder)
    kind = pa.list_(pa.float32(), embedder.width)
    schema = output.schema_of(table, wanted, {VECTOR: kind})
    builder = GraphBuilder(Path(out), embedder.width) if graph else None

    reader = text_reader(table, column, wanted)

    def work(raw: RawBatch) -> Piece:
        some = embedder.rows(reader.read(raw))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(some.vectors.ravel()), embedder.width)
        rows = pa.table({"row": pa.array(some.rows), **some.kept, VECTOR: vectors}, schema=schema)
        return Piece(rows, some.rejected, some.end, {"rows": len(some.rows), "cut": some.cut})

    job = {"model": fingerprint(embedder.model, embedder.source.tokenizer), "column": column, "graph": graph}
    joining = (builder.join, builder.save) if builder else ()
    written = builder.schema(schema) if builder else schema
    with running(engine), Delivery(out, data) as way:
        done = write_job(way.path, written, table, job, steps(reader, work), "embedding", Spoken(), *joining)
    rows, cut, rejected = (done.counts[name] for name in ("rows", "cut", "rejected"))
    if builder is not None or not (way.folder or way.remote):
        remove_graphs(way.path)
    found = recall(way.path, embedder.width) if builder is not None and rows else None
    answered = way.deliver({
        "output": out, "rows": rows + rejected, "embedded": rows, "rejected": rejected, "width": embedder.width,
        "column": column, "cut": cut, "rejected_output": done.rejected_output,
        "graph": None if builder is None else str(way.path.with_name(builder.name)), "recall": found,
    })  # fmt: skip
    answer(
        json,
        answered,
        [
            f"{rows:,} texts of '{column}' as vectors of width {embedder.width}"
            + (f"; {cut:,} were longer than the model reads and were cut" if cut else ""),
            f"wrote:   {out}",
            *([] if found is None else [f"graph:   finds {found:.1%} of the {MEASURED_NEAREST} nearest rows"]),
            *([f"aside:   {rejected:,} rows, {answered['rejected_output']}"] if rejected else []),
            f'next:    {typed("search", run, out)} "your words"',
        ],
    )
