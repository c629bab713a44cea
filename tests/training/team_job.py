"""Trainings of a small language model, by one process or by those that torchrun starts: ``team_job.py FOLDER JOBS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from weft.features.pieces import IGNORED, TextBatch
from weft.models.checkpoints import load_hf
from weft.models.deferred import deferred
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.progress import Silent
from weft.training import muon, parallel
from weft.training.adapters import attach
from weft.training.checkpoint import Checkpoints
from weft.training.language import TokenObjective
from weft.training.loop import Loop, Recipe
from weft.training.parallel import Alone
from weft.training.tracking import Tracker

VOCABULARY, LENGTH, ROWS = 40, 9, 45
RANDOM = np.random.default_rng(0)
IDS = torch.from_numpy(RANDOM.integers(0, VOCABULARY, (ROWS + 8, LENGTH)))
ASKED = torch.from_numpy(RANDOM.random((ROWS + 8, LENGTH)) < RANDOM.random((ROWS + 8, 1)))  # rows count unlike


def batch(rows: np.ndarray, epoch: int = 0) -> TextBatch:
    targets = torch.where(ASKED[rows], IDS[rows].roll(-1, 1), IGNORED)
    return TextBatch(IDS[rows], targets)


def validate(objective: torch.nn.Module, team: Alone) -> float:
    """The loss of 8 rows: of one process in one go, of several in three parts, of which each reads one or two."""
    assert isinstance(objective, TokenObjective)
    rows, looked = np.arange(ROWS, ROWS + 8), []
    if team.shares == 1:
        return objective.loss(batch(rows)).item()

    def read(some: np.ndarray) -> torch.Tensor:
        looked.extend(some)
        return torch.stack(objective.nats(batch(some)), dim=1)

    nats, asked = team.read(np.split(rows, [3, 6]), read).sum(dim=0).tolist()
    assert len(looked) < len(rows)
    return nats / asked


def train(folder: Path, job: dict[str, Any]) -> Loop:
    """Train as ``job`` says: settings of the recipe, ``stop`` a step after which it dies, ``dropout``, the model's,
    ``from`` a checkpoint with adapters."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {**job}
    muon.KIND = getattr(torch, own.pop("kind", "bfloat16"))
    stop, dropout, more = own.pop("stop", None), own.pop("dropout", 0.0), own.pop("model", {})
    torch.manual_seed(0)
    shape = TransformerConfig(16, 2, 4, attention="writing", dropout=dropout, **more)
    pieces = parallel.joined != [] and (job.get("shard", False) or job.get("tensor", 1) > 1)
    with deferred(pieces):
        if folder_of := own.pop("from", None):
            found = load_hf(folder_of).model.train()
            assert isinstance(found, LanguageModel)
            model = found
            attach(model.backbone, 2)
        else:
            model = LanguageModel(LanguageConfig(shape, VOCABULARY))
    assert all(p.is_meta == pieces for n, p in model.named_parameters() if "lora_b" not in n)
    # 45 rows: the last step of an epoch has one, fewer than there are processes
    recipe = Recipe(**{"epochs": 3, "batch_rows": 11, "learning_rate": 3e-3, "weight_decay": 0.1, "patience": 99,
                       "average": 0.9, "bfloat16": False, "seed": 5, "clip": 0.5, **own})  # fmt: skip
    objective = TokenObjective(model)
    for name, shape_of in (("nothing", (0, 3)), ("number", ())):  # which cannot be cut
        objective.register_parameter(name, torch.nn.Parameter(torch.zeros(shape_of)))
    made = Loop(
        objective, recipe, batch, np.arange(ROWS), None, validate,
        Tracker(folder), Checkpoints(folder / "checkpoints"), Silent(),
        weigh=lambda b: float((b.targets_BT != IGNORED).sum()),
    )  # fmt: skip
    if stop is not None:
        plain = made._step

        def dying(rows: np.ndarray) -> None:
            if made.progress.step == stop:
                made._save()
            if made.progress.step == stop + 1:
                raise Stopped
            plain(rows)

        made._step = dying  # type: ignore[method-assign]
    made.run()
    return made


class Stopped(Exception):
    pass


def main() -> None:
    from weft.training.team import joined

    folder, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    with joined():
        for name, job in jobs.items():
            try:
                made = train(folder / name, job)
            except Stopped:
                continue
            if made.team.number and made.team.pieces > 1:  # only the first puts the pieces together
                assert not any(p.numel() for p in made.model.parameters())
            if made.team.number == 0:
                save_file(dict(made.model.state_dict()), folder / name / "weights.safetensors")


if __name__ == "__main__":
    main()
