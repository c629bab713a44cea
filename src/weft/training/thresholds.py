"""Where to draw the line, on validation rows: which rows are answered, which labels are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LABEL_ROWS = 20
"""Validation rows that must hold a label for it to have a threshold of its own."""


def coverage_threshold(scores: np.ndarray, coverage: float) -> float:
    """The highest score from which on at least the share ``coverage`` of the rows lie."""
    declined = int(np.floor((1 - coverage) * len(scores) + 1e-9))
    return float(np.sort(scores)[min(declined, len(scores) - 1)])


def area_under_roc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The chance that a row of a class scores higher than one of none; ties count half."""
    order = np.sort(outside)
    below = np.searchsorted(order, inside, "left") + np.searchsorted(order, inside, "right")
    return float(below.mean() / (2 * len(order)))


def choose_score(inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray]) -> tuple[str, dict[str, float]]:
    """The score that tells the two kinds of validation rows apart best, and the area under the ROC curve of each.

    Without rows of the second kind, the first score.
    """
    names = list(inside)
    if not len(outside[names[0]]):
        return names[0], {}
    areas = {name: area_under_roc(inside[name], outside[name]) for name in names}
    return max(names, key=lambda name: areas[name]), areas


def label_thresholds(probability_NL: np.ndarray, truth_NL: np.ndarray) -> np.ndarray:
    """The threshold of each label [L] that gives the best F1: its own where enough rows hold it, else one for all.

    Lipton, Elkan & Narayanaswamy 2014: the best threshold for F1 is not 0.5.
    """
    together = f1_threshold(probability_NL.ravel(), truth_NL.ravel())
    enough = truth_NL.sum(axis=0) >= LABEL_ROWS
    found = [
        f1_threshold(p, t) if own else together for p, t, own in zip(probability_NL.T, truth_NL.T, enough, strict=True)
    ]
    return np.array(found, np.float32)


def f1_threshold(probability: np.ndarray, truth: np.ndarray) -> float:
    """Half way between the last probability that should be given and the next that should not."""
    if not truth.any():
        return 0.5
    values, place = np.unique(-probability.astype(np.float64), return_inverse=True)
    hits = np.cumsum(np.bincount(place, truth, len(values)))
    given = np.cumsum(np.bincount(place, minlength=len(values)))
    best = int(np.argmax(2 * hits / (given + truth.sum())))
    following = -values[best + 1] if best + 1 < len(values) else 0.0
    return float((-values[best] + following) / 2)
