"""What each tool against over-fitting is worth: one setting of ``training`` at a time, on small and larger texts.

    uv run python benchmarks/overfitting.py [DATA ...] [--tools plain mixup ...] [--seeds 0 1 2] [--through RUN RUN]
        [--epochs 40]

``--through``: a run that translates the texts away and one back, for the tools back-translation (half of the rows an
epoch) and back-translation-fifth.
One JSON line a table, tool and seed: accuracy and log loss on the test rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import torch

import weft
from machine import DATA, minilm

TOOLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "delete": {"augment": {"delete": 0.1}},
    "swap": {"augment": {"swap": 0.1}},
    "typo": {"augment": {"typo": 0.1}},
    "mask": {"augment": {"mask": 0.15}},
    "words": {"augment": {"delete": 0.1, "swap": 0.05, "typo": 0.05, "mask": 0.1}},
    "mixup": {"mixup": 0.2},
    "consistency": {"consistency": 1.0},
    "consistency-5": {"consistency": 1.0, "epochs": 5, "batch_rows": 64},
    "early": {"dropout_schedule": "early"},
    "late": {"dropout_schedule": "late"},
    "rising": {"dropout_schedule": "rising"},
}
SHARES = {"back-translation": 0.5, "back-translation-fifth": 0.2}


def nusax() -> pa.Table:
    """NusaX reviews in English: 500 rows to learn from, 100 watched, 400 judged; three classes."""
    table = pq.read_table(DATA / "sentiment_multilingual.parquet")
    table = table.filter(pa.array(np.array(table["language"].to_pylist()) == "english"))
    return pa.table({"text": table["text"], "answer": table["label"], "part": table["split"]})


def clinc(rows: int | None = None, classes: int = 150) -> pa.Table:
    """CLINC150 in scope, official split; ``rows``: the first so many of each class to learn from, half to watch;
    ``classes``: the first so many by their names.
    """
    table = pq.read_table(DATA / "clinc150.parquet")
    part = np.array(table["split"].to_pylist(), dtype=object)
    keep = np.isin(part, ("train", "val", "test"))
    names = np.array(table["intent"].to_pylist(), dtype=object)
    keep &= np.isin(names, np.unique(names[keep])[:classes])
    if rows is not None:
        seen: dict[tuple[str, str], int] = {}
        most = {"train": rows, "val": rows // 2}
        for i in np.flatnonzero(keep):
            key = (part[i], names[i])
            seen[key] = seen.get(key, 0) + 1
            keep[i] = seen[key] <= most.get(part[i], len(part))
    part[part == "val"] = "valid"
    made = pa.table({"text": table["text"], "answer": table["intent"], "part": list(part)})
    return made.filter(pa.array(keep))


def banking() -> pa.Table:
    """Banking77, official split."""
    parts = []
    for part in ("train", "test"):
        table = pacsv.read_csv(DATA / f"banking77_{part}.csv")
        parts.append(pa.table({"text": table["text"], "answer": table["category"], "part": [part] * len(table)}))
    return pa.concat_tables(parts)


TABLES: dict[str, tuple[Any, bool]] = {
    "nusax": (nusax, True),
    "nusax-scratch": (nusax, False),
    "clinc-500": (lambda: clinc(25, 20), True),
    "clinc-500-scratch": (lambda: clinc(25, 20), False),
    "clinc-10": (lambda: clinc(10), True),
    "clinc-10-scratch": (lambda: clinc(10), False),
    "clinc": (clinc, True),
    "banking": (banking, True),
    "banking-scratch": (banking, False),
}


def once(name: str, tool: str, seed: int, epochs: int | None = None) -> dict[str, object]:
    """Train on one table with one tool and seed."""
    make, checkpoint = TABLES[name]
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            make(), "answer", Path(folder) / "run", quiet=True, model={"from": minilm()} if checkpoint else {},
            features={"text": "text"}, data={"split": {"column": "part"}},
            training={"seed": seed, "epochs": epochs, **TOOLS[tool]}, results={"baselines": False},
        )  # fmt: skip
        metrics = run.figures["models"][0]["metrics"]
        return {
            "benchmark": "overfitting", "table": name, "tool": tool, "seed": seed,
            "accuracy": round(metrics["accuracy"]["value"], 4), "log_loss": round(metrics["log_loss"]["value"], 4),
            "epochs": run.figures["model"]["epochs"],
            "back_translation": {k: v for k, v in (run.figures["back_translation"] or {}).items() if k != "samples"},
            "training_seconds": round(run.figures["seconds"]["model"]),
            "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - cpu),
            "threads": torch.get_num_threads(),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=["nusax", "nusax-scratch", "clinc-10"])
    parser.add_argument("--tools", nargs="+", choices=[*TOOLS, *SHARES])
    parser.add_argument("--through", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    if arguments.through:
        for name, share in SHARES.items():
            TOOLS[name] = {"augment": {"back_translation": {"through": arguments.through, "share": share}}}
    for name in arguments.tables:
        for seed in arguments.seeds:
            for tool in arguments.tools or TOOLS:
                print(json.dumps(once(name, tool, seed, arguments.epochs)), flush=True)


if __name__ == "__main__":
    main()
