"""Labels that may be wrong: confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels"), from answers about rows that the model did not learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from weft.preprocess.duplicates import Said
from weft.preprocess.ingest import ROW, CleanRows

NAMED = 20
_EDGE = 1e-6  # as the authors' own code has it: rounding does not decide
_LETTERS = 160


def suspects(probabilities: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label may be wrong, the most suspicious first, and the class that each seems to be of.

    A row counts as a class j where its probability of j is at least the mean one of the rows labelled j (equation 2 of
    the paper; of several such classes the most probable); it is a suspect where that is another class than its label,
    off the diagonal of the confident joint (equation 1). They are ranked by how much more probable the other class is.

    Args:
        probabilities: [N, C].
        given: the classes that the rows are labelled with [N].
    """
    count = probabilities.shape[1]
    rows = np.arange(len(given))
    own = probabilities[rows, given]
    sums = np.bincount(given, own, minlength=count)
    sizes = np.bincount(given, minlength=count)
    usual = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    sure = np.where(probabilities >= usual - _EDGE, probabilities, -1.0)
    seems = sure.argmax(axis=1)
    found = np.flatnonzero((sure.max(axis=1) >= 0) & (seems != given))
    margin = own[found] - probabilities[found, seems[found]]
    found = found[np.argsort(margin, kind="stable")]
    return found, seems[found]


def mislabelled(
    probabilities: np.ndarray, given: np.ndarray, places: np.ndarray, classes: list[str], clean: CleanRows,
    names: list[str],
) -> dict[str, Any]:  # fmt: skip
    """What ``report.json`` says of suspects; ``places`` of the rows among the cleaned ones, ``names`` of the columns to
    show of them."""
    found, seems = suspects(probabilities, given)
    some = found[:NAMED]
    cells = clean.take(places[some], [ROW, *names])
    return {
        "looked_at": len(given), "count": len(found),
        "rows": [
            {
                "row": cells[ROW][i].as_py(), "given": classes[given[at]], "seems": classes[seems[i]],
                "probability": float(probabilities[at, seems[i]]), "of_given": float(probabilities[at, given[at]]),
                "cells": {name: _shown(cells[name][i]) for name in names},
            }
            for i, at in enumerate(some.tolist())
        ],
    }  # fmt: skip


_SOME = (
    "Labels that may be wrong: {count:,} of {looked_at:,} rows that the model had not learnt. The most suspicious is "
    "row {row:,}: it is labelled “{given}”, the model says “{seems}” ({sure} sure). Where the answer is partly chance, "
    "most of them are right: look at the first ones."
)
_NONE = "Of {looked_at:,} rows that the model had not learnt none has a label that looks wrong."


def mislabelled_said(found: dict[str, Any] | None) -> list[Said]:
    """What the figures of suspects mean: phrases and what fills them."""
    if found is None:
        return []
    if not found["count"]:
        return [(_NONE, {"looked_at": found["looked_at"]})]
    first = found["rows"][0]
    sure = ">99%" if first["probability"] > 0.995 else f"{first['probability']:.0%}"
    named = {name: first[name] for name in ("row", "given", "seems")}
    return [(_SOME, {"count": found["count"], "looked_at": found["looked_at"], "sure": sure, **named})]


def _shown(cell: pa.Scalar) -> str:
    value = cell.as_py()
    text = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LETTERS else text[:_LETTERS] + "…"
