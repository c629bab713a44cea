"""Classes that nothing was learnt for, told by their names: Banking77 and NusaX with the real MiniLM.

    uv run python benchmarks/zero_shot.py

One JSON line a task: accuracy on the official test split with its 95 % interval, beside the most frequent class of the
training split and the share of rows of each class.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from machine import minilm
from weft.exchange import open_text_model
from weft.inference.embed import Embedder
from weft.inference.zero_shot import ByMeaning, described
from weft.results.metrics import class_metrics, with_intervals

DATA = Path(__file__).parents[2] / "shared" / "data"
SENTENCES = {
    "negative": "a negative review of a bad experience",
    "neutral": "a neutral statement of facts",
    "positive": "a positive review of a good experience",
}


def judge(task: str, labels: dict[str, str], texts: list[str], truth: list[str], train: list[str]) -> None:
    started = time.monotonic()
    classes = list(labels)
    probabilities, _ = ByMeaning(Embedder(open_text_model(Path(minilm()))), labels)(texts)
    codes = np.array([classes.index(c) for c in truth])
    metrics = class_metrics(probabilities, codes, None)
    found = with_intervals({k: metrics[k] for k in ("accuracy", "f1", "log_loss", "ece")}, len(codes))
    frequent = Counter(train).most_common(1)[0][0]
    print(json.dumps({
        "benchmark": "zero_shot", "task": task, "rows": len(texts), "classes": len(classes),
        **{k: [round(v, 4) for v in (e.value, e.low, e.high)] for k, e in found.items()},
        "majority": round(truth.count(frequent) / len(truth), 4), "seconds": round(time.monotonic() - started, 1),
    }), flush=True)  # fmt: skip


def main() -> None:
    train, test = (pacsv.read_csv(DATA / f"banking77_{part}.csv") for part in ("train", "test"))
    classes = sorted(set(train["category"].to_pylist()))
    known = train["category"].to_pylist()
    texts, truth = test["text"].to_pylist(), test["category"].to_pylist()
    judge("banking77, names", {c: described(c) for c in classes}, texts, truth, known)
    table = pq.read_table(DATA / "sentiment_multilingual.parquet")
    table = table.filter(pc.is_in(table["language"], value_set=pa.array(["english"], "large_string")))
    train, test = (table.filter(pc.equal(table["split"], part)) for part in ("train", "test"))
    known = train["label"].to_pylist()
    texts, truth = test["text"].to_pylist(), test["label"].to_pylist()
    judge("nusax english, names", {c: described(c) for c in SENTENCES}, texts, truth, known)
    judge("nusax english, sentences", SENTENCES, texts, truth, known)


if __name__ == "__main__":
    main()
