"""``weft demo``"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from sklearn.datasets import load_breast_cancer

from weft import config, pipeline
from weft.cli import answer
from weft.data.split import TEST
from weft.data.table import Table
from weft.errors import UsageError
from weft.files import write_whole
from weft.progress import Spoken
from weft.results.metrics import METRICS

_FILE = """\
# What weft demo runs: 569 tumours, 30 measurements of each, and the diagnosis (Wolberg 1995).
version: 1
data:
  source: {source}
target: {{column: diagnosis, positive: malignant}}
"""


def demo(*, out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("weft-demo"), json: bool = False) -> None:
    """Real data that is on every machine, end to end: a diagnosis from 30 measurements of a tumour.

    Args:
        out: The folder for the data, the pipeline file, the run and its report; a former demo is replaced.
        json: One JSON object on stdout.
    """
    file, table, run = out / "weft.yaml", out / "tumours.csv", out / "run"
    if out.exists() and any(out.iterdir()) and not file.exists():
        raise UsageError(
            f"{out}: must be new, empty or a former demo. It holds something else. Choose another with -o."
        )
    shutil.rmtree(run, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    _write_table(table)
    write_whole(file, _FILE.format(source=table))
    say = Spoken()
    say.console.print("Weft turns every column of a table into tokens and lets one large model read the row.")
    say.console.print("The table: tumours of 569 patients. The question: is it malignant?\n")
    done = pipeline.run(config.load(file), out=run, say=say)
    unseen = np.flatnonzero(np.load(run / "split.npy", allow_pickle=False) == TEST)[:6]
    few = Table.open(table).head(569).take(unseen)
    rows = [
        f"  row {i}: {p['prediction']:<10} {p['probability']:>6.1%} sure   truly {t}"
        for i, p, t in zip(unseen, done.predict(few).to_pylist(), few.column("diagnosis").to_pylist(), strict=True)
    ]
    metric = METRICS["accuracy"]
    models = [
        f"  {m['title']:<32} {m['metrics'][metric.key]['value']:.1%}  "
        f"({m['metrics'][metric.key]['low']:.1%} to {m['metrics'][metric.key]['high']:.1%})"
        for m in done.figures["models"]
    ]
    answer(
        json,
        {"run": str(done.path), **done.figures},
        [
            "",
            f"{metric.title} on the {done.figures['rows_judged']} test rows, with 95 % intervals:",
            *models,
            "",
            "Patients it never saw:",
            *rows,
            "",
            f"report:  {run / 'report.html'}  (open it in a browser)",
            f"next:    weft predict {run} {table} -o predictions.csv",
            "         weft init YOUR_TABLE.csv      your own table: CSV, JSON Lines, Parquet or Arrow",
        ],
    )


def _write_table(path: Path) -> None:
    bunch = load_breast_cancer()
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*bunch.feature_names, "diagnosis"])
        for row, target in zip(bunch.data, bunch.target, strict=True):
            writer.writerow([*row, bunch.target_names[target]])
