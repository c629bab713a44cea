"""What a model declines: is it right more often where it answers, and does it decline what has no answer?

Selective classification (El-Yaniv & Wiener 2010): coverage is the share of rows answered, risk the share of answers
that are wrong; the curve shows every threshold, the figures the one that validation rows chose.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.features import targets
from weft.features.targets import known
from weft.results.metrics import share
from weft.training.thresholds import coverage_threshold

CURVE_POINTS = 60


def judge_abstention(output: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Coverage, accuracy and out-of-scope recall with Wilson intervals, and the risk-coverage curve.

    Args:
        output: probabilities [N, C] and, in the last column, the score above the threshold (0 and up is answered).
        truth: codes [N] of classes, or OUTSIDE; rows of a class that training never saw are left out.
    """
    inside, outside = known(truth), targets.outside(truth)
    answered, rows = output[:, -1] >= 0, int(inside.sum())
    right = output[:, :-1].argmax(axis=1) == truth
    taken = int((inside & answered).sum())
    found: dict[str, Any] = {
        "in_scope": rows, "out_of_scope": int(outside.sum()), "beside": {},
        "coverage": share(taken, rows).to_dict(),
        "accuracy_answered": share(int((inside & answered & right).sum()), taken).to_dict(),
        "accuracy_all": share(int((inside & right).sum()), rows).to_dict(),
        "curve": risk_coverage(output[inside, -1], right[inside]) if rows else [],
    }  # fmt: skip
    if outside.any():
        declined = int((outside & ~answered).sum())
        found["out_of_scope_recall"] = share(declined, int(outside.sum())).to_dict()
        everything = int((~answered & (inside | outside)).sum())
        found["out_of_scope_precision"] = share(declined, everything).to_dict()
    return found


def recall_at(inside: np.ndarray, outside: np.ndarray, coverage: float) -> dict[str, float | None]:
    """The share of out-of-scope rows declined where ``coverage`` of these in-scope rows are answered, by their scores.

    For models without a threshold of their own: this one is taken from the judged rows, which flatters them.
    """
    return share(int((outside < coverage_threshold(inside, coverage)).sum()), len(outside)).to_dict()


def abstention_in_words(found: dict[str, Any]) -> list[str]:
    """What was declined, in a sentence or two."""
    lines = [
        f"It answers {_percent(found['coverage'])} of the rows that have an answer, and is right in "
        f"{_percent(found['accuracy_answered'])} of those (of all: {found['accuracy_all']['value']:.1%})."
    ]
    if found["out_of_scope"]:
        recall = _percent(found["out_of_scope_recall"])
        lines.append(f"Of {found['out_of_scope']:,} rows out of scope it declines {recall}.")
    return lines


def _percent(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "none"
    return f"{figure['value']:.1%} (95 % interval {figure['low']:.1%} to {figure['high']:.1%})"


def risk_coverage(score: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """The share of wrong answers among the surest rows, for growing shares of the rows."""
    order = np.argsort(-score, kind="stable")
    wrong = np.cumsum(~right[order])
    ends = np.unique(np.linspace(1, len(order), min(CURVE_POINTS, len(order))).round().astype(int))
    return [{"coverage": float(n / len(order)), "risk": float(wrong[n - 1] / n)} for n in ends]
