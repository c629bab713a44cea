"""Metrics of labels, of which a row may have any number: names and definitions are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weft.results.metrics import Weighted


def label_metrics(probability_NL: np.ndarray, truth_NL: np.ndarray, threshold_L: np.ndarray) -> dict[str, Weighted]:
    """Micro and macro F1, subset accuracy and mean average precision, of the labels from their threshold on."""
    given, truth = probability_NL >= threshold_L, truth_NL.astype(bool)
    hits_NL = (given & truth).astype(np.float64)
    either_NL = given.astype(np.float64) + truth
    hits_N, either_N = hits_NL.sum(axis=1), either_NL.sum(axis=1)
    exact_N = (given == truth).all(axis=1).astype(np.float64)
    precision = _average_precision(probability_NL, truth)

    def micro(w: np.ndarray) -> float:
        return _f1(np.array(w @ hits_N), np.array(w @ either_N)).item()

    return {
        "micro_f1": micro,
        "macro_f1": lambda w: float(_f1(w @ hits_NL, w @ either_NL).mean()),
        "subset_accuracy": lambda w: float(w @ exact_N / w.sum()),
        "average_precision": lambda w: _mean(precision(w)),
    }


def each_label(
    names: Sequence[str], probability_NL: np.ndarray, truth_NL: np.ndarray, threshold_L: np.ndarray
) -> list[dict[str, Any]]:
    """Rows with the label, precision, recall, F1 and average precision of every label; None where there is none."""
    given, truth = probability_NL >= threshold_L, truth_NL.astype(bool)
    areas = _average_precision(probability_NL, truth)(np.ones(len(truth)))
    table = []
    for place, name in enumerate(names):
        g, t = given[:, place], truth[:, place]
        hits = float((g & t).sum())
        table.append({
            "label": name, "rows": int(t.sum()), "threshold": float(threshold_L[place]),
            "precision": hits / g.sum() if g.any() else None, "recall": hits / t.sum() if t.any() else None,
            "f1": 2 * hits / (g.sum() + t.sum()) if g.any() or t.any() else None,
            "average_precision": float(areas[place]) if t.any() else None,
        })  # fmt: skip
    return table


def _f1(hits: np.ndarray, either: np.ndarray) -> np.ndarray:
    """0 where the label neither is nor is given, as in scikit-learn."""
    return np.divide(2 * hits, either, out=np.zeros_like(hits, dtype=np.float64), where=either > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _average_precision(probability_NL: np.ndarray, truth_NL: np.ndarray) -> Any:
    """A function of row weights: the area under the precision-recall steps of each label [L], NaN where no row has it.

    Rows of equal probability are one step. Sorted once, whatever the weights.
    """
    order_NL = np.argsort(-probability_NL, axis=0, kind="stable")
    sorted_NL = np.take_along_axis(probability_NL, order_NL, axis=0)
    right_NL = np.take_along_axis(truth_NL, order_NL, axis=0)
    places = np.broadcast_to(np.arange(len(sorted_NL))[:, None], sorted_NL.shape)
    last = np.ones(sorted_NL.shape, bool)
    last[:-1] = sorted_NL[1:] != sorted_NL[:-1]
    # the end of each row's step: the nearest place from here on that is the last of its probability
    ends_NL = np.minimum.accumulate(np.where(last, places, len(sorted_NL))[::-1], axis=0)[::-1]

    def areas(w: np.ndarray) -> np.ndarray:
        weight_NL = w[order_NL]
        hits_NL = weight_NL * right_NL
        found, given = np.cumsum(hits_NL, axis=0), np.cumsum(weight_NL, axis=0)
        precision = np.divide(found, given, out=np.zeros_like(found), where=given > 0)
        total = found[-1]
        area = (hits_NL * np.take_along_axis(precision, ends_NL, axis=0)).sum(axis=0)
        return np.divide(area, total, out=np.full_like(total, np.nan), where=total > 0)

    return areas
