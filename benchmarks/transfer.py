"""NusaX sentiment: trained on one of twelve languages, tested on all of them.

    uv run python benchmarks/transfer.py [minilm scratch] [--languages english indonesian ...] [--seed 0]

MiniLM fine-tuned and the same task from scratch, by default settings; beside each cell the floor, a logistic regression
on TF-IDF (scikit-learn's defaults, as in every report) that learnt from the same rows. Three classes, 500 rows to learn
from, 100 to watch and 400 to be judged on, of each language. Prints one JSON line a way and training language.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from sklearn.metrics import f1_score

import weft
from machine import DATA, minilm
from weft.results import baselines

CLASSES = ["negative", "neutral", "positive"]


def rows(table: pa.Table, language: str, *parts: str) -> pa.Table:
    of_part = pc.is_in(table["split"], pa.array(parts, table["split"].type))
    return table.filter(pc.and_(pc.equal(table["language"], language), of_part))


def judged(guess: np.ndarray, test: pa.Table) -> dict[str, float]:
    """Accuracy and macro F1 of guessed class names."""
    truth = test["label"].to_numpy().astype(str)
    f1 = f1_score(truth, guess, average="macro", labels=CLASSES)
    return {"accuracy": round(float((guess == truth).mean()), 4), "f1": round(float(f1), 4)}


def weft_on(table: pa.Table, language: str, languages: list[str], way: str, seed: int) -> dict[str, dict[str, float]]:
    mine = rows(table, language, "train", "valid", "test").select(["text", "label", "split"])
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            mine, "label", Path(folder) / "run", quiet=True, features={"text": "text"},
            model={"from": minilm()} if way == "minilm" else {}, data={"split": {"column": "split"}},
            training={"seed": seed}, results={"baselines": False},
        )  # fmt: skip
        tests = {other: rows(table, other, "test") for other in languages}
        return {o: judged(run.predict(t)["prediction"].to_numpy().astype(str), t) for o, t in tests.items()}


def floor_on(table: pa.Table, language: str, languages: list[str]) -> dict[str, dict[str, float]]:
    pool = rows(table, language, "train", "valid")
    codes = np.array([CLASSES.index(c) for c in pool["label"].to_pylist()])
    tests = {other: rows(table, other, "test") for other in languages}
    together = pa.concat_tables(tests.values())
    columns = [{"text": t["text"].combine_chunks().cast(pa.string())} for t in (pool, together)]
    output = baselines.linear({"text": "text"}, columns[0], codes, columns[1], len(CLASSES)).output
    guess = np.array(CLASSES)[output.argmax(axis=1)]
    ends = np.cumsum([0, *(len(t) for t in tests.values())])
    return {o: judged(guess[ends[i] : ends[i + 1]], t) for i, (o, t) in enumerate(tests.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=["minilm", "scratch"], help="minilm, scratch")
    parser.add_argument("--languages", nargs="*", help="to train on; default: all twelve")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = pq.read_table(DATA / "sentiment_multilingual.parquet")
    languages = sorted(pc.unique(table["language"]).to_pylist())
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}
    for way in ["floor", *given.ways]:
        for language in given.languages or languages:
            started = time.monotonic()
            if way == "floor":
                found = floor_on(table, language, languages)
            else:
                found = weft_on(table, language, languages, way, given.seed)
            seconds = round(time.monotonic() - started, 1)
            line = {"benchmark": "transfer", "way": way, "trained_on": language, "seed": given.seed, "tested_on": found}
            print(json.dumps({**line, "seconds": seconds, **machine}), flush=True)


if __name__ == "__main__":
    main()
