"""What a model does for each group of rows: figures with intervals, and the largest gap between two groups.

A figure is a mean over rows: a share with Wilson's interval (1927), a mean with Student's. Definitions are fairlearn's
(Bird 2020): demographic parity compares selection rates, equalized odds true and false positive rates (Hardt 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import stdtrit

from weft.features.groups import Members
from weft.features.targets import ClassTarget, LabelsTarget
from weft.results.groups import SMALL
from weft.results.metrics import UNKNOWN, Estimate, Weighted, reliability, share, with_intervals
from weft.results.outcomes import Outcomes

Values = dict[str, tuple[np.ndarray, np.ndarray]]
"""Of each figure the rows that it is a mean over [M], and what each of them adds [M]."""
ODDS = ("tpr", "fpr")
UNITED = ("mean_truth", "mean_answer", "mae", "bias", "bleu", "chrf")
"""Figures in a unit of their own; the others are shares, or differences of shares."""
Z = 1.959964
LEAST = 30
"""Rows that a figure must be made of to be compared."""


def class_values(probabilities: np.ndarray, truth: np.ndarray, positive: int | None) -> Values:
    """Of probabilities [N, C] and true codes [N]; ``positive``: the class whose share counts, if any does."""
    rows, guess = np.arange(len(truth)), probabilities.argmax(axis=1)
    found = {"accuracy": (rows, (guess == truth).astype(np.float64))}
    if positive is None:
        return found | {"calibration": (rows, probabilities.max(axis=1) - found["accuracy"][1])}
    chosen, true = (guess == positive).astype(np.float64), truth == positive
    return {
        "base_rate": (rows, true.astype(np.float64)), "selection_rate": (rows, chosen), **found,
        "tpr": (rows[true], chosen[true]), "fpr": (rows[~true], chosen[~true]),
        "calibration": (rows, probabilities[:, positive] - true),
    }  # fmt: skip


def values_of(said: Outcomes) -> Values:
    rows = np.arange(len(said))
    if isinstance(said.target, ClassTarget):
        found = class_values(said.probabilities.astype(np.float64), said.truth, said.positive)
        if said.output.shape[1] > len(said.classes):
            found["declined"] = rows, (said.output[:, -1] < 0).astype(np.float64)
        return found
    if isinstance(said.target, LabelsTarget):
        right = (said.given == said.truth).astype(np.float64)
        return {"subset_accuracy": (rows, right.min(axis=1)), "label_accuracy": (rows, right.mean(axis=1))}
    answer, true = said.output.astype(np.float64), said.true_numbers
    return {
        "mean_truth": (rows, true), "mean_answer": (rows, answer),
        "mae": (rows, np.abs(answer - true)), "bias": (rows, answer - true),
    }  # fmt: skip


def mean_of(values: np.ndarray) -> Estimate:
    """The mean with its interval: Wilson's of a share, else Student's."""
    if np.isin(values, (0, 1)).all():
        return share(float(values.sum()), len(values))
    if len(values) == 1:
        return replace(UNKNOWN, value=float(values[0]))
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    middle = float(values.mean())
    return Estimate(middle, middle - half, middle + half)


def by_members(
    members: Members, values: Values, output: np.ndarray | None = None, truth: np.ndarray | None = None
) -> dict[str, Any]:
    """The figures of each group and their gaps, as JSON; ``output`` [N, C] and ``truth`` [N] draw how sure it is."""
    found = []
    for number in range(len(members.names)):
        own = {key: v[members.place[rows] == number] for key, (rows, v) in values.items()}
        found.append({key: (mean_of(v), len(v)) for key, v in own.items()})
    told = _told(members, found)
    for number, group in enumerate(told["groups"]):
        rows = members.rows(number)
        group["reliability"] = None if output is None or truth is None else reliability(output[rows], truth[rows])
    return told


def by_weights(members: Members, metrics: Mapping[str, Weighted]) -> dict[str, Any]:
    """As :func:`by_members`, of figures that are no mean over rows: functions of the rows' weights [N]."""
    found = []
    for number in range(len(members.names)):
        rows, weights = members.rows(number), np.zeros(len(members.place))

        def of(metric: Weighted, rows: np.ndarray = rows, weights: np.ndarray = weights) -> Weighted:
            def weighted(w: np.ndarray) -> float:
                weights[rows] = w
                return metric(weights)

            return weighted

        own = with_intervals({key: of(metric) for key, metric in metrics.items()}, len(rows))
        found.append({key: (e, len(rows)) for key, e in own.items()})
    return _told(members, found)


