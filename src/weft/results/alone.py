"""Whether one column alone nearly gives the answer: often it is only known when the answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

RIGHT, EXPLAINED, OF_NEXT, ROWS = 0.9, 0.98, 0.5, 50
"""A column stands out that is right in this share of the rows (of numbers: explains this share of the variance), errs
at most half as often as the next best one, and that beyond chance, in so many judged rows at least."""
_BINS, _IN_BIN = 100, 20


def stands_out(
    types: Mapping[str, str], target: tuple[str, str], learnt: Mapping[str, Any], judged: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The column that alone nearly gives the answer, far above the others; None where there is none.

    What a value says is learnt on one part's rows and judged on another's, so an id is not better than a guess.

    Args:
        types: of the columns that are read; numbers and categories are looked at.
        target: its name and type; class and number are looked at.
        learnt, judged: of each column the numbers (NaN where missing) or words of a part's rows.

    Returns:
        column: its name.
        share, next, base: rows named rightly (of numbers: R²) by it, by the best other column, and without any.
    """
    name, kind = target
    names = [n for n, t in types.items() if t in ("number", "category") and n != name]
    if kind not in ("class", "number") or not names:
        return None
    y, truth = _codes(learnt[name], judged[name], "category") if kind == "class" else (learnt[name], judged[name])
    seen, asked = (part >= 0 if kind == "class" else ~np.isnan(part) for part in (y, truth))
    y, truth = y[seen], truth[asked]
    if len(y) < ROWS or len(truth) < ROWS:
        return None
    score = _right if kind == "class" else _explained
    base = score(np.zeros(len(y), int), np.zeros(len(truth), int), y, truth)
    found = []
    for n in names:
        values, there = _codes(learnt[n], judged[n], types[n])
        found.append(score(values[seen], there[asked], y, truth))
    best = int(np.argmax(found))
    share, others = found[best], max([base, *found[:best], *found[best + 1 :]])
    chance = 3 * np.sqrt(max(0.0, others * (1 - others)) / len(truth))
    enough = RIGHT if kind == "class" else EXPLAINED
    if share < enough or 1 - share > OF_NEXT * (1 - others) or share - others <= chance:
        return None
    return {"column": names[best], "share": share, "next": others, "base": base}


def _codes(learnt: Any, judged: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers for words, or for the quantiles between which numbers lie; -1 where missing."""
    if kind == "category":
        words = pc.unique(learnt).drop_null()
        known, there = (pc.index_in(part, value_set=words) for part in (learnt, judged))
        there = pc.if_else(pc.and_(there.is_null(), judged.is_valid()), pa.scalar(len(words), pa.int32()), there)
        first, second = (c.fill_null(-1).to_numpy(zero_copy_only=False) for c in (known, there))
        return first, second
    values = learnt[~np.isnan(learnt)]
    parts = min(_BINS, len(values) // _IN_BIN)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, parts + 1)[1:-1], method="lower")) if parts else np.zeros(0)
    first, second = (np.where(np.isnan(p), -1, np.searchsorted(edges, p, side="right")) for p in (learnt, judged))
    return first, second


def _right(values: np.ndarray, there: np.ndarray, y: np.ndarray, truth: np.ndarray) -> float:
    """The share of rows whose class is the most frequent one of their value in the rows learnt from."""
    usual = int(np.bincount(y).argmax())
    classes = int(max(y.max(), truth.max())) + 1
    pairs, counts = np.unique((values + 1).astype(np.int64) * classes + y, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last one written is the most frequent
    answers = np.full(int(max(values.max(), there.max())) + 2, usual)
    answers[pairs[order] // classes] = pairs[order] % classes
    return float((answers[there + 1] == truth).mean())


def _explained(values: np.ndarray, there: np.ndarray, y: np.ndarray, truth: np.ndarray) -> float:
    """R² of the means of the values in the rows learnt from."""
    size = int(max(values.max(), there.max())) + 2
    counts = np.bincount(values + 1, minlength=size)
    means = np.bincount(values + 1, y - y.mean(), minlength=size) / np.maximum(counts, 1) + y.mean()
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((means[there + 1] - truth) ** 2).sum()) / spread if spread else 0.0
