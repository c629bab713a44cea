"""SHAP and LIME of whatever says something without some of its players, with the checks that say whether to trust it.

``shap``  what each player adds, on average over all orders; asks until the shares are sure enough
``lime``  the slopes of a straight line fitted near the row (Ribeiro 2016): hidden rows are drawn (how many players are
          away is uniform, which ones is chance, as the reference implementation draws them for texts), weighed by how
          much is there, exp(-d^2 / 2 w^2) with d = 100 (1 - cosine), w = 25, and ridge regression is fitted

Shape suffixes: N hidden rows, P players, O answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from weft.results.explain.sampling import Asked, alike, owen
from weft.results.explain.texts import Player

RIDGE = 1.0
WIDTH = 25.0


@dataclass(frozen=True)
class Check:
    """One test of an explanation: ``value`` must be on the right side of ``limit``."""

    name: str
    value: float
    limit: float
    passed: bool


@dataclass(kw_only=True)
class Shared:
    """What each player adds: ``shares`` and their standard ``errors`` [P], or [P, O] of several answers at once."""

    shares: np.ndarray
    errors: np.ndarray
    checks: list[Check]
    score: Any
    """What the model says with all players; of several answers [O]."""
    base: Any
    """The same without any."""
    evaluations: int = 0

    @property
    def reliable(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(kw_only=True)
class Explained(Shared):
    """A row, or a text, with the shares of its players."""

    row: int
    method: str
    target: str
    players: list[Player]
    texts: dict[str, str] = field(default_factory=dict)
    """The texts as the model reads them; ``start`` and ``end`` of their players count its characters."""
    seconds: float = 0.0


def shap(games: Asked, groups: Sequence[np.ndarray], evaluations: int, seed: int) -> list[Shared]:
    """Of each row; ``groups``: of each the column that each player belongs to [P]."""
    found = []
    for r, (shares, again) in enumerate(owen(games, groups, evaluations, seed)):
        whole, values = games.full[r] - games.empty[r], shares.values
        missed, largest = np.abs(values.sum(axis=0) - whole).max(), np.abs(values).max(initial=0.0)
        checks = [
            at_most("adds up", missed / max(1e-3, np.abs(whole).max()), 1e-4),
            at_most("sampling error", shares.errors.max(initial=0.0) / max(largest, 1e-9), 0.25),
            at_least("same again", again, 0.7),
        ]
        found.append(of_row(games, r, values, shares.errors, checks))
    return found


def lime(games: Asked, groups: Sequence[np.ndarray], evaluations: int, seed: int) -> list[Shared]:
    near = [draw_near(max(1, len(g)), evaluations, np.random.default_rng([seed, r])) for r, g in enumerate(groups)]
    near = [n[:, : len(g)] for n, g in zip(near, groups, strict=True)]  # a row may hold nothing
    asked = games.ask(np.repeat(np.arange(len(near)), evaluations), [p for n in near for p in n])
    found = []
    for r, (n, worth) in enumerate(zip(near, np.split(asked, len(near)), strict=True)):
        line = by_line(n, worth)
        first, second = by_line(n[::2], worth[::2]).weights, by_line(n[1::2], worth[1::2]).weights
        checks = [at_least("local R2", line.r2, 0.5), at_least("same again", alike(first, second), 0.7)]
        found.append(of_row(games, r, line.weights, np.abs(first - second) / 2, checks))
    return found


def of_row(games: Asked, row: int, shares: np.ndarray, errors: np.ndarray, checks: list[Check]) -> Shared:
    return Shared(shares=shares, errors=errors, checks=checks, score=games.full[row], base=games.empty[row])


class Line(NamedTuple):
    """Weights [P] or [P, O], and the weighted R2 of the fit."""

    weights: np.ndarray
    r2: float


def draw_near(players: int, rows: int, random: np.random.Generator) -> np.ndarray:
    """Hidden rows [N, P]; the first is whole."""
    away = random.integers(1, players + 1, rows - 1)
    rank = np.argsort(np.argsort(random.random((rows - 1, players)), axis=1), axis=1)
    return np.concatenate([np.ones((1, players), bool), rank >= away[:, None]])


def by_line(present: np.ndarray, worth: np.ndarray, ridge: float = RIDGE) -> Line:
    """The weighted ridge regression on hidden rows [N, P] and what the model says of them [N] or [N, O]; its R2 says
    how far a straight line tells what the model does here."""
    x = present.astype(np.float64)
    if not x.shape[1]:
        return Line(np.zeros((0, *worth.shape[1:])), 1.0)
    cosine = np.sqrt(x.mean(axis=1))  # to the whole row, of which all entries are one
    weight = np.exp(-((100 * (1 - cosine)) ** 2) / WIDTH**2 / 2)
    total = weight.sum()
    mean_x, mean_y = weight @ x / total, weight @ worth / total
    inner = (x - mean_x) * weight[:, None]
    found = np.linalg.solve(inner.T @ (x - mean_x) + ridge * np.eye(x.shape[1]), inner.T @ (worth - mean_y))
    left = worth - (mean_y + (x - mean_x) @ found)
    spread = (weight @ (worth - mean_y) ** 2).sum()
    return Line(found, float(1 - (weight @ left**2).sum() / spread) if spread > 0 else 1.0)


def at_most(name: str, value: float, limit: float) -> Check:
    return Check(name, float(value), limit, bool(value <= limit))


def at_least(name: str, value: float, limit: float) -> Check:
    return Check(name, float(value), limit, bool(value >= limit))
