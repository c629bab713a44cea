"""What a recommendation will read, build, need and take, before any of it is spent.

The six steps themselves begin on the first rows of the table, and the model takes a few steps on them; sizes are
carried over to the whole.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from weft.config import Settings
from weft.data.plan import look_ranking
from weft.data.table import Table
from weft.errors import DataError
from weft.estimates.rows import rows_of, size_in_words
from weft.models.row import backbone_in_words
from weft.progress import Silent, duration
from weft.tasks.ranking import RankingSteps

SAMPLE_ROWS = 50_000
BYTES = 60
"""On disk while it runs, of an event."""


def estimate_ranking(settings: Settings) -> dict[str, Any]:
    """Plan, sizes, memory and time of a run. Raises what the run itself would raise on these settings and columns."""
    assert settings.data.source is not None
    table = Table.open(settings.data.source, settings.data.format)
    plan = look_ranking(settings, table)
    rows, exact = rows_of(table)
    head = table.head(SAMPLE_ROWS)
    if not head.num_rows:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    exact |= head.num_rows < SAMPLE_ROWS
    rows = head.num_rows if head.num_rows < SAMPLE_ROWS else max(rows, head.num_rows)
    data = settings.data.model_copy(update={"max_rejected": 0.999})  # at bad rows a run stops, not this
    with tempfile.TemporaryDirectory() as folder:
        steps = RankingSteps(settings.model_copy(update={"data": data}), Table.of(head), Path(folder) / "run", Silent(),
                             False)  # fmt: skip
        with steps.holding:
            gathered, model, seconds, activations = steps.foretell()
    scale = rows / head.num_rows
    recipe, events = steps.recipe, round(len(gathered.events.items) * scale)
    count = int(np.ceil(steps.windows * scale / recipe.batch_rows)) * recipe.epochs
    # gradients, two moments, the average and the best beside the weights
    memory = 24 * steps.parameters + activations
    most, limit = count * seconds * 1.1, f"{recipe.epochs:,} epochs"
    if recipe.minutes:
        most, limit = min(most, 60 * recipe.minutes), f"{recipe.minutes:g} minutes"
    return {
        "plan": {
            "target": plan.target, "target_type": "ranking", "target_reason": plan.target_reason,
            "columns": {n: {"type": t, "reason": plan.reasons[n]} for n, t in plan.types.items()},
            "left_out": plan.left_out, "warnings": plan.warnings,
        },
        "rows": rows, "rows_exact": exact, "events": events, "parameters": steps.parameters,
        "recipe": asdict(recipe), "steps": count, "memory_bytes": int(memory), "disk_bytes": events * BYTES,
        "seconds_at_most": float(most),
        "words": {
            "rows": f"{'' if exact else 'about '}{events:,} events; those of the first {head.num_rows:,} rows are of "
            f"{steps.counts['users']:,} users and {len(gathered.names):,} items",
            "model": f"{backbone_in_words(model.config.backbone)}, {steps.parameters:,} parameters for those items",
            "training": f"at most {limit}",
            "memory": f"about {size_in_words(memory)} for the model and a step, beside about 500 MB for the libraries",
            "disk": f"about {size_in_words(events * BYTES)} while it runs",
            "time": f"at most about {duration(most)} of training on this machine (early stopping often halves it)",
        },
    }  # fmt: skip
