"""``weft predict RUN DATA -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli import answer
from weft.progress import Spoken
from weft.runs import open_run


def predict(
    run: Path,
    data: str,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    keep: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    allow_missing: bool = False,
    json: bool = False,
) -> None:
    """Predict the rows of a table of any size, in their order.

    Args:
        run: The run folder.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        out: The predictions: .parquet, .csv or .jsonl. Rows set aside go beside it.
        keep: A column of the input to repeat in the output; may be given several times.
        allow_missing: Treat an absent column as all missing values instead of stopping.
        json: One JSON object on stdout.
    """
    done = open_run(run).predict_file(data, out, allow_missing, keep, Spoken())
    lines = [
        f"{done['rows']:,} rows = {done['predicted']:,} predicted + {done['rejected']:,} set aside",
        f"wrote:   {out}",
    ]
    if done["rejected"]:
        lines.append(f"aside:   {done['rejected_output']}")
    answer(json, done, [*lines, f"judge:   weft evaluate {run} DATA_WITH_TARGET"])
