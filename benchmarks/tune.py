"""What a settings search gains over the defaults on rows that neither has seen, and what it costs.

    uv run python benchmarks/tune.py [german adult clothing] [--trials 15]

One JSON line a table: log loss and accuracy on the test rows of the defaults, the difference of the run that the
search left (zero where it kept the defaults) and of its best trial whether that was kept or not, each with the 95 %
interval of a paired difference; CPU seconds of the two runs.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

import weft

DATA = Path(__file__).parents[2] / "shared" / "data"
PART = "part"


def some(table: pa.Table, parts: np.ndarray, counts: dict[str, int]) -> pa.Table:
    """So many rows of each part, drawn at random."""
    draw = np.random.default_rng(0)
    rows = np.sort(np.concatenate([draw.permutation(np.flatnonzero(parts == p))[:n] for p, n in counts.items()]))
    return table.take(pa.array(rows)).append_column(PART, pa.array(parts[rows]))


def german() -> tuple[pa.Table, dict[str, Any]]:
    table = pacsv.read_csv(DATA / "german_credit.csv")
    parts = np.where(np.random.default_rng(0).permutation(len(table)) < 300, "test", "train")
    return some(table, parts, {"train": 700, "test": 300}), {"target": table.schema.names[-1]}


def adult() -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(DATA / "adult.parquet")
    parts = table.column("split").to_numpy(zero_copy_only=False)
    return some(table.drop_columns("split"), parts, {"train": 6_000, "test": 10_000}), {"target": "income"}


def clothing() -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(DATA / "clothing_reviews.parquet")
    parts = table.column("split").to_numpy(zero_copy_only=False)
    settings = {"target": "recommended_ind", "features": {"rating": "off"}, "training": {"epochs": 2}}  # to end soon
    return some(table.drop_columns("split"), parts, {"train": 2_000, "test": 2_000}), settings


TABLES = {"german": german, "adult": adult, "clothing": clothing}


def once(table: pa.Table, settings: dict[str, Any], out: Path, training: dict[str, Any]) -> tuple[Any, float]:
    """A run, and what it cost in CPU seconds."""
    fixed = {"data": {"split": {"column": PART}}, "results": {"explain": "off", "baselines": False}}
    before = sum(os.times()[:4])
    run = weft.Pipeline({**settings, **fixed, "training": settings.get("training", {}) | training}).run(
        table, out, quiet=True
    )
    return run, sum(os.times()[:4]) - before


def judged(run: Any, test: pa.Table, target: str) -> np.ndarray:
    """Log loss and whether it was right, of each test row [N, 2]."""
    found, truth = run.predict(test).to_pylist(), [str(v) for v in test.column(target).to_pylist()]
    p = np.array([row[f"probability of {c}"] for row, c in zip(found, truth, strict=True)])
    right = [row["prediction"] == c for row, c in zip(found, truth, strict=True)]
    return np.stack([-np.log(p), right], axis=1)


def gap(ours: np.ndarray, base: np.ndarray) -> dict[str, list[float]]:
    """Mean difference with its 95 % interval, over the rows."""
    found = {}
    for column, name in enumerate(("log_loss", "accuracy")):
        d = ours[:, column] - base[:, column]
        half = 1.96 * d.std() / np.sqrt(len(d))
        found[name] = [round(float(v), 4) for v in (d.mean(), d.mean() - half, d.mean() + half)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=list(TABLES))
    parser.add_argument("--trials", type=int, default=15)
    arguments = parser.parse_args()
    for name in arguments.tables:
        table, settings = TABLES[name]()
        test = table.filter(pa.compute.equal(table.column(PART), "test"))
        with tempfile.TemporaryDirectory() as folder:
            plain, cost = once(table, settings, Path(folder, "plain"), {})
            base = judged(plain, test, settings["target"])
            searched, all_cost = once(table, settings, Path(folder, "run"), {"search": {"trials": arguments.trials}})
            told = searched.figures["search"]
            best = told["trials"][told["best"]]["settings"] if told["best"] else {}
            model = {k: v for k, v in best.items() if k in ("dropout", "width", "layers")}
            rest = {k: v for k, v in best.items() if k not in model}
            trusted, _ = once(table, {**settings, "model": model}, Path(folder, "best"), rest)
            line = {
                "table": name, "rows": {"learnt": len(table) - len(test), "test": len(test)},
                "default": dict(zip(("log_loss", "accuracy"), base.mean(axis=0).round(4).tolist(), strict=True)),
                "searched": gap(judged(searched, test, settings["target"]), base),
                "best_trial": gap(judged(trusted, test, settings["target"]), base),
                "kept": told["kept"], "best": best, "mattered": told["mattered"], "again": told["again"],
                "validation": [t["loss"] for t in told["trials"]], "states": [t["state"] for t in told["trials"]],
                "cpu_seconds": {"default": round(cost, 1), "searched": round(all_cost, 1)},
            }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
