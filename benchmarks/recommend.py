"""The next page that somebody edits: Wikipedia interactions, each user's last one kept for the test, all items ranked.

    uv run python benchmarks/recommend.py [weft rnn transformer] [--minutes 6] [--epochs 14] [--seeds 0 1 2]

``weft`` is what `weft run` trains on a GRU, ``transformer`` on the default backbone; ``rnn`` a GRU of that size which
says the next item from its state alone (the idea of GRU4Rec), without what is said of items that come back. Popularity,
neighbours, Markov and the user's own past stand beside ``weft``. As many minutes each on one thread, or as many passes
where other work takes the minutes; one JSON line a run, with its CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import weft
from weft import defaults
from weft.models.ranking import RankingConfig
from weft.tasks import ranking as task

DATA = Path(__file__).parents[2] / "shared" / "data" / "interactions_wikipedia.txt"
KEYS = ("hit_at_10", "ndcg_at_10", "mrr", "hit_at_1", "coverage", "popularity", "gini")
WAYS: dict[str, dict[str, Any]] = {
    "weft": {"backbone": "rnn"}, "transformer": {}, "rnn": {"backbone": "rnn", "width": 68},
}  # fmt: skip


def events() -> pa.Table:
    """The interactions in the order of time."""
    user, item = np.loadtxt(DATA, dtype=np.int64).T
    return pa.table({"user": user, "item": item})


def alone(settings: Any, *rest: Any) -> RankingConfig:
    """The same shape without the path for items that come back."""
    return RankingConfig(**{**vars(SHAPE(settings, *rest)), "repeats": False})


SHAPE = defaults.ranking_config
TASK: Any = task


def once(way: str, length: dict[str, Any], seed: int) -> dict[str, object]:
    """Train one way and judge it on each user's last event."""
    TASK.ranking_config = alone if way == "rnn" else SHAPE
    started, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = weft.train(
            events(), {"column": "item", "type": "ranking", "user": "user"}, Path(folder) / "run", quiet=True,
            model=WAYS[way], training={**length, "seed": seed, "patience": 100},
            results={"baselines": way == "weft"},
        )  # fmt: skip
        f = run.figures
        return {
            "benchmark": "recommend", "way": way, "seed": seed, **length, "model": f["model"],
            "users": f["rows_judged"], "items": f["ranking"]["catalogue"], "taken": f["ranking"]["taken_words"],
            "figures": {m["key"]: {k: round(m["metrics"][k]["value"], 4) for k in KEYS} for m in f["models"]},
            "intervals": {k: f["models"][0]["metrics"][k] for k in KEYS[:4]}, "differences": f["differences"],
            "seconds": round(time.monotonic() - started), "cpu_seconds": round(time.process_time() - cpu),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "torch": torch.__version__,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=["weft", "rnn"])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--epochs", type=int, help="passes, in the place of minutes")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for way in arguments.ways:
            length = {"epochs": arguments.epochs} if arguments.epochs else {"minutes": arguments.minutes}
            print(json.dumps(once(way, length, seed)), flush=True)


if __name__ == "__main__":
    main()
