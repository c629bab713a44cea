"""LIME: a linear model that answers as the model does near one row (Ribeiro 2016).

Hidden rows are drawn (how many players are away is uniform, which ones is chance, as the reference implementation
draws them for texts), weighed by how much is there, exp(-d^2 / 2 w^2) with d = 100 (1 - cosine), w = 25, and ridge
regression is fitted. Its local R2 says how far a straight line tells what the model does here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGE = 1.0
WIDTH = 25.0


@dataclass
class Line:
    """Weights [P] or [P, O], the intercept (a number, or [O]), and the weighted R2 of the fit."""

    weights: np.ndarray
    intercept: float | np.ndarray
    r2: float


def draw_near(players: int, rows: int, random: np.random.Generator) -> np.ndarray:
    """Hidden rows [N, P]; the first is whole."""
    away = random.integers(1, players + 1, rows - 1)
    rank = np.argsort(np.argsort(random.random((rows - 1, players)), axis=1), axis=1)
    return np.concatenate([np.ones((1, players), bool), rank >= away[:, None]])


def by_line(present: np.ndarray, worth: np.ndarray, ridge: float = RIDGE) -> Line:
    """The weighted ridge regression on hidden rows [N, P] and what the model says of them [N] or [N, O]."""
    x = present.astype(np.float64)
    if not x.shape[1]:
        return Line(np.zeros((0, *worth.shape[1:])), worth.mean(axis=0), 1.0)
    cosine = np.sqrt(x.mean(axis=1))  # to the whole row, of which all entries are one
    weight = np.exp(-((100 * (1 - cosine)) ** 2) / WIDTH**2 / 2)
    total = weight.sum()
    mean_x, mean_y = weight @ x / total, weight @ worth / total
    inner = (x - mean_x) * weight[:, None]
    found = np.linalg.solve(inner.T @ (x - mean_x) + ridge * np.eye(x.shape[1]), inner.T @ (worth - mean_y))
    left = worth - (mean_y + (x - mean_x) @ found)
    spread = (weight @ (worth - mean_y) ** 2).sum()
    return Line(found, mean_y - mean_x @ found, float(1 - (weight @ left**2).sum() / spread) if spread > 0 else 1.0)
