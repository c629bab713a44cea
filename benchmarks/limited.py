"""What saves memory or time in fine-tuning MiniLM, side by side with all of it in float32, and what it costs.

    uv run python benchmarks/limited.py [banking reviews] [--rounds 2] [--ways ...]

Banking77: 3 epochs of 1,000 questions (13 tokens on average); titles and reviews of clothes into six departments: 1
epoch of 320 texts (at most 256 tokens). Every training is a process of its own, all ways in turn, each round with
another seed. One JSON line a data set and way, medians of the rounds: seconds and CPU seconds of the steps of an epoch,
CPU milliseconds of a step, peak memory of the process from the first step to the last, test accuracy, parameters that
are trained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow.csv as pacsv

from classify import rows_of
from machine import DATA, machine
from train_reader import Rows, weft_run

FLOAT32, LORA, ANEW, PARTS = (
    {"precision": "float32"}, {"adapter": "lora"}, {"checkpoint_activations": True}, {"accumulate": 4},
)  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "float32": FLOAT32,
    "float32, LoRA": FLOAT32 | LORA,
    "float32, activations computed anew": FLOAT32 | ANEW,
    "float32, a step in 4 parts": FLOAT32 | PARTS,
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, LoRA": {"precision": "bfloat16"} | LORA,
    "all four": {"precision": "bfloat16"} | LORA | ANEW | PARTS,
}
SETS = {"banking": (1_000, 3), "reviews": (320, 1)}
"""Rows and epochs."""


def data_of(name: str, made_up: bool) -> tuple[Rows, Rows]:
    """What is learnt from, and what is judged on."""
    rows = SETS[name][0]
    if name == "reviews" or made_up:
        texts, labels = rows_of(made_up)
        cut = 128 if made_up else rows
        return (texts[:cut], labels[:cut]), (texts[cut : cut + 1_000], labels[cut : cut + 1_000])
    train, test = (pacsv.read_csv(DATA / f"banking77_{part}.csv").to_pydict() for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(train["text"]))[:rows]
    return tuple([part[n] for n in ("text", "category")] for part in (  # type: ignore[return-value]
        {n: [values[i] for i in order] for n, values in train.items()}, test,
    ))  # fmt: skip


def once(name: str, way: str, seed: int, made_up: bool) -> dict[str, float]:
    """Train one way, in this process."""
    epochs = 1 if made_up else SETS[name][1]
    training = {"seed": seed, "epochs": epochs, "patience": epochs, **WAYS[way]}
    model = {"adapter": training.pop("adapter")} if "adapter" in training else {}
    train, test = data_of(name, made_up)
    figures, seconds, cpu, peak = weft_run(train, test, model, training)
    return {
        "seconds_an_epoch": seconds / epochs, "cpu_seconds_an_epoch": cpu / epochs,
        "cpu_ms_a_step": 1000 * cpu / epochs / -(-len(train[0]) // 32),
        "peak_gb": peak,
        "accuracy": figures["models"][0]["metrics"]["accuracy"]["value"],
        "trained": figures["model"]["trained"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--made-up", action="store_true", help="a few sentences instead of the data: that it runs")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone is not None:
        print(json.dumps(once(given.sets[0], given.ways[0], given.alone, given.made_up)))
        return
    for name in given.sets:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in given.ways}
        for seed in range(given.rounds):
            for way in given.ways:
                command = [sys.executable, __file__, name, "--ways", way, "--alone", str(seed)]
                done = subprocess.run(
                    command + ["--made-up"] * given.made_up, check=True, stdout=subprocess.PIPE, text=True
                )
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, way, found[way][-1], file=sys.stderr, flush=True)
        for way, each in found.items():
            medians = {key: round(statistics.median(one[key] for one in each), 4) for key in each[0]}
            print(json.dumps({"benchmark": "limited", "data": name, "way": way, **medians, "rounds": given.rounds,
                              **machine()}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
