"""CLINC150 (150 intents, official splits): MiniLM fine-tuned, and what it does with questions of no intent.

    uv run python benchmarks/abstention.py [taught untaught] [--seeds 1]

``taught`` also learns from the 100 out-of-scope training rows (uniform targets); ``untaught`` does not see them. The
threshold answers 95 % of the in-scope validation rows; the 100 out-of-scope validation rows choose the score. Judged on
4,500 rows in scope and 1,000 out of scope. Prints one JSON line a way and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

import weft
from machine import DATA, minilm


def once(way: str, seed: int) -> dict[str, object]:
    table = pq.read_table(DATA / "clinc150.parquet")
    table = table.set_column(2, "split", table["split"].cast(pa.string()))
    if way == "untaught":
        table = table.filter(pc.not_equal(table["split"], "oos_train"))
    table = table.set_column(2, "split", pc.replace_substring(table["split"], "oos_", ""))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            table, {"column": "intent", "coverage": 0.95, "out_of_scope": "oos"}, Path(folder) / "run", quiet=True,
            model={"from": minilm()}, features={"text": "text"}, data={"split": {"column": "split"}},
            training={"seed": seed}, results={"baselines": seed == 0},
        )  # fmt: skip
        says = run.figures["declines"]
        del says["curve"]
        return {
            "benchmark": "abstention", "way": way, "seed": seed,
            "accuracy": run.figures["models"][0]["metrics"]["accuracy"], **says,
            "chosen": run.figures["model"]["declines"], "epochs": run.figures["model"]["epochs"],
            "training_seconds": run.figures["models"][0]["seconds"], "seconds": round(time.monotonic() - started),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=["taught", "untaught"])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    for way in given.ways:
        for seed in range(given.seeds):
            print(json.dumps(once(way, seed)), flush=True)


if __name__ == "__main__":
    main()
