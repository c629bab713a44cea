"""For whom a model is right and for whom it errs: groups of judged rows that differ clearly from the rest.

A group is a value of a category, a range of a number between its quartiles, or the rows where the cell is missing.
Many groups are looked at, so some differ by chance alone: one is told only where its difference from all other rows
is beyond chance even so (a two-sided test of two means with unequal variances, Welch 1947, Bonferroni's correction).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from weft.features.groups import ranges
from weft.results.metrics import share

LEAST = 30
"""Rows of a group, and of the rest."""
MOST_VALUES = 20
CHANCE = 0.05
TOLD = 4


def uneven(
    columns: Mapping[str, pa.Array], types: Mapping[str, str], loss: np.ndarray, told: int = TOLD
) -> dict[str, Any]:
    """The groups whose mean loss is clearly above or below that of the other rows, the farthest first.

    Args:
        columns: cells of the judged rows [N] of the columns to look at.
        types: of those columns; only categories and numbers make groups.
        loss: of each row [N]: 1 where the answer is wrong and 0 where it is right, or the distance from a number.
    """
    groups = [g for name in columns for g in _groups(name, types[name], columns[name])]
    groups = [g for g in groups if LEAST <= g[1].sum() <= len(loss) - LEAST]
    limit = NormalDist().inv_cdf(1 - CHANCE / 2 / max(1, len(groups)))
    found = []
    for group, mine in groups:
        a, b = loss[mine].astype(np.float64), loss[~mine].astype(np.float64)
        gap = a.mean() - b.mean()
        spread = float(np.sqrt(_variance(a) / len(a) + _variance(b) / len(b)))
        if abs(gap) > limit * spread:
            found.append({**group, "rows": len(a), "rest": float(b.mean()), "gap": float(gap), **_interval(a)})
    found.sort(key=lambda g: -abs(g["gap"]))
    return {
        "looked_at": len(groups), "overall": float(loss.mean()),
        "worse": [g for g in found if g["gap"] > 0][:told], "better": [g for g in found if g["gap"] < 0][:told],
    }  # fmt: skip


def _variance(loss: np.ndarray) -> float:
    """Of a share with one row of each kind added: a group that happens to be all right does vary (Agresti 2000)."""
    if _is_share(loss):
        p = (loss.sum() + 1) / (len(loss) + 2)
        return float(p * (1 - p))
    return float(loss.var(ddof=1))


def _interval(loss: np.ndarray) -> dict[str, float]:
    if _is_share(loss):
        return {k: v for k, v in share(float(loss.sum()), len(loss)).to_dict().items() if v is not None}
    half = 1.959964 * float(loss.std(ddof=1)) / np.sqrt(len(loss))
    return {"value": float(loss.mean()), "low": float(loss.mean() - half), "high": float(loss.mean() + half)}


def _is_share(loss: np.ndarray) -> bool:
    return bool(np.isin(loss, (0, 1)).all())


def _groups(name: str, kind: str, cells: pa.Array) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each group as it is told, and its rows [N]."""
    missing = cells.is_null().to_numpy(zero_copy_only=False)
    found: list[tuple[dict[str, Any], np.ndarray]] = [({"column": name, "is": None}, missing)]
    if kind == "category":
        words = np.array(cells.to_pylist(), object)
        values, counts = np.unique(words[~missing].astype(str), return_counts=True)
        for place in np.argsort(-counts, kind="stable")[:MOST_VALUES].tolist():
            found.append(({"column": name, "is": str(values[place])}, words == values[place]))
    elif kind == "number":
        values = cells.to_numpy(zero_copy_only=False).astype(np.float64)
        for low, high in ranges(values[~missing]):
            found.append(({"column": name, "from": low, "to": high}, (values >= low) & (values <= high)))
    return found
