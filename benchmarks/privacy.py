"""What privacy costs, and what it keeps: the same learnt without and at epsilon 8, 3 and 1.

``python benchmarks/privacy.py TASK [EPSILON ...]``; one JSON line a run; an epsilon of inf is none at all.

    adult      income, official test, defaults
    reviews    recommended or not, from the texts alone, defaults
    minilm     the same by MiniLM with adapter: head
    vectors    the same from what MiniLM once read of all reviews (some minutes), for every epsilon
    members    who was learnt from, told of a model of 200 rows of Adult that is made to over-fit
    canaries   secrets told of a model that writes, of 300 reviews, made to over-fit

Data: ../shared/data.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

import weft
from machine import minilm
from weft.config import from_mapping
from weft.data.table import Table
from weft.defaults import resolved
from weft.exchange import open_text_model
from weft.features.batching import Batch
from weft.inference.embed import Embedder
from weft.models.heads import ClassHead, Directions
from weft.progress import Silent
from weft.results.metrics import class_metrics, with_intervals
from weft.runs.leaks import judge_canaries, judge_members
from weft.training.calibration import fit_temperature
from weft.training.checkpoint import Checkpoints
from weft.training.federated import loop_of
from weft.training.tracking import Tracker

SHARED = Path("../shared/data")
OFF = ("clothing_id", "age", "rating", "positive_feedback_count", "division_name", "department_name", "class_name")
TASKS: dict[str, dict[str, Any]] = {
    "adult": {"data": {"source": str(SHARED / "adult.parquet"), "split": {"column": "split"}}, "target": "income"},
    "reviews": {
        "data": {"source": str(SHARED / "clothing_reviews.parquet"), "split": {"column": "split"}},
        "features": {"review_text": "text", "title": "text", **dict.fromkeys(OFF, "off")},
        "target": "recommended_ind", "model": {"width": 64},
    },
}  # fmt: skip
TASKS["minilm"] = {**TASKS["reviews"], "model": {"from": minilm(), "adapter": "head"}}


OVERFIT = {"epochs": 200, "batch_rows": 20, "learning_rate": 5e-3, "weight_decay": 0.0}


def main(task: str, *epsilons: str) -> None:
    read = vectors() if task == "vectors" else None
    for epsilon in map(float, epsilons or ("inf", "8", "3", "1")):
        training = {} if math.isinf(epsilon) else {"privacy": {"epsilon": epsilon}}
        with tempfile.TemporaryDirectory() as folder:
            if read is not None:
                found = head(read, training, Path(folder))
            else:
                found = {"members": members, "canaries": secrets}.get(task, quality)(task, training, Path(folder))
        print(json.dumps({"task": task, "epsilon": epsilon, **found}), flush=True)


def vectors() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """What MiniLM reads of title and text [N, R], the classes [N], and what each is for: 0 train, 1 valid, 2 test."""
    rows = pq.read_table(SHARED / "clothing_reviews.parquet").to_pandas()
    texts = (rows.title.fillna("") + ". " + rows.review_text.fillna("")).tolist()
    found, _ = Embedder(open_text_model(Path(minilm())))(texts)
    parts = np.where(rows.split == "test", 2, np.random.default_rng(1).random(len(rows)) < 0.12)
    return torch.from_numpy(found), torch.tensor(rows.recommended_ind.astype(int).to_numpy()), parts


class Head(torch.nn.Module):
    """What a frozen checkpoint's row model trains."""

    def __init__(self, counts: list[int]):
        super().__init__()
        torch.manual_seed(0)
        self.head = ClassHead(384, 384, counts, 0.1, directions=True, smoothing=0.05)

    def loss(self, batch: Batch) -> torch.Tensor:
        assert batch.reads is not None and batch.target is not None
        return self.head.loss(self.head(F.dropout(batch.reads, 0.1, self.training)), batch.target)


