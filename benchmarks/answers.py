"""XQuAD: MiniLM learns to answer English questions, and is asked the same questions in English and in Chinese.

    uv run python benchmarks/answers.py [plain none] [--epochs 5] [--minutes 35] [--seed 0]

``plain``: the 1,190 questions as they are; whole articles are kept for the test. ``none``: every second question is
asked of another paragraph of its article, which does not hold the answer, so that silence is right. One JSON line each;
one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import weft
from machine import DATA, Spent, minilm
from weft.data.split import TEST
from weft.data.table import Table


def questions(language: str, none: bool) -> pa.Table:
    """A language's questions; with ``none`` every second one with the next paragraph of its article that lacks the
    answer."""
    table = Table.open(DATA / f"xquad.{language}.json").head(10_000)
    if not none:
        return table
    rows = table.to_pylist()
    paragraphs: dict[str, list[str]] = {}
    for row in rows:
        if row["context"] not in paragraphs.setdefault(row["title"], []):
            paragraphs[row["title"]].append(row["context"])
    for row in rows[::2]:
        others = [c for c in paragraphs[row["title"]] if row["answer"].lower() not in c.lower()]
        if others:
            row |= {"context": others[0], "answer": None, "answer_start": None}
    return pa.Table.from_pylist(rows, table.schema)


def once(way: str, epochs: int, minutes: float, seed: int) -> dict[str, object]:
    """Train on English, judge on the test articles in both languages."""
    english, chinese = (questions(language, way == "none") for language in ("en", "zh"))
    spent = Spent()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            english, {"column": "answer", "type": "span"}, Path(folder) / "run", quiet=True,
            features={"question": "text", "context": "text"}, model={"from": minilm()},
            data={"split": {"by": "title"}}, training={"epochs": epochs, "minutes": minutes, "seed": seed},
        )  # fmt: skip
        figures = spent.figures()
        parts = np.load(run.path / "split.npy", allow_pickle=False)
        test = set(english.filter(pa.array(parts == TEST))["title"].to_pylist())
        same = chinese.filter(pa.array([t in test for t in chinese["title"].to_pylist()]))
        models = {m["title"]: short(m["metrics"]) for m in run.figures["models"]}
        return {
            "benchmark": "answers", "way": way, "seed": seed, "epochs": run.figures["model"]["epochs"],
            "stopped": run.figures["model"]["stopped"],
            "split": run.figures["data"]["split"], "english": models,
            "chinese": short(run.evaluate(same)["metrics"]), "chinese_rows": len(same),
            "threshold": run.figures["answers"]["threshold"],
            **figures,
        }  # fmt: skip


def short(metrics: dict[str, dict[str, float]]) -> dict[str, str]:
    """Each figure with its interval, in percent."""
    return {k: f"{100 * e['value']:.1f} ({100 * e['low']:.1f} to {100 * e['high']:.1f})" for k, e in metrics.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["plain", "none"])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for way in arguments.ways:
        print(json.dumps(once(way, arguments.epochs, arguments.minutes, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
