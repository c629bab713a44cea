"""A step in parts is the step: the gradients of all parts are those of the whole batch, however uneven they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.tables import numeric
from tests.texts import documents
from tests.training.test_train_language import SHAPES, SIZE, make

import weft
from weft import config
from weft.errors import SettingsError
from weft.features.batching import Batch
from weft.features.documents import Marks
from weft.features.pieces import Corpus, TextBatch
from weft.features.targets import OUTSIDE
from weft.language_defaults import language_recipe
from weft.models.heads import ClassHead
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.language import fit_language
from weft.training.loop import Loop, Recipe
from weft.training.parallel import ALL
from weft.training.tracking import Tracker

RECIPE = Recipe(
    epochs=2, batch_rows=9, learning_rate=1e-3, weight_decay=0.0, patience=9, average=0.9, bfloat16=False, seed=3
)


def gradients(model: Any, parts: list[Batch | TextBatch], folder: Path, **more: Any) -> tuple[float, list[np.ndarray]]:
    loop = Loop(model, RECIPE, lambda rows, epoch: parts[rows[0]], np.arange(9), None, lambda m, team: 0.0,
                Tracker(folder), Checkpoints(folder), Silent(), **more)  # fmt: skip
    model.zero_grad()
    loss = loop._gradients([replace(ALL, rows=np.array([number])) for number in range(len(parts))], 0, 0.0)
    return loss.item(), [p.grad.numpy().copy() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("masked", [None, SIZE])
def test_tokens_are_weighed_not_parts(tmp_path: Path, masked: int | None) -> None:
    random = np.random.default_rng(0)
    texts = [random.integers(3, SIZE, n) for n in (1, 40, 2, 16, 1, 25, 3, 1, 12)]
    corpus = Corpus(documents(texts), Marks(None, 2, 1), 16, masked=masked)
    cuts = corpus.cuts(np.arange(9))
    objective = make(SHAPES["reading" if masked else "writing"]).train()
    numbers = np.arange(len(cuts))

    def of(batch: TextBatch) -> float:
        return float((batch.targets_BT != -100).sum())

    def parted(count: int) -> list[Batch | TextBatch]:
        return [corpus.batch(cuts, some, 0) for some in np.array_split(numbers, count)]

    loss, whole = gradients(objective, parted(1), tmp_path, weigh=of)
    for count in (2, 3, len(cuts)):
        found, parts = gradients(objective, parted(count), tmp_path, weigh=of)
        assert abs(found - loss) < 1e-6
        assert max(float(np.abs(a - b).max()) for a, b in zip(whole, parts, strict=True)) < 1e-6
    _, naive = gradients(objective, parted(3), tmp_path, weigh=lambda batch: 1.0)
    assert max(float(np.abs(a - b).max()) for a, b in zip(whole, naive, strict=True)) > 1e-3


def test_the_weights_of_classes_count(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head = ClassHead(4, 8, [90, 9, 1], 0.0, balanced=True, smoothing=0.1)

        def loss(self, batch: Batch) -> torch.Tensor:
            assert batch.target is not None
            return self.head.loss(self.head(batch.columns["x"]["value"]), batch.target)

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    for y in (torch.tensor([0] * 7 + [1] * 4 + [2]), torch.tensor([0] * 6 + [OUTSIDE] * 2 + [1] * 3 + [2])):

        def parted(*ends: int, y: torch.Tensor = y) -> list[Batch | TextBatch]:
            return [
                Batch({"x": {"value": x[a:b]}}, y[a:b], b - a) for a, b in zip((0, *ends), (*ends, 12), strict=True)
            ]

        model = Model().train()
        weigh = {"weigh": lambda batch, model=model: float(model.head.weigh(batch.target))}
        loss, whole = gradients(model, parted(), tmp_path, **weigh)
        found, parts = gradients(model, parted(2, 7), tmp_path, **weigh)
        assert abs(found - loss) < 1e-6
        assert max(float(np.abs(a - b).max()) for a, b in zip(whole, parts, strict=True)) < 1e-6
        _, naive = gradients(model, parted(2, 7), tmp_path)
        assert max(float(np.abs(a - b).max()) for a, b in zip(whole, naive, strict=True)) > 1e-3


def losses(folder: Path) -> list[float]:
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [record["train_loss"] for record in lines if "train_loss" in record]


@pytest.mark.parametrize(
    ("device", "training", "parts"),
    [("cpu", {}, 2), ("cpu", {"batch_rows": 33}, 5), ("cpu", {"batch_rows": 2}, 1), ("cpu", {"accumulate": 3}, 3),
     ("cuda", {}, 1), ("cpu", {"privacy": {"epsilon": 3}}, 1)],
)  # fmt: skip
def test_a_writer_computes_on_a_cpu_what_its_caches_hold(device: str, training: dict[str, Any], parts: int) -> None:
    """256 tokens a piece, of which 8 are some two thousand."""
    settings = config.from_mapping({"target": {"next_token": "text"}, "training": training})
    recipe = language_recipe(settings, 10**6, 1_000, 256_000, 256, 65, 192, device, fine_tuning=False)
    assert recipe.accumulate == parts


def test_a_language_model_learns_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    corpus = Corpus(
        documents([random.integers(3, SIZE, n) for n in (1, 30, 2, 16, 1, 25, 3, 9, 12, 40)]), Marks(2, 2, 1), 16
    )
    found = {}
    for parts in (1, 4):
        (tmp_path / str(parts)).mkdir()
        objective = make(SHAPES["writing"])
        recipe = Recipe(**{**RECIPE.__dict__, "accumulate": parts, "epochs": 8})
        fit_language(objective.model, corpus, np.arange(9), np.array([9]), recipe, 0.0, tmp_path / str(parts), Silent())
        found[parts] = torch.cat([p.detach().flatten() for p in objective.model.parameters()])
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "4"), atol=1e-6)
    assert float((found[1] - found[4]).abs().max()) < 1e-5


def test_a_table_learns_the_same(tmp_path: Path) -> None:
    settings = {
        "target": "label", "features": {"y": "off"}, "results": {"baselines": False},
        "model": {"width": 16, "layers": 1, "copies": 1, "dropout": 0.0},
    }  # fmt: skip
    for name, more in {"whole": {}, "parts": {"accumulate": 3}}.items():
        training = {"epochs": 2, "batch_rows": 40, "class_weight": "balanced", "precision": "float32", **more}
        weft.Pipeline({**settings, "training": training}).run(numeric(200), tmp_path / name, quiet=True)
    np.testing.assert_allclose(losses(tmp_path / "whole"), losses(tmp_path / "parts"), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "training", "words"),
    [
        ("y", "mixup: 0.2", "mixup needs all rows"),
        ("y", "consistency: 1.0, class_weight: balanced", "class_weight with consistency needs all rows"),
        ("{column: y, type: embedding}", "epochs: 1", "each text is compared with all others"),
    ],
)
def test_what_is_of_the_whole_batch_is_refused(target: str, training: str, words: str) -> None:
    text = f"data: {{source: a.csv}}\ntarget: {target}\ntraining: {{accumulate: 4, {training}}}\n"
    with pytest.raises(SettingsError, match=words):
        config.loads(text, "weft.yaml")
