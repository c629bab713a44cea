"""The full state of a training: saved whole, verified when read, the newest good one kept.

A checkpoint is a folder ``checkpoints/step-00001234`` of safetensors and JSON with a sha256 manifest; no
pickle. A folder that does not verify is renamed ``.corrupt-N`` and the one before it is used.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.errors import CheckpointError, listing
from weft.files import sweep, verify_manifest, whole_folder

FILES = {"model.safetensors", "optimizer.safetensors", "extra.safetensors", "state.json"}


class Checkpoints:
    """The checkpoints of a run; keeps the newest two, so that one damaged folder is no loss."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor],
             state: dict[str, Any]) -> None:  # fmt: skip
        with whole_folder(self.folder / f"step-{step:08d}") as beside:
            save_file(dict(model.state_dict()), beside / "model.safetensors")
            tensors, plain = _flatten(optimizer)
            save_file(tensors, beside / "optimizer.safetensors")
            random = {"random": torch.get_rng_state()}
            if torch.cuda.is_available():
                random["random_cuda"] = torch.cuda.get_rng_state()
            save_file({**extra, **random}, beside / "extra.safetensors")
            (beside / "state.json").write_text(json.dumps({"step": step, "optimizer": plain, **state}))
        for old in self._folders()[:-2]:
            shutil.rmtree(old)

    def newest(self, say: Any) -> Path | None:
        """The newest folder that verifies; damaged ones are set aside aloud. What was never finished is removed."""
        sweep(self.folder)
        for folder in reversed(self._folders()):
            try:
                missing = FILES - verify_manifest(folder)
                if missing:
                    raise CheckpointError(f"{folder}: must list all files. Got no {listing(sorted(missing))}.")
                return folder
            except CheckpointError as error:
                aside = self._aside(folder)
                folder.rename(aside)
                say.warn(f"{error} Set aside as {aside.name}; going back to the checkpoint before.")
        return None

    def load(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, dict]:
        """Restore the model and the optimiser; returns the other tensors, also of the random state, and the state."""
        state = json.loads((folder / "state.json").read_text())
        model.load_state_dict(load_file(folder / "model.safetensors"))
        _unflatten(optimizer, load_file(folder / "optimizer.safetensors"), state["optimizer"])
        return load_file(folder / "extra.safetensors"), state

    def _folders(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if p.is_dir() and p.suffix == "")

    @staticmethod
    def _aside(folder: Path) -> Path:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
            number += 1
        return aside


def restore_random(extra: dict[str, Tensor]) -> None:
    """Draw on from where the checkpoint with these tensors was saved."""
    torch.set_rng_state(extra["random"])
    if "random_cuda" in extra and torch.cuda.is_available():
        torch.cuda.set_rng_state(extra["random_cuda"])


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    stored = optimizer.state_dict()
    tensors, plain = {}, {}
    for index, entry in stored["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    return tensors, {"values": plain, "groups": stored["param_groups"]}


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *plain["values"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
