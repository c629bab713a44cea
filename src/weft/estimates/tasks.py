"""What a task of texts or events will read, build, need and take, before any of it is spent.

The six steps themselves begin on the first rows of the table, and the model takes a few steps on them; sizes are
carried over to the whole.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft import memory
from weft.config import Settings
from weft.data.table import Table
from weft.data_settings import SplitSettings
from weft.errors import DataError
from weft.estimates.rows import TRAINING, copies_in_words, memory_parts, rows_of, shape_of, size_in_words
from weft.pipeline import WAYS
from weft.progress import Silent, duration, minutes_in_words
from weft.tasks.steps import Foretold, ForetoldSteps
from weft.training.pace import ends_in_words

SAMPLE_ROWS, SAMPLE_BYTES = 50_000, 4_000_000


def estimate_task(settings: Settings) -> dict[str, Any]:
    """Plan, sizes, memory and time of a run. Raises what the run itself would raise on these settings and columns."""
    assert settings.data.source is not None
    libraries = memory.resident()
    table = Table.open(settings.data.source, settings.data.format)
    rows, exact = rows_of(table)
    head = Table.of(table.head(SAMPLE_ROWS, SAMPLE_BYTES))
    head.name, seen = table.name, head.row_count() or 0
    if not seen:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    if not exact:
        whole = seen < SAMPLE_ROWS and table.head(seen + 1).num_rows == seen
        rows, exact = seen if whole else max(rows, seen), whole
    told, copies, written = _foretold(settings, head, rows / seen)
    plan, recipe, scale = told.plan, told.recipe, rows / seen
    parameters = sum(p.numel() for p in told.model.parameters())
    trained = sum(p.numel() for p in told.model.parameters() if p.requires_grad)
    parts, disk = memory_parts(parameters, trained, told.activations), written * scale + 8 * (parameters + 4 * trained)
    model = sum(parts.values())
    mapped = int(min(written * scale, memory.bound() // 8))
    need = libraries + TRAINING + model + mapped
    most, an_epoch, about = told.steps * told.seconds * 1.1, told.steps // recipe.epochs, "" if exact else "about "
    limit, size = f"{recipe.epochs:,} epochs of {an_epoch:,} steps", told.size * scale
    if recipe.minutes:
        most, limit = min(most, 60 * recipe.minutes), minutes_in_words(recipe.minutes)
    rate = size * _learnt(settings) / (an_epoch * told.seconds)
    return {
        "plan": plan.to_dict(),
        "rows": rows, "rows_exact": exact, told.unit: round(size), "parameters": parameters,
        "recipe": asdict(recipe), "steps": told.steps, "memory_bytes": int(need),
        "memory_steps": {step: {"rows_bytes": mapped} for step in ("features", "model", "results")},
        "memory_parts": parts, "disk_bytes": int(disk),
        f"{told.unit}_a_second": round(rate), "seconds_at_most": float(most),
        "shape": shape_of(getattr(told.model.config, "backbone", None)),
        "tokens_learnt": round(size * _learnt(settings)),
        "context": getattr(told.model.config, "longest", None) or math.ceil(size / rows),
        "words": {
            "rows": f"{about}{rows:,}, {told.said}; about {round(size):,} {told.unit} in all",
            "model": f"{told.shape}, {parameters:,} parameters"
            + (f", {trained:,} of them trained" if trained < parameters else ""),
            **({"copies": copies_in_words(copies["rows"], seen, copies["way"])} if copies else {}),
            "training": f"at most {limit}, about {rate:,.0f} {told.unit} a second",
            "memory": f"about {size_in_words(need)}, of which {size_in_words(libraries)} are the libraries and "
            f"{size_in_words(model)} the model and a step",
            "disk": f"about {size_in_words(disk)} while it runs",
            "time": f"at most about {duration(most)} of training on this machine ({ends_in_words(recipe)})",
        },
    }  # fmt: skip


def _learnt(settings: Settings) -> float:
    split = settings.data.split
    return 1 - split.valid - (0 if split.column else split.test)


def _foretold(settings: Settings, head: Table, scale: float) -> tuple[Foretold, dict[str, Any], int]:
    """What a training takes whose table is ``scale`` times as long as its ``head``, the copies there, bytes written."""
    change: dict[str, Any] = {"max_rejected": 0.999}  # at bad rows a run stops, not this
    if settings.target.task != "ranking":
        # the first rows may all be of one part: they are split at random
        change["split"], scale = SplitSettings(test=0.0, valid=0.1), scale * _learnt(settings) / 0.9
    settings = settings.model_copy(update={"data": settings.data.model_copy(update=change)})
    with tempfile.TemporaryDirectory() as folder:
        steps = WAYS[settings.target.task](settings, head, Path(folder) / "run", Silent(), False)
        assert isinstance(steps, ForetoldSteps)  # rows are foretold by weft.estimates.rows
        steps.scale = scale
        with steps.holding:
            told = steps.foretell()
        return told, steps.copies, sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
