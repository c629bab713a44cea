"""What a language model gains and loses when it goes on to another language: Shakespeare, then Chinese poems.

    uv run python benchmarks/kept.py [--minutes 5]

One JSON line: bits per byte on the test texts of both, before and after the poems; one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

import weft
from machine import DATA, Spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    minutes = parser.parse_args().minutes
    torch.set_num_threads(1)
    spent = Spent()
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
            "shakespeare": kept["old"], **spent.figures(),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
