"""Probabilities that mean what they say."""

from __future__ import annotations

import math

import numpy as np


def fit_temperature(log_probabilities: np.ndarray, target: np.ndarray) -> float:
    """The T that minimises the log loss of softmax(log p / T) on the validation rows (Guo 2017)."""

    def loss(log_t: float) -> float:
        return tempered_loss(log_probabilities, target, float(np.exp(log_t)))

    from scipy.optimize import minimize_scalar

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
    return float(np.exp(found.x)) if loss(float(found.x)) < loss(0.0) else 1.0


def fit_threshold(margin: np.ndarray, answered: np.ndarray, silent: np.ndarray) -> float:
    """The threshold that gives the best mean score on the validation rows, as SQuAD 2.0's script chooses it.

    Args:
        margin: [N], what an answer leads no answer by; it is given above the threshold.
        answered, silent: [N], the score of each row with its answer given, and with none.

    Returns:
        half way between two margins; minus or plus infinity where all or no rows are best answered.
    """
    order = np.argsort(-margin, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((answered - silent)[order])])
    sorted_margin = np.concatenate([[np.inf], margin[order], [-np.inf]])
    possible = sorted_margin[:-1] > sorted_margin[1:]  # rows of one margin are answered together or not at all
    most = int(np.argmax(np.where(possible, gained, -np.inf)))
    if most in (0, len(margin)):
        return float(np.inf if most == 0 else -np.inf)
    return float((sorted_margin[most] + sorted_margin[most + 1]) / 2)


def fit_margin(margin: np.ndarray, equal: np.ndarray, most: float) -> float:
    """The least margin from which on rows may be answered in another way: with 95 % confidence at most a share ``most``
    of all rows then has another label.

    The bound is that of Clopper & Pearson 1934, by binomial chances. Margins are tried from the strictest on until one
    does not hold, so that trying several costs no confidence (fixed sequence testing; Angelopoulos 2021, "Learn then
    Test").

    Args:
        margin: [N], of validation rows.
        equal: [N], whether the other way gives a row the label that it has.

    Returns:
        from 0 to 1; infinity where the rows are too few to show that much.
    """
    wrong, rows = np.sort(margin[~equal])[::-1], np.arange(len(margin))
    ratios = np.log((len(margin) - rows) / (rows + 1) * most / (1 - most))
    log_chances = len(margin) * math.log1p(-most) + np.append(0.0, np.cumsum(ratios))
    # so few labels differ in one sample of twenty at most, where ``most`` of all do
    allowed = int((np.exp(log_chances).cumsum() <= 0.05).sum()) - 1
    if allowed < 0:
        return math.inf
    steps = np.append(np.linspace(0, 1, 201, dtype=np.float32), np.inf)
    return float(steps[np.searchsorted(steps, wrong[allowed], side="right")]) if allowed < len(wrong) else 0.0


def tempered_loss(log_probabilities: np.ndarray, target: np.ndarray, temperature: float) -> float:
    """Mean log loss of softmax(log p / T) in nats."""
    scaled = log_probabilities.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(target)), target]).mean())
