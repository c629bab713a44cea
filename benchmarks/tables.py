"""Weft's defaults on real tables, beside its own baselines, on the splits of the data's README.

    uv run python benchmarks/tables.py [adult breast_cancer german clothing bank] [--seeds 3]

Prints one JSON line a table: the median over seeds of each figure, of Weft and of each baseline on the
same rows. Nothing is set but the target, what must be left out, and the split.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold

import weft

DATA = Path(__file__).parents[2] / "shared" / "data"


def adult() -> tuple[pa.Table, dict[str, Any]]:
    return pq.read_table(DATA / "adult.parquet"), {"target": "income", "data": {"split": {"column": "split"}}}


def clothing() -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(DATA / "clothing_reviews.parquet")
    return table, {
        "target": "recommended_ind",
        "features": {"rating": "off"},
        "data": {"split": {"column": "split"}},
    }


def bank() -> tuple[pa.Table, dict[str, Any]]:
    table = pq.read_table(DATA / "bank_marketing.parquet")
    parts = np.full(table.num_rows, "train", object)
    parts[np.random.default_rng(0).choice(table.num_rows, table.num_rows // 5, replace=False)] = "test"
    target = table.schema.names[-1]
    table = table.append_column("part", pa.array(parts))
    return table, {"target": target, "features": {"duration": "off"}, "data": {"split": {"column": "part"}}}


def breast_cancer() -> tuple[pa.Table, dict[str, Any]]:
    bunch = load_breast_cancer()
    columns = {name: bunch.data[:, i] for i, name in enumerate(bunch.feature_names)}
    return pa.table({**columns, "diagnosis": bunch.target_names[bunch.target]}), {"target": "diagnosis"}


def german() -> tuple[pa.Table, dict[str, Any]]:
    table = pacsv.read_csv(DATA / "german_credit.csv")
    return table, {"target": table.schema.names[-1]}


def once(table: pa.Table, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Metrics of every model of one run, and how many rows Weft's predicts a second."""
    folder = tempfile.mkdtemp()
    training = {**settings.get("training", {}), "seed": seed}
    run = weft.Pipeline({**settings, "training": training}).run(table, Path(folder) / "run", quiet=True)
    found = {m["key"]: {k: e["value"] for k, e in m["metrics"].items()} for m in run.figures["models"]}
    found["weft"]["seconds"] = run.figures["models"][0]["seconds"]
    found["weft"]["epochs"] = run.figures["model"]["epochs"]
    run.predict(table.slice(0, 1_000))
    started, cpu = time.monotonic(), time.process_time()
    run.predict(table)
    found["weft"]["predicted_a_second"] = len(table) / (time.monotonic() - started)
    found["weft"]["predicted_a_cpu_second"] = len(table) / (time.process_time() - cpu)
    shutil.rmtree(folder)
    return found


def folds(table: pa.Table, settings: dict[str, Any], seed: int) -> dict[str, dict[str, float]]:
    """Mean over five stratified folds."""
    truth = table.column(settings["target"]).to_numpy()
    each: list[dict[str, dict[str, float]]] = []
    for _, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(truth, truth):
        parts = np.full(len(truth), "train", object)
        parts[test] = "test"
        cut = table.append_column("part", pa.array(parts))
        each.append(once(cut, {**settings, "data": {"split": {"column": "part"}}}, seed))
    return {
        model: {k: float(np.mean([e[model][k] for e in each])) for k in each[0][model] if k != "epochs"}
        for model in each[0]
    }


SETS = {"adult": adult, "breast_cancer": breast_cancer, "german": german, "clothing": clothing, "bank": bank}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.sets:
        table, settings = SETS[name]()
        started, cpu = time.monotonic(), time.process_time()
        runs = []
        for seed in range(arguments.seeds):
            cross = name in ("breast_cancer", "german")
            runs.append(folds(table, settings, seed) if cross else once(table, settings, seed))
        shown = {
            model: {
                k: round(statistics.median(r[model][k] for r in runs), 4)
                for k in ("accuracy", "auc", "log_loss", "ece")
                if k in runs[0][model]
            }
            for model in runs[0]
        }
        print(
            json.dumps(
                {
                    "benchmark": "tables", "table": name, "seeds": arguments.seeds, "median": shown,
                    "weft_each": [{k: round(v, 4) for k, v in r["weft"].items() if k != "epochs"} for r in runs],
                    "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - cpu),
                    "threads": torch.get_num_threads(), "cpu": platform.processor() or platform.machine(),
                    "cores": os.cpu_count(), "torch": torch.__version__,
                }
            ),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
