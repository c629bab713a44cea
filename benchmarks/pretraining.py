"""Language models from nothing: Shakespeare's characters and Chinese poems, Transformer and LSTM, in given minutes.

    uv run python benchmarks/pretraining.py shakespeare|poems [--backbone rnn] [--minutes 10] [--threads 4]
        [--set model.width=256 ...] [-o RUN]

One JSON line: nats a letter and bits a byte on the validation texts (Shakespeare: the last 10 % of the characters,
as nanoGPT splits them; poems: 5 % by hash of the text), parameters, minutes, CPU minutes, tokens a second; samples
go to stderr. The validation texts also choose the best step, as in the recipes compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data"


def shakespeare() -> tuple[Any, dict[str, Any]]:
    """Nine tenths of the characters and the last tenth, each cut at the same places as nanoGPT's prepare.py."""
    import pyarrow as pa

    text = (DATA / "shakespeare.txt").read_text()
    cut = int(len(text) * 0.9)
    size = -(-cut // 9)
    parts = [text[start : min(start + size, cut)] for start in range(0, cut, size)] + [text[cut:]]
    table = pa.table({"text": parts, "place": list(range(10))})
    return table, {"split": {"time": "place", "test": 0.0, "valid": 0.1}}


def poems() -> tuple[Any, dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(DATA / "poems_zh.parquet", columns=["text"])
    return table, {"split": {"by": "text", "test": 0.0, "valid": 0.05}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["shakespeare", "poems"])
    parser.add_argument("--backbone", default="transformer")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("-o", "--out")
    given = parser.parse_args()
    import torch

    from weft import config, pipeline
    from weft.data.table import Table
    from weft.progress import Spoken

    torch.set_num_threads(given.threads)
    table, data = {"shakespeare": shakespeare, "poems": poems}[given.what]()
    model = {"backbone": given.backbone} | ({"cell": "lstm"} if given.backbone == "rnn" else {})
    settings = config.dumps(config.from_mapping({
        "data": data, "target": {"next_token": "text"}, "model": model,
        "features": {"text": {"type": "text", "vocabulary": "characters"}},
        "training": {"minutes": given.minutes}, "results": {"baselines": False},
    }))  # fmt: skip
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        loaded = config.loads(settings, changes=given.set, needs_source=False)
        run = pipeline.run(loaded, Table.of(table), given.out or Path(folder) / "run", Spoken())
        metrics = run.figures["models"][0]["metrics"]
        for sample in run.figures["samples"]:
            print(sample["prompt"] + "|" + sample["text"], end="\n---\n", file=sys.stderr)
        made = run.figures["model"]
        print(json.dumps({
            "benchmark": "pretraining", "what": given.what, "backbone": made["shape"],
            "nats_per_letter": round(metrics["nats_per_letter"]["value"], 4),
            "bits_per_letter": round(metrics["bits_per_letter"]["value"], 4),
            "bits_per_byte": round(metrics["bits_per_byte"]["value"], 4),
            "parameters": made["parameters"], "epochs": made["epochs"], "tokens_a_second": made["tokens_a_second"],
            "minutes": round((time.monotonic() - started) / 60, 1),
            "cpu_minutes": round((time.process_time() - cpu) / 60, 1),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "set": given.set, "torch": torch.__version__,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