def head(read: tuple[torch.Tensor, torch.Tensor, np.ndarray], training: dict[str, Any], folder: Path) -> dict[str, Any]:
    x, y, parts = read
    train, valid, test = (np.flatnonzero(parts == part) for part in range(3))
    settings = from_mapping({"target": "recommended_ind", "training": training})
    recipe = resolved(settings, 384, "cpu", 3, 32, 1e-3, 0.01, 3)
    model = Head(np.bincount(y[train]).tolist())
    if not training and isinstance(model.head.read, Directions):
        model.head.read.begin(x[train], F.one_hot(y[train]))

    def fetch(rows: np.ndarray, epoch: int = 0) -> Batch:
        return Batch({}, y[rows], len(rows), reads=x[rows])

    loop = loop_of(recipe)(
        model, recipe, fetch, train, None, lambda m, team: m.loss(fetch(valid)).item(),
        Tracker(folder), Checkpoints(folder / "checkpoints"), Silent(),
    )  # fmt: skip
    account = loop.run().privacy or {}
    with torch.no_grad():
        answers = model.eval().head.answer(model.head(x))
    p = (answers / fit_temperature(answers[valid].numpy(), y[valid].numpy())).softmax(-1)[test].numpy()
    truth = y[test].numpy()
    metrics = class_metrics(p, truth, 1)
    ours = with_intervals({n: metrics[n] for n in ("accuracy", "auc", "log_loss")}, len(truth))
    return {**{n: account.get(n) for n in ("spent", "delta", "noise", "rows")},
            **{n: e.to_dict() for n, e in ours.items()}}  # fmt: skip


def quality(task: str, training: dict[str, Any], folder: Path) -> dict[str, Any]:
    settings = {**TASKS[task], "results": {"baselines": False, "explain": "off"}, "training": training}
    figures = weft.Pipeline(settings).run(out=folder / "run", quiet=True).figures
    metrics, account = figures["models"][0]["metrics"], figures.get("privacy") or {}
    return {
        **{name: account.get(name) for name in ("spent", "delta", "noise")},
        **{name: metrics[name] for name in ("accuracy", "auc", "log_loss") if name in metrics},
        "parameters": figures["model"]["parameters"], "seconds": round(figures["seconds"]["model"]),
    }  # fmt: skip


def members(task: str, training: dict[str, Any], folder: Path) -> dict[str, Any]:
    """200 rows are learnt, 1,000 others are not; those watched are copies of the learnt, so that nothing stops it."""
    rows = pq.read_table(SHARED / "adult.parquet").drop_columns("split")
    chosen = np.random.default_rng(0).choice(len(rows), 1_200, replace=False)
    learnt, others = rows.take(chosen[:200]), rows.take(chosen[200:])
    parts = {"train": learnt, "valid": learnt, "test": others}
    table = pa.concat_tables(t.append_column("split", pa.array([n] * len(t))) for n, t in parts.items())
    pq.write_table(table, folder / "table.parquet")
    settings = {
        "data": {"source": str(folder / "table.parquet"), "split": {"column": "split"}}, "target": "income",
        "model": {"width": 64, "copies": 1, "dropout": 0.0}, "results": {"baselines": False, "explain": "off"},
        "training": {**OVERFIT, **({} if training else {"patience": 1_000}), **training},
    }  # fmt: skip
    run = weft.Pipeline(settings).run(out=folder / "run", quiet=True)
    source = Table.open(str(folder / "table.parquet"))
    found = judge_members(run, source)
    assert found is not None
    return {**found["attacks"], "bound": found["bound"], "accuracy": run.figures["models"][0]["metrics"]["accuracy"]}


def secrets(task: str, training: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Each group of canaries with its mean exposure; 1.44 is chance, 9.97 the most that is told."""
    texts = pq.read_table(SHARED / "clothing_reviews.parquet")["review_text"].drop_null().slice(0, 300)
    pq.write_table(pa.table({"text": texts}), folder / "table.parquet")
    patience = {} if training else {"patience": 1_000}  # all steps are made
    settings = {
        "data": {"source": str(folder / "table.parquet")}, "target": {"next_token": "text"},
        "features": {"text": {"type": "text", "max_tokens": 64, "vocabulary": 512}},
        "model": {"width": 64, "layers": 2, "dropout": 0.0},
        "training": {"epochs": 30, "batch_rows": 32, "canaries": 12, **patience, **training},
        "results": {"baselines": False},
    }  # fmt: skip
    run = weft.Pipeline(settings).run(out=folder / "run", quiet=True)
    found = judge_canaries(run)
    assert found is not None
    return {"groups": found["groups"], "exposure": found["exposure"], "times": found["times"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
