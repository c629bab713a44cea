"""The full state of a training: saved whole, verified when read, the newest good one kept.

A checkpoint is a folder ``checkpoints/step-00001234`` of safetensors and JSON with a sha256 manifest; no
pickle. A folder that does not verify is renamed ``.corrupt-N`` and the one before it is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from weft.errors import CheckpointError, listing
from weft.files import sweep, unfinished, verify_manifest, whole_folder
from weft.training.parallel import ALONE, Alone

FILES = {"model.safetensors", "optimizer.safetensors", "extra.safetensors", "state.json"}
STEP = "step-"
"""How the name of a checkpoint begins; the number of its step follows."""


class Checkpoints:
    """The checkpoints of a run; keeps the newest two, so that one damaged folder is no loss.

    Of several processes each writes what it alone holds, ``model-3.safetensors`` beside ``model.safetensors``; the key
    of a piece ends with its place in the tensor, ``@row,column``. Any number of processes can go on from it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor],
             state: dict[str, Any], team: Alone = ALONE) -> None:  # fmt: skip
        """``extra``: tensors that lie as the parameters do whose names follow the first word of theirs, or whole."""
        parameters = dict(model.named_parameters())
        kinds: dict[str, list[tuple[Tensor | None, str, Tensor]]] = {
            "model": [(parameters.get(n), n, t) for n, t in model.state_dict(keep_vars=True).items()],
            "optimizer": [(None if key == "step" else p, f"{name}.{key}", value) for name, p in parameters.items()
                          for key, value in optimizer.state.get(p, {}).items()],
            "extra": [(parameters.get(key.partition(".")[2]), key, value) for key, value in extra.items()],
        }  # fmt: skip
        folder, first = self._at(step), team.number == 0
        writer = int(team.first(os.getpid())[0])
        with whole_folder(folder) if first else nullcontext(unfinished(folder, writer)) as beside:
            team.wait()
            for kind, entries in kinds.items():
                found = {k + place: x for p, k, value in entries for place, x in team.cut(p, value).items()}
                found |= team.random() if kind == "extra" else {}
                if found or first:
                    save_file(found, beside / (f"{kind}.safetensors" if first else f"{kind}-{team.number}.safetensors"))
            if first:
                (beside / "state.json").write_text(json.dumps({"step": step, "processes": team.count, **state}))
            team.wait()
        for old in self._folders()[:-2] if first else ():
            shutil.rmtree(old)
        team.wait()

    def newest(self, say: Any, team: Alone = ALONE) -> Path | None:
        """The newest folder that verifies; damaged ones are set aside aloud. What was never finished is removed.

        Of several processes the first alone looks and tidies: another, once answered, may be writing here.
        """
        found = self._newest(say) if team.number == 0 else None
        step = int(team.first(-1 if found is None else int(found.name.removeprefix(STEP)))[0])
        return None if step < 0 else self._at(step)

    def _newest(self, say: Any) -> Path | None:
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

    def _at(self, step: int) -> Path:
        return self.folder / f"{STEP}{step:08d}"

    @torch.no_grad()
    def load(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, team: Alone = ALONE
             ) -> tuple[dict[str, Tensor], dict[str, Any]]:  # fmt: skip
        """Restore the model and the optimiser; returns the other tensors as they lie here, with the random state where
        as many processes saved it, and the state."""
        state = json.loads((folder / "state.json").read_text())
        parameters, stored = dict(model.named_parameters()), Stored(folder, "model")
        for name, tensor in model.state_dict(keep_vars=True).items():
            team.own(tensor).copy_(team.part(parameters.get(name), stored[name]))
        stored = Stored(folder, "optimizer")
        for name in stored:
            p, key = parameters[name.rpartition(".")[0]], name.rpartition(".")[2]
            if key == "step":
                optimizer.state[p][key] = stored[name].clone().to(p.device)
            else:
                optimizer.state[p][key] = torch.zeros_like(p)
                team.own(optimizer.state[p][key]).copy_(team.part(p, stored[name]))
        extra, stored = {}, Stored(folder, "extra")
        for name in stored:
            if not name.startswith("random"):
                extra[name] = team.part(parameters.get(name.partition(".")[2]), stored[name])
            elif state["processes"] == team.count and name in team.random():
                extra[name] = stored[name]
        return extra, state

    def _folders(self) -> list[Path]:
        return sorted(p for p in self.folder.glob(f"{STEP}*") if p.is_dir() and p.suffix == "")

    @staticmethod
    def _aside(folder: Path) -> Path:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
            number += 1
        return aside


class Stored(Mapping[str, Tensor]):
    """The tensors of a kind in a checkpoint, each put together from its pieces when it is asked for."""

    def __init__(self, folder: Path, kind: str):
        self._pieces: dict[str, list[tuple[Any, str, int, int]]] = {}
        for path in [folder / f"{kind}.safetensors", *sorted(folder.glob(f"{kind}-*.safetensors"))]:
            file = safe_open(path, "pt")
            for key in file.keys():  # noqa: SIM118 (not a dict)
                found = re.fullmatch(r"(.*?)(?:@(\d+),(\d+))?", key, re.DOTALL)
                assert found is not None
                self._pieces.setdefault(found[1], []).append((file, key, int(found[2] or 0), int(found[3] or 0)))

    def __getitem__(self, name: str) -> Tensor:
        pieces = [(file.get_tensor(key), row, column) for file, key, row, column in self._pieces[name]]
        if len(pieces) == 1:
            return pieces[0][0]
        shape = [max(row + x.shape[0] for x, row, _ in pieces), *pieces[0][0].shape[1:]]
        if len(shape) > 1:
            shape[1] = max(column + x.shape[1] for x, _, column in pieces)
        whole = pieces[0][0].new_empty(shape)
        for x, row, column in pieces:
            rows = whole[row : row + len(x)]
            (rows[:, column : column + x.shape[1]] if len(shape) > 1 else rows).copy_(x)
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)