def exposure(members: Members, recommended: np.ndarray, had: np.ndarray) -> dict[str, Any]:
    """How much of what is recommended each group of items has, beside what users had next, and all items.

    Args:
        recommended, had: how often each item was recommended, and was what a user had next [V].
    """
    whole = (recommended / max(1, recommended.sum()), had / max(1, had.sum()), np.full(len(had), 1 / len(had)))
    groups = []
    for number, name in enumerate(members.names):
        rows = members.rows(number)
        shares = {k: {"value": float(s[rows].sum()), "low": None, "high": None, "rows": len(rows)}
                  for k, s in zip(("exposure", "had_next", "offered"), whole, strict=True)}  # fmt: skip
        groups.append({"group": name, "rows": len(rows), "small": False, "metrics": shares})
    return {"column": members.column, "binned": members.binned, "groups": groups, "gaps": {}}


def _told(members: Members, found: Sequence[Mapping[str, tuple[Estimate, int]]]) -> dict[str, Any]:
    groups = []
    for number, (name, own) in enumerate(zip(members.names, found, strict=True)):
        rows = len(members.rows(number))
        shown = {key: e.to_dict() | {"rows": made} for key, (e, made) in own.items()}
        groups.append({"group": name, "rows": rows, "small": rows < SMALL, "metrics": shown})
    estimates = [{key: e for key, (e, _) in own.items()} for own in found]
    return {"column": members.column, "binned": members.binned, "groups": groups, "gaps": gaps(groups, estimates)}


def gaps(groups: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Estimate]]) -> dict[str, Any]:
    """Of each figure the two groups that are farthest apart, by how much, and the ratio of the lower to the higher.

    Small groups are compared only where there are not two others, and those of which less than ``LEAST`` rows make the
    figure only where there are not two with more. As the farthest of all pairs is told, its interval is that of all
    pairs at once (Bonferroni).
    """
    told = {}
    for key in found[0]:
        there = [i for i, own in enumerate(found) if np.isfinite(own[key].value)]
        enough = [i for i in there if groups[i]["metrics"][key]["rows"] >= LEAST]
        large = [i for i in enough if not groups[i]["small"]]
        there = next((some for some in (large, enough) if len(some) > 1), there)
        there = [there[i] for i in np.argsort([found[i][key].value for i in there], kind="stable")]
        if len(there) < 2:
            continue
        z = NormalDist().inv_cdf(1 - 0.025 / (len(there) * (len(there) - 1) // 2))
        a, b = found[there[-1]][key], found[there[0]][key]
        gap = difference(a, b, z / Z)
        if key not in (*UNITED, "calibration"):  # two shares are never farther apart than all and none
            gap = Estimate(gap.value, max(-1.0, gap.low), min(1.0, gap.high))
        told[key] = {
            "least": groups[there[0]]["group"], "most": groups[there[-1]]["group"],
            **gap.to_dict(), "ratio": ratio(b, a, z / Z).to_dict(),
        }  # fmt: skip
    if all(key in told for key in ODDS):
        told["equalized_odds"] = dict(max((told[key] for key in ODDS), key=lambda g: g["value"]))
    return told


def difference(a: Estimate, b: Estimate, wider: float = 1.0) -> Estimate:
    """a - b of two independent figures, from their intervals (square and add: Newcombe 1998, Zou & Donner 2008).

    ``wider``: by how much the interval is to be wider than the two."""
    d = a.value - b.value
    down, up = np.hypot(a.value - a.low, b.high - b.value), np.hypot(a.high - a.value, b.value - b.low)
    return Estimate(d, d - wider * float(down), d + wider * float(up))


def ratio(a: Estimate, b: Estimate, wider: float = 1.0) -> Estimate:
    """a / b of two independent shares, as :func:`difference` of their logarithms."""
    if not b.value > 0 or a.value < 0:
        return UNKNOWN
    if min(a.value, a.low, b.low) <= 0:
        return replace(UNKNOWN, value=a.value / b.value)
    x, y = (Estimate(*np.log([e.value, e.low, e.high]).tolist()) for e in (a, b))
    d = difference(x, y, wider)
    return Estimate(*np.exp([d.value, d.low, d.high]).tolist())
