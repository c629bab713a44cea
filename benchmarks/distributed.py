"""Tokens a second of one training on 1, 2 and 4 processes, each pinned to a core of its own, and whether they agree.

    uv run python benchmarks/distributed.py [--rounds 3] [--steps 8]
    uv run python benchmarks/distributed.py --memory

One JSON line for each layout: tokens a second by the clock and by the processor's seconds of all processes (medians of
the rounds), the efficiency beside one process (its tokens a second times the processes), and the largest difference of
a weight after the training. The same 16 rows of 256 tokens a step, float32, AdamW; the machine's load at the start is
in every line.

With --memory: the most memory of its own (mapped files aside) that the first process and any other has, in MB more than
after the imports, while 69 million parameters are made and cut (start), learn for two steps (training), and are put
together, saved and read with (end); from nothing with AdamW, and from a checkpoint with adapters. 4 GB in all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from weft import processes
from weft.features.pieces import TextBatch
from weft.memory import limit
from weft.models.checkpoints import save_hf
from weft.models.deferred import deferred
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.pretrained import load_text_model
from weft.models.transformer import TransformerConfig
from weft.progress import Silent
from weft.training.adapters import attach, merge
from weft.training.checkpoint import Checkpoints
from weft.training.language import TokenObjective
from weft.training.loop import Loop, Progress, Recipe
from weft.training.team import joined
from weft.training.tracking import Tracker

ROWS, LENGTH, VOCABULARY = 16, 256, 4_096
LARGE = 16_384
SHAPE = TransformerConfig(256, 4, 4, attention="writing")
RECIPE = Recipe(epochs=1, batch_rows=ROWS, learning_rate=1e-3, weight_decay=0.1, patience=99, average=0.9,
                bfloat16=False, seed=0)  # fmt: skip


class Timed(Loop):
    """A loop that keeps what its steps took: by the clock, and of this process's processor."""

    def _step(self, rows: np.ndarray) -> None:
        before = time.perf_counter(), time.process_time()
        super()._step(rows)
        self.took = [*getattr(self, "took", []), (time.perf_counter() - before[0], time.process_time() - before[1])]


def falling() -> Callable[[Any, Any], float]:
    """A validation loss by which the last weights are always the best."""
    looks = itertools.count()
    return lambda model, team: -float(next(looks))


def work(folder: Path, steps: int) -> None:
    """What each process does: the layouts one after the other."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[processes.number_here()]})
    torch.set_num_threads(1)
    ids = torch.randint(0, VOCABULARY, (ROWS * steps, LENGTH), generator=torch.Generator().manual_seed(0))

    def batch(rows: np.ndarray, epoch: int = 0) -> TextBatch:
        return TextBatch(ids[rows], ids[rows].roll(-1, 1))

    count = processes.count()
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
                objective, replace(RECIPE, **layout), batch, np.arange(len(ids)), None,
                falling(), Tracker(here), Checkpoints(here / "checkpoints"), Silent(),
                weigh=lambda b: float(b.ids_BT.numel()),
            )  # fmt: skip
            loop.run()
            clock, own = (statistics.median(t[i] for t in loop.took[1:]) for i in (0, 1))
            total = float(loop.team.add_up(torch.tensor(own))) * getattr(loop.team, "tensor", 1)
            if not processes.number():
                save_file(dict(objective.state_dict()), here / "weights.safetensors")
                (here / "took.json").write_text(json.dumps([clock, total]))


class Watched(Loop):
    """A loop that notes the most that was resident until its model is laid out, and then until it is put together."""

    peak: Peak
    peaks: dict[str, float]

    def run(self) -> Progress:
        self.peaks = {"start": self.peak()}
        gather = self.team.gather

        def gathered(file: Path) -> None:
            self.peaks["training"] = self.peak()
            gather(file)

        self.team.gather = gathered  # type: ignore[method-assign]
        return super().run()

    def _save(self) -> None:
        """3 GB of a disk would say nothing here."""


class Peak:
    """MB of its own that the process had at most since this was asked last, looked at every few milliseconds."""

    def __init__(self) -> None:
        self.most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, _own())
            time.sleep(0.005)

    def __call__(self) -> float:
        found, self.most = max(self.most, _own()), 0.0
        return found


def _own() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1e3


def watch(folder: Path, name: str) -> None:
    """What each process does to be measured."""
    torch.set_num_threads(1)
    limit("16GB")  # whatever the machine has free
    shape = TransformerConfig(768, 8, 12, attention="writing")
    ids = torch.randint(0, LARGE, (8, 64), generator=torch.Generator().manual_seed(0))

    def batch(rows: np.ndarray, epoch: int = 0) -> TextBatch:
        return TextBatch(ids[rows], ids[rows].roll(-1, 1))

    count = processes.count()
    with joined():
        peak = Peak()
        before = peak()
        with deferred(count > 1):
            torch.manual_seed(0)
            if name == "adapters":
                model = load_text_model(folder / "checkpoint").model
                attach(model.backbone, 8)
            else:
                model = LanguageModel(LanguageConfig(shape, LARGE))
        loop = Watched(
            TokenObjective(model), replace(RECIPE, batch_rows=4, shard=count > 1),
            batch, np.arange(8), None, falling(), Tracker(folder / f"{name}-{count}"),
            Checkpoints(folder / f"{name}-{count}" / "checkpoints"), Silent(),
            weigh=lambda b: float(b.ids_BT.numel()),
        )  # fmt: skip
        loop.peak = peak
        loop.run()
        if not processes.number():
            merge(model.backbone)
            save_hf(model, folder / f"{name}-{count}" / "saved")
            with torch.no_grad():
                model.eval()(ids[:1])
        found = {key: value - before for key, value in (loop.peaks | {"end": peak()}).items()}
        (folder / f"{name}-{count}-{processes.number()}.json").write_text(json.dumps(found))


def memory(folder: Path) -> None:
    torch.manual_seed(1)
    tokens = {f"t{i}": i for i in range(LARGE)}
    save_hf(
        LanguageModel(LanguageConfig(TransformerConfig(768, 8, 12, attention="writing"), LARGE)),
        folder / "checkpoint", Tokenizer(WordLevel(tokens, unk_token="t0")),
    )  # fmt: skip
    for name in ("nothing", "adapters"):
        for count in (1, 2, 4):
            (folder / f"{name}-{count}").mkdir()
            start(count, "--work", str(folder), "--memory", name)
            found = [json.loads((folder / f"{name}-{count}-{n}.json").read_text()) for n in range(count)]
            shutil.rmtree(folder / f"{name}-{count}")
            print(json.dumps({
                "processes": count, "from": name, "first_mb": {k: round(v) for k, v in found[0].items()},
                "others_mb": {k: round(max(f[k] for f in found[1:])) for k in found[0]} if count > 1 else None,
            }), flush=True)  # fmt: skip


def start(count: int, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__]
    subprocess.run([*command, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", nargs="?", const="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    if asked.work and asked.memory:
        watch(asked.work, asked.memory)
        return
    if asked.memory:
        with tempfile.TemporaryDirectory() as place:
            memory(Path(place))
        return
    if asked.work:
        work(asked.work, asked.steps)
        return
    took: dict[str, list[Any]] = {}
    differs: dict[str, float] = {}
    load = os.getloadavg()[0]
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as place:
            for count in (1, 2, 4):
                start(count, "--work", place, "--steps", str(asked.steps))
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
