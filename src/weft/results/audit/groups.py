"""The section of an audit that says how a run fares with each group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.features.groups import Members
from weft.features.targets import ClassTarget
from weft.results.audit.figures import by_members, values_of
from weft.results.audit.words import column_in_words, notes
from weft.results.outcomes import Outcomes


def groups_section(parts: Sequence[Members], said: Outcomes) -> dict[str, Any]:
    """Figures and sentences of each way to part the rows, as JSON."""
    values = values_of(said)
    of = None if said.positive is None else said.classes[said.positive]
    drawn = (said.probabilities, said.truth) if isinstance(said.target, ClassTarget) else ()
    return said_of([by_members(members, values, *drawn) for members in parts], len(said), of)


def said_of(columns: list[dict[str, Any]], rows: int, of: str | None = None) -> dict[str, Any]:
    """The section of figures by column, with what is said of them."""
    return {
        "rows": rows, "of": of, "said": notes(columns),
        "columns": [{**found, "said": column_in_words(found, of)} for found in columns],
    }  # fmt: skip
