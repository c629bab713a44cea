"""What a task of texts beside others will read, build, need and take, before any of it is spent.

The six steps themselves begin on the first rows of the table, and the model takes a few steps on them; sizes are
carried over to the whole.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.config import Settings, SplitSettings
from weft.data.plan import Plan, look_embedding, look_sources, look_span, look_texts
from weft.data.table import Table
from weft.errors import DataError
from weft.estimates.rows import rows_of, size_in_words
from weft.models.row import backbone_in_words
from weft.pipeline import WAYS
from weft.progress import Silent, duration
from weft.tasks.steps import Foretold, TextModelSteps

LOOK = {"span": look_span, "embedding": look_embedding, "text": look_sources, "dialogue": look_texts}
SAMPLE_ROWS = 2_000


def estimate_texts(settings: Settings) -> dict[str, Any]:
    """Plan, sizes, memory and time of a run. Raises what the run itself would raise on these settings and columns."""
    assert settings.data.source is not None
    table = Table.open(settings.data.source, settings.data.format)
    plan: Plan = LOOK[settings.target.task](settings, table)
    rows, exact = rows_of(table)
    head = table.head(SAMPLE_ROWS)
    if not head.num_rows:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    rows = max(rows, head.num_rows) if head.num_rows == SAMPLE_ROWS else head.num_rows
    exact = exact or head.num_rows < SAMPLE_ROWS
    texts = [n for n, kind in plan.types.items() if kind == "text"]
    if plan.target not in texts:
        texts.append(plan.target)
    letters = {n: sum(len(str(t or "")) for t in head.column(n).to_pylist()) / head.num_rows for n in texts}
    what = f"of {settings.model.from_}" if settings.model.from_ else "learnt from the training texts"
    sizes = ", ".join(f"{letters[n]:,.0f} letters of '{n}'" for n in texts)
    told = _foretold(settings, Table.of(head), rows / head.num_rows)
    recipe = told.recipe
    parameters = sum(p.numel() for p in told.model.parameters())
    trained = sum(p.numel() for p in told.model.parameters() if p.requires_grad)
    # of what is trained also gradients, two moments, the average and the best
    memory = 4 * (parameters + 5 * trained) + told.activations
    most = told.steps * told.seconds * 1.1
    limit = f"{recipe.epochs:,} epochs of {told.steps // recipe.epochs:,} steps"
    if recipe.minutes:
        most, limit = min(most, 60 * recipe.minutes), f"{recipe.minutes:g} minutes"
    return {
        "plan": {
            "target": plan.target, "target_type": settings.target.task, "target_reason": plan.target_reason,
            "columns": {n: {"type": t, "reason": plan.reasons.get(n, "as set")} for n, t in plan.types.items()},
            "left_out": plan.left_out, "warnings": plan.warnings,
        },
        "rows": rows, "rows_exact": exact, "letters_a_row": letters, "parameters": parameters,
        "recipe": asdict(recipe), "steps": told.steps, "memory_bytes": int(memory), "seconds_at_most": float(most),
        "words": {
            "rows": f"{'' if exact else 'about '}{rows:,}, each with about {sizes}; tokens {what}",
            "model": f"{backbone_in_words(told.model.config.backbone)}, about {parameters:,} parameters"
            + (f", {trained:,} of them trained" if trained < parameters else ""),
            "training": f"at most {limit}",
            "memory": f"about {size_in_words(memory)} for the model and a step, beside about 500 MB for the libraries",
            "time": f"at most about {duration(most)} of training on this machine (early stopping often halves it)",
        },
    }  # fmt: skip


def _foretold(settings: Settings, head: Table, scale: float) -> Foretold:
    """What a training takes whose table is ``scale`` times as long as its ``head``."""
    split = settings.data.split
    learnt = 1 - split.valid - (0 if split.column else split.test)
    # the first rows may all be of one part: they are split at random; at bad rows a run stops, not this
    data = settings.data.model_copy(update={"split": SplitSettings(test=0.0, valid=0.1), "max_rejected": 0.999})
    with tempfile.TemporaryDirectory() as folder:
        steps = WAYS[settings.target.task](
            settings.model_copy(update={"data": data}), head, Path(folder) / "run", Silent(), False
        )
        assert isinstance(steps, TextModelSteps)
        with steps.holding:
            return steps.foretell(scale * learnt / 0.9)
