"""The section of an audit that says how a run fares with each group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.features.groups import Members
from weft.features.targets import ClassTarget, Target
from weft.results.audit.figures import by_members, values_of
from weft.results.audit.words import column_in_words, notes


def groups_section(
    parts: Sequence[Members], target: Target, output: np.ndarray, truth: np.ndarray, positive: int | None,
    thresholds: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Figures and sentences of each way to part the rows, as JSON.

    Args:
        output, truth: of the rows, as :func:`weft.results.summary.metrics_of` takes them.
        positive: the class whose share counts; None where no class does.
    """
    values = values_of(target, output, truth, positive, thresholds)
    of = target.classes[positive] if isinstance(target, ClassTarget) and positive is not None else None
    drawn = (output[:, : len(target.classes)], truth) if isinstance(target, ClassTarget) else ()
    return said_of([by_members(members, values, *drawn) for members in parts], len(truth), of)


def said_of(columns: list[dict[str, Any]], rows: int, of: str | None = None) -> dict[str, Any]:
    """The section of figures by column, with what is said of them."""
    return {
        "rows": rows, "of": of, "said": notes(columns),
        "columns": [{**found, "said": column_in_words(found, of)} for found in columns],
    }  # fmt: skip
