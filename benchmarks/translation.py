"""English to Chinese (29,155 pairs of Tatoeba, CC BY 2.0 FR, given split): a Transformer, an LSTM, a word list.

    uv run python benchmarks/translation.py [transformer lstm simple] [--minutes 32]

One JSON line a way: BLEU (sacrebleu's zh tokenizer) and chrF on all test rows with 95 % intervals, perplexity on the
references, minutes of wall clock and of CPU of the training, ten texts written for rows taken at even distances.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import weft
from weft.results.text import TextScores
from weft.results.writing import simple_writers
from weft.runs.texts import TextRun

DATA = Path(__file__).parents[2] / "shared" / "data" / "translation_en_zh.parquet"
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"width": 192, "layers": 4},
    "lstm": {"backbone": "rnn", "cell": "lstm", "width": 304, "layers": 2},
}


def trained(way: str, minutes: float) -> dict[str, Any]:
    """Train one model and judge it on the test rows, greedily."""
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            str(DATA), {"column": "zh", "type": "text"}, Path(folder) / "run", quiet=True, features={"en": "text"},
            data={"split": {"column": "split"}}, model=MODELS[way],
            training={"minutes": minutes, "batch_rows": 64}, results={"baselines": False},
        )  # fmt: skip
        figures = run.figures
        minutes, cpu_minutes = (time.monotonic() - started) / 60, (time.process_time() - cpu) / 60
        assert isinstance(run, TextRun)
        run.beams = 4
        beams = run.evaluate(str(DATA))["metrics"]
        return {
            "parameters": figures["model"]["parameters"], "epochs": figures["model"]["epochs"],
            "metrics": figures["models"][0]["metrics"], "metrics_4_beams": beams, "signatures": figures["signatures"],
            "minutes": round(minutes, 1), "cpu_minutes": round(cpu_minutes, 1), "rows": figures["rows_judged"],
            "texts": [[s["source"], s["text"], s["reference"]] for s in figures["samples"]],
        }  # fmt: skip


def simple() -> dict[str, Any]:
    """The word list and the source itself, on the same rows."""
    rows = pq.read_table(DATA).to_pylist()
    learnt = [(r["en"], r["zh"]) for r in rows if r["split"] == "train"]
    judged = [r for r in rows if r["split"] == "test"]
    found = simple_writers(learnt, [r["en"] for r in judged], [r["zh"] for r in judged])
    scores = TextScores()
    scores.add([r["en"] for r in judged[:1]], [[judged[0]["zh"]]])
    return {"rows": len(judged), "models": {w["key"]: w["metrics"] for w in found}, "signatures": scores.signatures()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["transformer", "lstm", "simple"])
    parser.add_argument("--minutes", type=float, default=32)
    arguments = parser.parse_args()
    for way in arguments.ways:
        done = simple() if way == "simple" else trained(way, arguments.minutes)
        where = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__}
        print(json.dumps({"benchmark": "translation", "way": way, **done, **where}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
