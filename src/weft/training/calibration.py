"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def fit_temperature(log_probabilities: np.ndarray, target: np.ndarray) -> float:
    """The T that minimises the log loss of softmax(log p / T) on the validation rows (Guo 2017)."""

    def loss(log_t: float) -> float:
        return tempered_loss(log_probabilities, target, float(np.exp(log_t)))

    found = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
    return float(np.exp(found.x)) if loss(float(found.x)) < loss(0.0) else 1.0


def tempered_loss(log_probabilities: np.ndarray, target: np.ndarray, temperature: float) -> float:
    """Mean log loss of softmax(log p / T) in nats."""
    scaled = log_probabilities.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(target)), target]).mean())
