"""``weft embed RUN DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
from cyclopts import Parameter

from weft.cli import answer
from weft.data.columns import SAMPLE_ROWS, guess
from weft.data.table import Table
from weft.errors import UsageError
from weft.exchange import open_text_model
from weft.inference import output
from weft.inference.embed import VECTOR, Embedder, check_columns, text_column
from weft.progress import Spoken


def embed(
    run: Path,
    data: str,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    column: str | None = None,
    keep: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    json: bool = False,
) -> None:
    """Turn a column of texts into vectors of length one, row by row.

    Args:
        run: An imported checkpoint, or a run trained from one.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The vectors, with row numbers and the text itself: .parquet.
        column: The column to read (default: the only one that holds texts).
        keep: A column of the input to repeat in the output; may be given several times.
        json: One JSON object on stdout.
    """
    if out.suffix.lower() != ".parquet":
        raise UsageError(f"{out}: vectors are written as .parquet.")
    output.check(out)
    table = Table.open(data)
    if column is None:
        head = table.sample(SAMPLE_ROWS)
        column = text_column(table, {n: guess(n, head.column(n)).type for n in table.columns})
    wanted = tuple(dict.fromkeys([column, *keep]))
    check_columns(table, wanted)
    embedder = Embedder(open_text_model(run))
    rows = cut = 0
    kind = pa.list_(pa.float32(), embedder.width)
    schema = pa.schema([("row", pa.int64()), *((n, table.columns[n]) for n in wanted), (VECTOR, kind)])
    with output.writing(out, schema) as writer, Spoken().bar("embedding", table.row_count() or 0) as bar:
        for piece in embedder.table(table, column, wanted):
            columns = {n: piece.kept.column(i).cast(table.columns[n]) for i, n in enumerate(wanted)}
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(piece.vectors.ravel()), embedder.width)
            writer.write(pa.table({"row": pa.array(piece.rows), **columns, VECTOR: vectors}, schema=schema))
            rows += len(piece.rows)
            cut += piece.cut
            bar.advance(len(piece.rows))
    answer(
        json,
        {"output": str(out), "rows": rows, "width": embedder.width, "column": column, "cut": cut},
        [
            f"{rows:,} texts of '{column}' as vectors of width {embedder.width}"
            + (f"; {cut:,} were longer than the model reads and were cut" if cut else ""),
            f"wrote:   {out}",
            f'next:    weft search {run} {out} "your words"',
        ],
    )
