"""What int8 and int4 keep of a reader and of a writer: quality, CPU milliseconds, megabytes, beside float32, bfloat16.

    uv run python benchmarks/fewer_bits.py [reader writer] [--minutes 3] [--work FOLDER] [--smoke]

The reader is MiniLM fine-tuned on Banking77, the writer a model of Shakespeare's plays trained for ``--minutes``. One
JSON line each: the points that ``weft export --to int8`` prints, of validation rows; which kinds the gate of half a
point lets through; of the reader, accuracy on the official test rows and labels equal to those of the run as it was
(which answers in bfloat16 where the machine multiplies it). ``--work`` keeps the runs, and takes those that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

import weft
from distil import banking
from machine import DATA, machine, minilm
from weft.smaller import export_smaller

GATE = 0.5


def reader(work: Path, minutes: float, rows: int | None) -> tuple[Path, pa.Table]:
    """A run, and the rows that it is judged on at the end."""
    table, file = banking(rows)[0], work / "banking.csv"
    if not file.exists():
        pacsv.write_csv(table, file)
    if not (work / "reader").exists():
        weft.train(
            file, "category", work / "reader", quiet=True, model={"from": minilm()}, features={"text": "text"},
            data={"split": {"column": "part"}}, training={"epochs": 1} if rows else {},
            results={"baselines": False, "explain": "off"},
        )  # fmt: skip
    return work / "reader", table.filter(pc.equal(table["part"], "test"))


def writer(work: Path, minutes: float, rows: int | None) -> tuple[Path, None]:
    if not (work / "writer").exists():
        source = DATA / "shakespeare.txt"
        if rows:
            text, source = source.read_text(encoding="utf-8"), work / "plays.txt"
            source.write_text(text[:100_000], encoding="utf-8")
        weft.train(
            source, {"next_token": "text"}, work / "writer", quiet=True,
            training={"minutes": minutes}, model={"width": 128, "layers": 2} if rows else {},
            results={"baselines": False},
        )  # fmt: skip
    return work / "writer", None


def equal(said: pa.ChunkedArray, wanted: pa.ChunkedArray) -> float:
    return round(pc.mean(pc.equal(said, wanted)).as_py(), 4)


def told(path: Path, test: pa.Table | None) -> dict[str, Any]:
    """The points of every kind, and what the smaller runs say of ``test``."""
    smaller: tuple[Literal["int8", "int4"], ...] = ("int8", "int4")
    found: dict[str, Any] = {}
    said = {} if test is None else {"whole": weft.load(path).predict(test)["prediction"]}
    for kind in smaller:
        with tempfile.TemporaryDirectory() as folder:
            found = export_smaller(path, kind, Path(folder) / kind, math.inf)
            if test is not None:
                said[kind] = weft.load(Path(folder) / kind).predict(test)["prediction"]
    points = {p.pop("kind"): {k: round(v, 4) for k, v in p.items()} for p in found["points"]}
    return {
        "figure": found["figure"], "rows": found["rows"], "points": points,
        "passed": [kind for kind, point in points.items() if point["loss"] <= GATE],
        "test_accuracy": {k: equal(s, test["category"]) for k, s in said.items()} if test else {},
        "labels_equal": {k: equal(s, said["whole"]) for k, s in said.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["reader", "writer"])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--smoke", action="store_true", help="few rows, a small writer: that it runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = given.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.models:
            path, test = {"reader": reader, "writer": writer}[name](work, given.minutes, 200 if given.smoke else None)
            print(json.dumps({"benchmark": "fewer_bits", "model": name, **told(path, test), **machine()}),
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
