"""MiniLM fine-tuned on texts of uneven length, beside Hugging Face's Trainer.

    uv run --group bench python benchmarks/train_reader.py [--rows 960] [--rounds 2]

One JSON line. Titles and reviews of clothes into six departments, one epoch of ``--rows`` texts of at most 256 tokens,
all ways in turn: texts a second and a CPU second of the training steps alone (batches, forward, backward, optimiser; no
reading, validation or saving), accuracy on 400 other texts, peak memory of each way alone. Weft by its default recipe
(the token table stays as it is; a linear path of words is trained beside), the Trainer by its default (batches of 8,
float32), in bfloat16 with batches of 32, and with these grouped by length.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import weft
from classify import LONGEST, rows_of
from machine import machine, minilm, peak_gb, peaks
from weft import memory
from weft.training.loop import Loop

Trained = tuple[float, float, float]
"""Seconds and CPU seconds of the steps, accuracy."""
Rows = tuple[list[str], list[str]]


def weft_run(
    train: Rows, test: Rows, model: Mapping[str, Any] | None = None, training: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], float, float, float]:
    """The figures of a run on these rows, seconds and CPU seconds of its steps, GB at most from first to last."""
    spent, step, peak = [0.0, 0.0], Loop._step, 0.0

    def timed(loop: Loop, rows: Any) -> None:
        nonlocal peak
        if not peak:  # what was needed to begin is not counted
            memory.give_back()
            Path("/proc/self/clear_refs").write_text("5")
        started, cpu = time.perf_counter(), time.process_time()
        step(loop, rows)
        spent[0] += time.perf_counter() - started
        spent[1] += time.process_time() - cpu
        peak = peak_gb()

    parts = ["train"] * len(train[0]) + ["test"] * len(test[0])
    valid = max(2, len(train[0]) // 20)
    parts[-len(test[0]) :] = ["valid"] * valid + ["test"] * (len(test[0]) - valid)
    table = pa.table({"text": train[0] + test[0], "label": train[1] + test[1], "part": parts})
    setattr(Loop, "_step", timed)  # noqa: B010
    folder = tempfile.TemporaryDirectory()
    try:
        run = weft.train(
            table, "label", Path(folder.name) / "run", quiet=True, model={"from": minilm(), **(model or {})},
            features={"text": {"type": "text", "max_tokens": LONGEST}}, data={"split": {"column": "part"}},
            training={"epochs": 1, **(training or {})}, results={"baselines": False, "explain": "off"},
        )  # fmt: skip
    finally:
        setattr(Loop, "_step", step)  # noqa: B010
    with folder:
        return run.figures, spent[0], spent[1], peak


def weft_reader(train: Rows, test: Rows) -> Trained:
    figures, seconds, cpu, _ = weft_run(train, test)
    return seconds, cpu, figures["models"][0]["metrics"]["accuracy"]["value"]


def trainer(train: Rows, test: Rows, **settings: Any) -> Trained:
    import torch
    from transformers import (
        AutoTokenizer,
        BertForSequenceClassification,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        logging,
    )

    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    classes = sorted(set(train[1]))

    def encoded(rows: Rows) -> list[dict[str, Any]]:
        read = tokenizer(rows[0], truncation=True, max_length=LONGEST)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": classes.index(label)}
            for ids, mask, label in zip(read["input_ids"], read["attention_mask"], rows[1], strict=True)
        ]

    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(minilm(), num_labels=len(classes))
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=1, use_cpu=True, report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    data: Any = encoded(train)  # a list is a dataset to it
    made = Trainer(model, arguments, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer))
    made.remove_callback(PrinterCallback)
    started, cpu = time.perf_counter(), time.process_time()
    made.train()
    spent = time.perf_counter() - started, time.process_time() - cpu
    asked: Any = encoded(test)
    found = made.predict(asked)
    return *spent, float((np.argmax(found.predictions, 1) == found.label_ids).mean())


WAYS: dict[str, Callable[[Rows, Rows], Trained]] = {
    "weft": weft_reader,
    "trainer": trainer,
    "trainer bfloat16": lambda a, b: trainer(a, b, bf16=True, per_device_train_batch_size=32, learning_rate=2e-4),
    "trainer bfloat16, grouped by length": lambda a, b: trainer(
        a, b, bf16=True, per_device_train_batch_size=32, learning_rate=2e-4,
        train_sampling_strategy="group_by_length",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--alone")
    given = parser.parse_args()
    texts, labels = rows_of(given.made_up)
    cut = given.rows
    train = texts[:cut], labels[:cut]
    test = texts[cut : cut + 400], labels[cut : cut + 400]
    if given.alone:
        WAYS[given.alone](train, (test[0][:50], test[1][:50]))
        print(json.dumps({"peak_gb": peak_gb()}))
        return
    found: dict[str, list[Trained]] = {name: [] for name in WAYS}
    for _ in range(given.rounds):
        for name, way in WAYS.items():
            found[name].append(way(train, test))
            print(f"{name}: {cut / found[name][-1][1]:.1f} texts a CPU second", file=sys.stderr, flush=True)
    print(json.dumps({
        "benchmark": "train_reader", "rows": cut,
        "rates": {
            name: {
                "a_second": round(cut / statistics.median(t[0] for t in each), 1),
                "a_cpu_second": round(cut / statistics.median(t[1] for t in each), 1),
                "accuracy": round(statistics.median(t[2] for t in each), 4),
            }
            for name, each in found.items()
        },
        "peak_gb": {} if given.made_up else peaks(__file__, list(WAYS), "--rows", str(min(cut, 96))),
        **machine("transformers"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
