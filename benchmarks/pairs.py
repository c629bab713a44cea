"""Vectors learnt from pairs of texts, judged by how often a query finds its own text among all test texts.

    uv run python benchmarks/pairs.py [paragraphs translation] [--minutes 10] [--seed 0]

``paragraphs``: MiniLM goes on learning from XQuAD's English questions and the paragraphs that answer them; whole
articles are kept for the test. ``translation``: a model that begins from nothing learns from 25,000 English sentences
and their Chinese translations; the given test split. One JSON line each; one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

import weft
from machine import DATA, Spent, minilm


def settings(way: str) -> tuple[Path, str, dict[str, Any]]:
    """The data, the target and the rest of a way."""
    if way == "paragraphs":
        return DATA / "xquad.en.json", "context", {
            "features": {"question": "text"}, "model": {"from": minilm()}, "data": {"split": {"by": "title"}},
        }  # fmt: skip
    return DATA / "translation_en_zh.parquet", "zh", {
        "features": {"en": "text"}, "data": {"split": {"column": "split"}}, "model": {"width": 192, "layers": 3},
    }  # fmt: skip


def once(way: str, minutes: float, seed: int) -> dict[str, object]:
    """Train one way and judge it on its test rows."""
    source, target, rest = settings(way)
    spent = Spent()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            source, {"column": target, "type": "embedding"}, Path(folder) / "run", quiet=True,
            training={"minutes": minutes, "seed": seed, **({"epochs": 4} if "from" in rest.get("model", {}) else {})},
            **rest,
        )  # fmt: skip
        return {
            "benchmark": "pairs", "way": way, "seed": seed, "epochs": run.figures["model"]["epochs"],
            "stopped": run.figures["model"]["stopped"], "parameters": run.figures["model"]["parameters"],
            "queries": run.figures["rows_judged"], "documents": run.figures["pairs"]["documents"],
            "figures": {
                m["title"]: {k: round(e["value"], 4) for k, e in m["metrics"].items()} for m in run.figures["models"]
            },
            "recall_at_1_interval": run.figures["models"][0]["metrics"]["recall_at_1"],
            **spent.figures(),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["paragraphs", "translation"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for way in arguments.ways:
        print(json.dumps(once(way, arguments.minutes, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
