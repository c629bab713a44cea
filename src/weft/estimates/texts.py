"""What a task of texts beside others will read: validated before anything is spent; its time is not measured."""

from __future__ import annotations

from typing import Any

from weft.config import Settings
from weft.data.plan import Plan, look_embedding, look_sources, look_span, look_texts
from weft.data.table import Table
from weft.errors import DataError
from weft.estimates.rows import rows_of
from weft.tasks.language import open_source

LOOK = {"span": look_span, "embedding": look_embedding, "text": look_sources, "dialogue": look_texts}
SAMPLE_ROWS = 2_000


def estimate_texts(settings: Settings) -> dict[str, Any]:
    """Plan and sizes of a run. Raises what the run itself would raise on these settings and columns."""
    assert settings.data.source is not None
    table = Table.open(settings.data.source, settings.data.format)
    plan: Plan = LOOK[settings.target.task](settings, table)
    if settings.target.task in ("text", "dialogue"):
        open_source(settings)
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
    return {
        "plan": {
            "target": plan.target, "target_type": settings.target.task, "target_reason": plan.target_reason,
            "columns": {n: {"type": t, "reason": plan.reasons.get(n, "as set")} for n, t in plan.types.items()},
            "left_out": plan.left_out, "warnings": plan.warnings,
        },
        "rows": rows, "rows_exact": exact, "letters_a_row": letters,
        "words": {
            "rows": f"{'' if exact else 'about '}{rows:,}, each with about {sizes}; tokens {what}",
            "time": "not measured for this task; training.minutes is a limit that holds",
        },
    }  # fmt: skip
