"""The weights of a run: ``config.json`` says the shape they need, their header the hash of the file they go with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from weft.errors import CheckpointError
from weft.features.columns import COLUMNS_FILE, Columns
from weft.files import sha256, write_whole
from weft.models.backbone import best_device
from weft.models.quantised import load_state
from weft.models.row import GroupShift, RowConfig, RowModels

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
Model = TypeVar("Model", bound=nn.Module)


def save_weights(folder: Path, model: nn.Module, shape: dict[str, Any], file: str) -> None:
    """Write ``model`` of a ``shape``, which goes with a ``file`` that is in the folder already."""
    write_whole(folder / CONFIG_FILE, json.dumps({"format": 1, **shape}, indent=1) + "\n")
    beside = folder / f".{MODEL_FILE}.part"
    save_file(dict(model.state_dict()), beside, metadata=_binding(folder / file))
    beside.replace(folder / MODEL_FILE)


def load_weights(folder: Path, build: Callable[[dict[str, Any]], Model], file: str) -> Model:
    """The model that ``build`` makes of a shape, on the GPU where there is one.

    Raises:
        CheckpointError: shape, weights and ``file`` do not belong together.
    """
    try:
        shape = json.loads((folder / CONFIG_FILE).read_text())
        with safe_open(folder / MODEL_FILE, "pt") as stream:
            bound = stream.metadata()
        if shape.get("format") != 1 or bound != _binding(folder / file):
            raise CheckpointError(
                f"{folder / MODEL_FILE}: must have been trained with this {file}. Got another one; the two files come "
                f"from different runs."
            )
        model = build(shape)
        load_state(model, load_file(folder / MODEL_FILE), quick=best_device() == "cpu")
    except (OSError, KeyError, SafetensorError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}: must hold {CONFIG_FILE} and {MODEL_FILE} that fit. Got: {error}") from None
    return model.eval().to(best_device())


def _binding(file: Path) -> dict[str, str]:
    return {f"{file.stem}_sha256": sha256(file)}


def save_model(folder: Path, model: RowModels, row: RowConfig) -> None:
    """Write the model of a run whose columns are there already."""
    shift = None if model.shift is None else {"columns": model.shift.columns, "positive": model.shift.positive}
    shape = {
        "architecture": "weft.RowModels", "copies": len(model.copies), "score": model.score, "shift": shift,
        "row": row.to_dict(),
    }  # fmt: skip
    save_weights(folder, model, shape, COLUMNS_FILE)


def load_model(folder: Path, columns: Columns) -> RowModels:
    """The model of a run. Raises CheckpointError where shape, weights and columns do not belong together."""

    def build(shape: dict[str, Any]) -> RowModels:
        row = RowConfig.from_dict(shape["row"])
        shift = GroupShift(**shape["shift"]) if shape.get("shift") else None
        return RowModels(columns.codecs, columns.target, row, shape["copies"], shape.get("score"), shift,
                         shape.get("first", False))  # fmt: skip

    return load_weights(folder, build, COLUMNS_FILE)
