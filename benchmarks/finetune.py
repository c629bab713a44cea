"""Banking77 (official split) by default settings: MiniLM fine-tuned in full, by LoRA, and the same task from scratch.

    uv run python benchmarks/finetune.py [full lora scratch] [--seeds 3] [--rows N]

One JSON line a way and seed: test accuracy, trained parameters, seconds, CPU seconds, peak memory of the process.
``--rows`` learns from only N of the training rows, drawn with the seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import DATA, Spent, minilm


def once(way: str, seed: int, rows: int | None) -> dict[str, object]:
    """Train one way with one seed, in this process."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    import weft

    parts = []
    for part in ("train", "test"):
        table = pacsv.read_csv(DATA / f"banking77_{part}.csv")
        if rows is not None and part == "train":
            table = table.take(np.random.default_rng(seed).permutation(len(table))[:rows])
        parts.append(table.append_column("part", pa.array([part] * len(table))))
    model = {"full": {"from": minilm()}, "lora": {"from": minilm(), "adapter": "lora"}, "scratch": {}}[way]
    spent = Spent()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            pa.concat_tables(parts), "category", Path(folder) / "run", quiet=True, model=model,
            features={"text": "text"}, data={"split": {"column": "part"}}, training={"seed": seed},
            results={"baselines": False},
        )  # fmt: skip
        metrics = run.figures["models"][0]["metrics"]
        return {
            "benchmark": "finetune", "way": way, "seed": seed, "accuracy": round(metrics["accuracy"]["value"], 4),
            "log_loss": round(metrics["log_loss"]["value"], 4), "parameters": run.figures["model"]["parameters"],
            "trained": run.figures["model"]["trained"], "epochs": run.figures["model"]["epochs"],
            **spent.figures(),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["full", "lora", "scratch"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(once(arguments.ways[0], arguments.one, arguments.rows)), flush=True)
        return
    for way in arguments.ways:
        for seed in range(arguments.seeds):  # a process of its own each, for its own peak of memory
            command = [sys.executable, __file__, way, "--one", str(seed)]
            subprocess.run([*command, *(["--rows", str(arguments.rows)] if arguments.rows else [])], check=True)


if __name__ == "__main__":
    main()
