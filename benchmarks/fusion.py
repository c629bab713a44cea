"""What reading all columns of a row together is worth, and what it costs.

    uv run python benchmarks/fusion.py clothing [--judge test] [--targets recommended rating] [--seeds 0 1 2]

``clothing``: recommended (class) and rating (number) of clothing reviews from the texts only, the table only and
both, on the same rows; neither target is ever an input. One JSON line a target. Choices are made with ``--judge
valid``, which judges a fifth of the training rows and never reads the test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from weft.data.split import uniform
from weft.results.metrics import class_metrics, number_metrics

import weft

DATA = Path(__file__).parents[2] / "shared" / "data"
RESAMPLES = 1_000
TEXTS = ["title", "review_text"]
TABLE = ["clothing_id", "age", "positive_feedback_count", "division_name", "department_name", "class_name"]
INPUTS = {"text": TEXTS, "table": TABLE, "both": TEXTS + TABLE}
TARGETS = {"recommended": {"column": "recommended_ind"}, "rating": {"column": "rating", "type": "number"}}


def facts() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}


def clothing(judge: str) -> pa.Table:
    """The reviews with a column ``part``; of the official test rows nothing is left where ``judge`` is valid."""
    table = pq.read_table(DATA / "clothing_reviews.parquet")
    part = np.array(table["split"].to_pylist(), dtype=object)
    table = table.drop_columns(["split"])
    if judge == "valid":
        keep = part == "train"
        table, part = table.filter(pa.array(keep)), part[keep]
        part[uniform(11, np.arange(len(part))) < 0.2] = "test"
    return table.append_column("part", pa.array(part))


def trained(
    table: pa.Table, target: Any, inputs: list[str], seed: int, settings: dict[str, Any]
) -> tuple[weft.Pipeline, dict[str, Any]]:
    """A run on some columns of a table with a column ``part``, and the facts of its training."""
    column = target["column"]
    table = table.select([*inputs, column, "part"])
    training = {**settings.get("training", {}), "seed": seed}
    started, cpu = time.monotonic(), time.process_time()
    folder = Path(tempfile.mkdtemp()) / "run"
    run = weft.train(
        table, target, folder, quiet=True,
        **{
            "data": {"split": {"column": "part"}}, "results": {"baselines": False}, **settings, "training": training,
            "features": {n: f for n, f in settings.get("features", {}).items() if n in inputs},
        },
    )  # fmt: skip
    spent = {
        "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - cpu),
        "epochs": run.figures["model"]["epochs"], "parameters": run.figures["model"]["parameters"],
    }  # fmt: skip
    return run, spent


def answers(run: Any, rows: pa.Table) -> np.ndarray:
    """Probabilities [N, C] in the order of the classes, or numbers [N]."""
    found = run.predict(rows)
    classes = getattr(run.columns.target, "classes", None)
    if classes is None:
        return found["prediction"].to_numpy()
    return np.stack([found[f"probability of {c}"].to_numpy() for c in classes], axis=1)


def metrics_of(output: np.ndarray, truth: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    if output.ndim == 1:
        return number_metrics(output, truth)
    # the rarer class is looked for; AUC is the same for either
    return {k: v for k, v in class_metrics(output, truth, None).items() if k in ("accuracy", "auc", "log_loss")}


def estimates(outputs: dict[str, list[np.ndarray]], truth: np.ndarray, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The mean over seeds of each metric and of each difference, with 95 % bootstrap intervals over the rows."""
    random = np.random.default_rng(0)
    n = len(truth)
    draws = [np.ones(n)] + [np.bincount(random.integers(0, n, n), minlength=n).astype(float) for _ in range(RESAMPLES)]
    table: dict[str, dict[str, np.ndarray]] = {}
    each: dict[str, dict[str, list[float]]] = {}
    for name, seeds in outputs.items():
        by_seed = [metrics_of(o, truth) for o in seeds]
        table[name] = {k: np.array([np.mean([m[k](w) for m in by_seed]) for w in draws]) for k in by_seed[0]}
        each[name] = {k: [round(m[k](draws[0]), 4) for m in by_seed] for k in by_seed[0]}

    def shown(values: np.ndarray) -> list[float]:
        return [round(float(v), 4) for v in (values[0], *np.quantile(values[1:], (0.025, 0.975)))]

    found = {name: {k: shown(v) for k, v in m.items()} for name, m in table.items()}
    for a, b in pairs:
        found[f"{a} - {b}"] = {k: shown(table[a][k] - table[b][k]) for k in table[a]}
    return {"estimates": found, "each_seed": each}


def run_clothing(judge: str, targets: list[str], inputs: list[str], seeds: list[int], settings: dict[str, Any]) -> None:
    table = clothing(judge)
    rows = table.filter(pa.array(np.array(table["part"].to_pylist()) == "test"))
    for target in targets:
        outputs: dict[str, list[np.ndarray]] = {}
        spent: dict[str, list[Any]] = {}
        for name in inputs:
            for seed in seeds:
                run, facts_of_it = trained(table, TARGETS[target], INPUTS[name], seed, settings)
                outputs.setdefault(name, []).append(answers(run, rows))
                spent.setdefault(name, []).append(facts_of_it)
        truth = rows[TARGETS[target]["column"]].to_numpy()
        pairs = [("both", other) for other in inputs if other != "both" and "both" in inputs]
        print(
            json.dumps(
                {"benchmark": "fusion clothing", "target": target, "judge": judge, "rows": len(truth), "seeds": seeds,
                 "settings": settings, **estimates(outputs, truth, pairs), "spent": spent, **facts()}
            ), flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["clothing"])
    parser.add_argument("--judge", choices=["valid", "test"], default="test")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--inputs", nargs="+", default=list(INPUTS), choices=list(INPUTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--settings", type=json.loads, default={}, help="more settings, as JSON")
    arguments = parser.parse_args()
    run_clothing(arguments.judge, arguments.targets, arguments.inputs, arguments.seeds, arguments.settings)


if __name__ == "__main__":
    main()
