"""What a language model gains and loses when it goes on to another language: Shakespeare, then Chinese poems.

    uv run python benchmarks/kept.py [--minutes 5]

One JSON line: bits per byte on the test texts of both, before and after the poems; one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

import weft

DATA = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    minutes = parser.parse_args().minutes
    torch.set_num_threads(1)
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        first = weft.train(
            DATA / "shakespeare.txt", {"next_token": "text"}, Path(folder) / "shakespeare", quiet=True,
            model={"width": 128, "layers": 4}, training={"minutes": minutes, "batch_rows": 8},
        )  # fmt: skip
        second = weft.train(
            DATA / "poems_zh.parquet", {"next_token": "text"}, Path(folder) / "poems", quiet=True,
            model={"from": str(first.path)}, training={"minutes": minutes, "batch_rows": 8},
        )  # fmt: skip
        kept = second.figures["kept"]
        print(json.dumps({
            "benchmark": "kept", "minutes_each": minutes, "parameters": second.figures["model"]["parameters"],
            "epochs": [r.figures["model"]["epochs"] for r in (first, second)], "poems": kept["new"],
            "shakespeare": kept["old"], "seconds": round(time.monotonic() - started),
            "cpu_seconds": round(time.process_time() - cpu),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__,
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
