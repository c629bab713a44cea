"""A student of a quarter of MiniLM's cost, taught by MiniLM fine-tuned and by labels alone: Banking77 and CLINC150.

    uv run python benchmarks/distil.py [banking clinc] [--seeds 0 1] [--work FOLDER] [--smoke]

The student is MiniLM with 3 of its 6 blocks and 384 of the 1,536 inner numbers of each (a quarter of the
multiply-adds of a token), trained for 15 epochs either way; CLINC150 without its out-of-scope rows; official test rows.
``--work`` keeps the runs, and takes those that are there. Prints one JSON line a data set and seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

import weft
from machine import DATA, Spent, minilm

STUDENT = {"from": minilm(), "layers": 3, "ffn_width": 384}
LONGER: dict[str, Any] = {"epochs": 15, "patience": 15}


def banking(rows: int | None) -> tuple[pa.Table, str]:
    parts = []
    for part in ("train", "test"):
        table = pacsv.read_csv(DATA / f"banking77_{part}.csv")
        parts.append(table.append_column("part", pa.array([part] * len(table))).slice(0, rows))
    return pa.concat_tables(parts), "category"


def clinc(rows: int | None) -> tuple[pa.Table, str]:
    table = pq.read_table(DATA / "clinc150.parquet")
    table = table.set_column(2, "part", table["split"].cast(pa.string()))
    table = table.filter(pc.invert(pc.starts_with(table["part"], "oos")))
    return (table if rows is None else table.take(list(range(0, len(table), len(table) // rows)))), "intent"


def train(
    table: pa.Table, target: str, out: Path, model: dict[str, Any], training: dict[str, Any]
) -> weft.pipeline.Run:
    if out.exists():
        return weft.load(out)
    return weft.train(
        table, target, out, quiet=True, model=model, features={"text": "text"},
        data={"split": {"column": "part"}}, training=training, results={"baselines": False, "explain": "off"},
    )  # fmt: skip


def milliseconds(run: weft.pipeline.Run, table: pa.Table) -> float:
    """CPU milliseconds a row of predicting, the better of two."""
    rows = table.filter(pc.equal(table["part"], "test")).slice(0, 500)
    found = []
    for _ in range(2):
        started = time.process_time()
        run.predict(rows)
        found.append(1000 * (time.process_time() - started) / len(rows))
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["banking", "clinc"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--smoke", action="store_true", help="few rows, one epoch: that it runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        for seed in given.seeds:
            for name in given.sets:
                table, target = {"banking": banking, "clinc": clinc}[name](200 if given.smoke else None)
                own = {"seed": seed, **({"epochs": 1} if given.smoke else {})}
                spent = Spent()
                teacher = train(table, target, work / f"{name}{seed}", {"from": minilm()}, own)
                long = {**LONGER, **own}
                labels = train(table, target, work / f"{name}{seed}-labels", STUDENT, long)
                taught = {**long, "distil": {"from": str(teacher.path), "max_loss": 100}}
                student = train(table, target, work / f"{name}{seed}-taught", STUDENT, taught)
                runs = {"teacher": teacher, "labels": labels, "taught": student}
                accuracy = {n: r.figures["models"][0]["metrics"]["accuracy"]["value"] for n, r in runs.items()}
                print(json.dumps({
                    "benchmark": "distil", "data": name, "seed": seed,
                    **{n: round(a, 4) for n, a in accuracy.items()},
                    "kept": round(accuracy["taught"] / accuracy["teacher"], 4),
                    "gain": round(accuracy["taught"] - accuracy["labels"], 4),
                    "cpu_ms_a_row": {n: round(milliseconds(r, table), 3) for n, r in runs.items()},
                    "parameters": {n: r.figures["model"]["parameters"] for n, r in runs.items()},
                    **spent.figures(),
                }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
