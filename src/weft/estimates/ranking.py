"""What a recommendation will read: validated before anything is spent; its time is not measured."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from weft.config import Settings
from weft.data.plan import look_ranking
from weft.data.table import BATCH_ROWS, Table
from weft.errors import DataError
from weft.estimates.rows import rows_of
from weft.preprocess.events import EventColumns, event_cleaner


def estimate_ranking(settings: Settings) -> dict[str, Any]:
    """Plan and sizes of a run. Raises what the run itself would raise on these settings and columns."""
    assert settings.data.source is not None
    table = Table.open(settings.data.source, settings.data.format)
    plan = look_ranking(settings, table)
    if settings.data.items is not None:
        Table.open(settings.data.items.source)
    columns = EventColumns.of(plan, settings)
    cleaner = event_cleaner(columns, plan, settings.preprocess.normalize)
    rows, exact = rows_of(table)
    clean = next((cleaner(raw) for raw in table.batches(cleaner.plans, rows=BATCH_ROWS)), None)
    if clean is None or not len(clean.rows):
        raise DataError(f"{table.name}: must hold events that can be read. Got none in its first rows.")
    items = clean.columns[columns.item]
    flat = pc.struct_field(pc.list_flatten(items), "item") if columns.lists else items
    users = pc.count_distinct(clean.columns[columns.user]).as_py() if columns.user else len(clean.rows)
    events = len(flat) / len(clean.rows) * rows
    about = "" if exact and not columns.lists else "about "
    return {
        "plan": {
            "target": plan.target, "target_type": "ranking", "target_reason": plan.target_reason,
            "columns": {n: {"type": t, "reason": plan.reasons[n]} for n, t in plan.types.items()},
            "left_out": plan.left_out, "warnings": plan.warnings,
        },
        "rows": rows, "rows_exact": exact, "events": round(events),
        "words": {
            "rows": f"{about}{round(events):,} events; the first {len(flat):,} are of {users:,} users and "
            f"{pc.count_distinct(flat).as_py():,} items",
            "disk": f"about {round(events * 60 / 1e6) + 1:,} MB while it runs",
            "time": "not measured for this task; training.minutes is a limit that holds",
        },
    }  # fmt: skip
