"""A student of a quarter of MiniLM's cost, taught by MiniLM fine-tuned and by labels alone: Banking77 and CLINC150.

    uv run python benchmarks/distil.py [banking clinc] [--seeds 0 1] [--ways all more few] [--work FOLDER] [--smoke]

The student is MiniLM with 2 of its 6 blocks and 384 of the 1,536 inner numbers of each, trained for 15 epochs either
way; CLINC150 without its out-of-scope rows; official test rows. Ways: ``all`` training rows have their label; a teacher
answers 10,000 texts of the other set too, which have none (``more``); one training row in ten, drawn by the seed, has
its label, from which the teacher and the student of labels alone learn, the taught one from all texts (``few``).
``--work`` keeps the runs, and takes those that are there. Prints one JSON line a seed, data set and way: accuracies;
points gained over labels alone (95 % interval by bootstrap of the paired test rows, p of McNemar's exact test); CPU
milliseconds of a row, teacher and student in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from scipy.stats import binomtest

import weft
from machine import DATA, Spent, in_turn, minilm

STUDENT = {"from": minilm(), "layers": 2, "ffn_width": 384}
WAYS = {"all": (1.0, 0), "more": (1.0, 10_000), "few": (0.1, 0)}
"""The share of the training rows that have their label, and how many texts of the other set are read without one."""
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


def few_labels(table: pa.Table, target: str, share: float, seed: int) -> pa.Table:
    """The table with the labels of a share of its training rows."""
    kept = np.random.default_rng(seed).random(len(table)) < share
    labelled = pc.or_(pa.array(kept), pc.not_equal(table["part"], "train"))
    found = pc.if_else(labelled, table[target], pa.scalar(None, table[target].type))
    return table.set_column(table.column_names.index(target), target, found)


def with_texts(table: pa.Table, target: str, other: pa.Table, count: int, seed: int) -> pa.Table:
    """The table and ``count`` texts of another one, without a label, to learn from."""
    texts = other.filter(pc.not_equal(other["part"], "test"))["text"]
    chosen = np.sort(np.random.default_rng(seed).choice(len(texts), min(count, len(texts)), replace=False))
    columns = {"text": texts.take(pa.array(chosen)), "part": pa.array(["train"] * len(chosen))}
    columns[target] = pa.nulls(len(chosen), pa.string())
    return pa.concat_tables([table, pa.table(columns).select(table.column_names).cast(table.schema)])


def gained(labels: np.ndarray, taught: np.ndarray) -> dict[str, object]:
    """Points that are gained, of which rows each says right [N], and whether that is chance."""
    difference = 100 * (taught.astype(float) - labels)
    draws = np.random.default_rng(0).integers(len(difference), size=(2_000, len(difference)))
    low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    return {"gain": round(difference.mean(), 2), "interval": [round(low, 2), round(high, 2)], "p": float(f"{p:.2g}")}


def measure(name: str, seed: int, way: str, work: Path, smoke: bool) -> dict[str, object]:
    sets = {"banking": banking, "clinc": clinc}
    table, target = sets.pop(name)(200 if smoke else None)
    share, more = WAYS[way]
    learnt = few_labels(table, target, share, seed)
    own = {"seed": seed, **({"epochs": 1} if smoke else {})}
    long, at = {**LONGER, **own}, f"{name}{seed}-{share:g}"
    teacher = train(learnt, target, work / f"{at}-teacher", {"from": minilm()}, own)
    runs = {"teacher": teacher, "labels": train(learnt, target, work / f"{at}-labels", STUDENT, long)}
    if more:
        (other,) = sets.values()
        learnt = with_texts(learnt, target, other(None)[0], 200 if smoke else more, seed)
    taught = {**long, "distil": {"from": str(teacher.path), "max_loss": 100}}
    runs["taught"] = train(learnt, target, work / f"{at}-taught{more or ''}", STUDENT, taught)
    test = table.filter(pc.equal(table["part"], "test"))
    truth = test[target].to_numpy()
    right = {n: np.array(r.predict(test)["prediction"].to_pylist()) == truth for n, r in runs.items()}
    accuracy = {n: round(float(found.mean()), 4) for n, found in right.items()}

    def reads(run: weft.pipeline.Run) -> int:
        run.predict(test)
        return len(test)

    rates = in_turn({n: partial(reads, runs[n]) for n in ("teacher", "taught")}, 1 if smoke else 5)
    return {
        **accuracy,
        "kept": round(accuracy["taught"] / accuracy["teacher"], 4),
        **gained(right["labels"], right["taught"]),
        "log_loss": {n: round(r.figures["models"][0]["metrics"]["log_loss"]["value"], 4) for n, r in runs.items()},
        "cpu_ms_a_row": {n: round(1000 / rate["a_cpu_second"], 3) for n, rate in rates.items()},
        "parameters": {n: r.figures["model"]["parameters"] for n, r in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["banking", "clinc"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--smoke", action="store_true", help="few rows, one epoch: that it runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seed in given.seeds:
            for name in given.sets:
                for way in given.ways:
                    spent = Spent()
                    found = measure(name, seed, way, given.work or Path(folder), given.smoke)
                    said = {"benchmark": "distil", "data": name, "seed": seed, "way": way}
                    print(json.dumps({**said, **found, **spent.figures()}), flush=True)


if __name__ == "__main__":
    main()
