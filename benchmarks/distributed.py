"""Tokens a second of one training on 1, 2 and 4 processes, each pinned to a core of its own, and whether they agree.

    uv run python benchmarks/distributed.py [--rounds 3] [--steps 8]

One JSON line for each layout: tokens a second by the clock and by the processor's seconds of all processes (medians of
the rounds), the efficiency beside one process (its tokens a second times the processes), and the largest difference of
a weight after the training. The same 16 rows of 256 tokens a step, float32, AdamW; the machine's load at the start is
in every line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from weft import processes
from weft.features.pieces import TextBatch
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.language import TokenObjective
from weft.training.loop import Loop, Recipe
from weft.training.team import joined
from weft.training.tracking import Tracker

ROWS, LENGTH, VOCABULARY = 16, 256, 4_096
SHAPE = TransformerConfig(256, 4, 4, attention="writing")
RECIPE = Recipe(epochs=1, batch_rows=ROWS, learning_rate=1e-3, weight_decay=0.1, patience=99, average=0.9,
                bfloat16=False, seed=0)  # fmt: skip


class Timed(Loop):
    """A loop that keeps what its steps took: by the clock, and of this process's processor."""

    def _step(self, rows: np.ndarray) -> None:
        before = time.perf_counter(), time.process_time()
        super()._step(rows)
        self.took = [*getattr(self, "took", []), (time.perf_counter() - before[0], time.process_time() - before[1])]


def work(folder: Path, steps: int) -> None:
    """What each process does: the layouts one after the other."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[processes.number_here()]})
    torch.set_num_threads(1)
    ids = torch.randint(0, VOCABULARY, (ROWS * steps, LENGTH), generator=torch.Generator().manual_seed(0))

    def batch(rows: np.ndarray, epoch: int = 0) -> TextBatch:
        return TextBatch(ids[rows], ids[rows].roll(-1, 1))

    count, looks = processes.count(), itertools.count()  # the last weights are always the best
    layouts: dict[str, dict[str, Any]] = (
        {"rows": {}, "shard": {"shard": True}, "tensor": {"tensor": count}} if count > 1 else {"rows": {}}
    )
    with joined():
        for name, layout in layouts.items():
            torch.manual_seed(0)
            objective = TokenObjective(LanguageModel(LanguageConfig(SHAPE, VOCABULARY)))
            here = folder / f"{count} {name}"
            here.mkdir(exist_ok=True)
            loop = Timed(
                objective, replace(RECIPE, **layout), batch, np.arange(len(ids)), None, lambda model: -next(looks),
                Tracker(here), Checkpoints(here / "checkpoints"), Silent(), weigh=lambda b: float(b.ids_BT.numel()),
            )  # fmt: skip
            loop.run()
            clock, own = (statistics.median(t[i] for t in loop.took[1:]) for i in (0, 1))
            total = float(loop.team.add_up(torch.tensor(own))) * getattr(loop.team, "tensor", 1)
            if not processes.number():
                save_file(dict(objective.state_dict()), here / "weights.safetensors")
                (here / "took.json").write_text(json.dumps([clock, total]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work, asked.steps)
        return
    took: dict[str, list[Any]] = {}
    differs: dict[str, float] = {}
    load = os.getloadavg()[0]
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as place:
            for count in (1, 2, 4):
                command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}",
                           __file__, "--work", place, "--steps", str(asked.steps)]  # fmt: skip
                subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            one = load_file(Path(place) / "1 rows" / "weights.safetensors")
            for here in sorted(Path(place).iterdir()):
                took.setdefault(here.name, []).append(json.loads((here / "took.json").read_text()))
                own = load_file(here / "weights.safetensors")
                differs[here.name] = max(float((own[n] - one[n]).abs().max()) for n in one)
    rates = {n: [ROWS * LENGTH / statistics.median(t[i] for t in ts) for i in (0, 1)] for n, ts in took.items()}
    for name, (clock, own) in rates.items():
        count = int(name.split()[0])
        print(json.dumps({
            "processes": count, "layout": name.split()[1], "tokens_a_second": round(clock),
            "efficiency": round(clock / (count * rates["1 rows"][0]), 3),
            "tokens_a_processor_second": round(own), "processor_efficiency": round(own / rates["1 rows"][1], 3),
            "weights_differ_by": differs[name], "load": round(load, 1), "torch": torch.__version__,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
