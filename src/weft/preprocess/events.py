"""Rows that say what a user had: events, one item a row, or histories, one user a row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from weft.config import Settings
from weft.data.plan import Plan
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.letters import Letters
from weft.preprocess.paired import PairCleaner


@dataclass(frozen=True)
class EventColumns:
    """Which column says what. ``item`` holds ids, or histories where there are ``lists``."""

    item: str
    user: str | None
    time: str | None
    rating: str | None
    lists: bool

    @classmethod
    def of(cls, plan: Plan, settings: Settings) -> EventColumns:
        rating = next((n for n, kind in plan.types.items() if kind == "number"), None)
        lists = plan.types[plan.target] == "sequence"
        return cls(plan.target, settings.target.user, settings.target.time, rating, lists)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class EventCleaner(PairCleaner):
    """Sets a row aside whose item, user or time is missing; a history may be empty."""

    reason = "must hold a value, is missing"


def event_cleaner(columns: EventColumns, plan: Plan, letters: Letters) -> Cleaner:
    """How events are read."""
    plans = {
        name: ColumnPlan(kind, plan.formats.get(name), plan.separators.get(name)) for name, kind in plan.types.items()
    }
    needed = [name for name in (columns.user, columns.time) if name is not None]
    return EventCleaner(plans, letters, needed if columns.lists else [columns.item, *needed])
