"""Kills survived, of kills tried: a training and a prediction, killed (SIGKILL) again and again at random moments.

    uv run python benchmarks/kills.py [--kills 20] [--seed 0]

Half of the moments are drawn from the whole time, half lie inside a save: a checkpoint is saved after every step, a
part of an output after every batch. What ends at last is compared, bit by bit, with what was never killed. One JSON
line each.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import weft
from weft import pipeline
from weft.files import MANIFEST
from weft.inference import parts
from weft.training import loop

START = multiprocessing.get_context("forkserver")  # a fresh process without the seconds of importing
ROWS, GROUP = 600, 30
SETTINGS: dict[str, Any] = {
    "target": "bought", "model": {"width": 16, "layers": 1, "copies": 1}, "results": {"baselines": False},
    "training": {"epochs": 2, "batch_rows": 64}, "data": {"max_rejected": 0.05},
}  # fmt: skip


def table(file: Path) -> None:
    """A Parquet file of small row groups, with numbers, words, texts, and some rows that cannot be read."""
    random = np.random.default_rng(0)
    price = [f"{p:.2f}" for p in random.lognormal(3, 1, ROWS)]
    price[7::97] = ["much"] * len(price[7::97])
    good = random.random(ROWS) < 0.5
    pq.write_table(pa.table({
        "price": price, "colour": random.choice(["red", "green", "蓝"], ROWS),
        "review": np.where(good, "lovely soft fabric", "returned it at once"),
        "bought": np.where(good ^ (random.random(ROWS) < 0.1), "yes", "no"),
    }), file, row_group_size=GROUP)  # fmt: skip


def train(source: str, out: str) -> None:
    loop.SECONDS_BETWEEN_SAVES = 0.0
    torch.set_num_threads(1)
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "source": source}, "features": {"price": "number"}}
    if not (Path(out) / MANIFEST).exists():  # else it was killed after its end
        pipeline.run(weft.Pipeline(settings).settings, out=out, resume=(Path(out) / "weft.yaml").exists())


def predict(run: str, source: str, out: str) -> None:
    parts.SECONDS_A_PART = 0.0
    torch.set_num_threads(1)
    weft.load(run).predict_file(source, out, keep=("colour",))


@dataclass
class Job:
    """What is killed. ``saving``: glob of what stands there while a save is under way; ``result``: name -> bytes."""

    work: Callable[..., None]
    given: tuple[str, ...]
    out: Path
    saving: str
    result: Callable[[Path], dict[str, bytes]]

    def start(self) -> Any:
        process = START.Process(target=self.work, args=(*self.given, str(self.out)))
        process.start()
        return process

    def end(self) -> dict[str, bytes]:
        """Run to the end, and take the result away."""
        process = self.start()
        process.join()
        assert process.exitcode == 0, f"{self.work.__name__} failed"
        return self.taken()

    def taken(self) -> dict[str, bytes]:
        found = self.result(self.out)
        for left in self.out.parent.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return found


def of_run(out: Path) -> dict[str, bytes]:
    figures = json.loads((out / "report.json").read_text())
    told = {k: figures[k] for k in ("models", "headline", "data", "target")}
    for model in told["models"]:
        model["seconds"] = 0
    names = ("model.safetensors", "config.json", "columns.json", "metrics.jsonl", "split.npy", "rejected.parquet")
    return {**{n: (out / n).read_bytes() for n in names}, "report.json": json.dumps(told).encode()}


def of_output(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out, parts.set_aside_name(out))}


def bits_lost(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    lost = 0
    for name in one:
        a, b = (np.frombuffer(found[name], np.uint8) for found in (one, other))
        size = min(len(a), len(b))
        lost += int(np.unpackbits(a[:size] ^ b[:size]).sum()) + 8 * abs(len(a) - len(b))
    return lost


def survive(job: Job, kills: int, seed: int) -> dict[str, Any]:
    """Kill a job ``kills`` times, let it end, and compare."""
    draw, started = np.random.default_rng(seed), time.monotonic()
    whole = job.end()
    seconds, done, inside, failed, lost, ended = time.monotonic() - started, 0, 0, 0, 0, 0
    while done < kills:
        process = job.start()
        until = time.monotonic() + draw.uniform(0, seconds)
        while time.monotonic() < until and process.exitcode is None:
            process.join(0.001)
        if draw.random() < 0.5:  # in the next save
            while process.exitcode is None and not list(job.out.parent.glob(job.saving)):
                process.join(0.0002)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            done += 1
            inside += bool(list(job.out.parent.glob(job.saving)))
        elif process.exitcode == 0:
            ended, lost = ended + 1, lost + bits_lost(whole, job.taken())
        else:
            failed += 1
            break
    if not failed:
        ended, lost = ended + 1, lost + bits_lost(whole, job.end())
    return {
        "what": job.work.__name__, "kills": done, "inside_a_save": inside, "survived": done - failed,
        "jobs_ended": ended, "bits_compared": 8 * sum(map(len, whole.values())) * ended, "bits_lost": lost,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def jobs(folder: Path) -> dict[str, Job]:
    """A training, and a prediction with a run that was trained for it."""
    START.set_forkserver_preload(["weft.pipeline", "benchmarks.kills"])
    source, run = folder / "table.parquet", folder / "run"
    table(source)
    for name in ("training", "prediction"):
        (folder / name).mkdir()
    training = Job(
        train, (str(source),), folder / "training" / "run", "run/checkpoints/copy-*/.step-*.part", of_run
    )  # fmt: skip
    Job(train, (str(source),), run, "", of_run).start().join()
    out = folder / "prediction" / "out.parquet"
    return {
        "training": training,
        "prediction": Job(predict, (str(run), str(source)), out, ".out.parquet.parts/.part-*.part", of_output),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(Path(folder)).values():
            print(json.dumps(survive(job, given.kills, given.seed)), flush=True)


if __name__ == "__main__":
    main()
