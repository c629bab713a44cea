"""Shapley values: what each player adds to the answer, on average over all orders in which players come in.

    phi_i = sum over S without i of |S|! (P - |S| - 1)! / P! (v(S + i) - v(S))          (Shapley 1953)

Exact for few players. For more there are two estimates, which agree in the limit: by orders, each walked forwards
and backwards (Castro 2009; antithetic, Mitchell 2022), and by the weighted regression whose solution the values
are (kernel SHAP, Lundberg & Lee 2017), on all the smallest and largest
sets and others drawn in complementary pairs (Covert & Lee 2021). Both give the
standard error of each value. All three share out v(all) - v(none) to the last bit.

Shape suffixes: N hidden rows, P players.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from weft.results.explain.game import Value

MOST_EXACT = 12
PARTS = 10  # of a sample, whose differing answers tell the standard error


@dataclass
class Shares:
    """Values [P] that add up to v(all) - v(none), and their standard errors [P] (0 where exact)."""

    values: np.ndarray
    errors: np.ndarray


def exact(value: Value, players: int) -> Shares:
    """All 2^P sets; P at most 20."""
    assert players <= 20
    sets = np.arange(2**players)
    present = (sets[:, None] >> np.arange(players)) & 1 == 1
    worth = value(present)
    size = present.sum(axis=1)
    weight = np.ones(players)
    for s in range(1, players):  # |S|! (P - |S| - 1)! / P!, without large factorials
        weight[s] = weight[s - 1] * s / (players - s)
    weight = weight / players
    found = np.zeros(players)
    for i in range(players):
        out = np.flatnonzero(~present[:, i])
        found[i] = (weight[size[out]] * (worth[out | (1 << i)] - worth[out])).sum()
    return Shares(found, np.zeros(players))


def orders(players: int, pairs: int, random: np.random.Generator, groups: np.ndarray | None = None) -> np.ndarray:
    """Orders [2 pairs, P], every second the reverse of the one before it. ``groups`` [P]: players of one group come
    in together (Owen 1977)."""
    drawn = np.empty((2 * pairs, players), np.int64)
    for k in range(pairs):
        key = random.random(players)
        if groups is not None:
            key += random.permutation(groups.max() + 1)[groups]
        drawn[2 * k] = np.argsort(key)
        drawn[2 * k + 1] = drawn[2 * k][::-1]
    return drawn


def by_orders(value: Value, drawn: np.ndarray) -> Shares:
    """Mean of what each player adds when it comes in, over the orders [M, P] (pairs of opposites)."""
    walks, players = drawn.shape
    rank = np.argsort(drawn, axis=1)
    present = rank[:, None, :] < np.arange(players + 1)[None, :, None]
    worth = value(present.reshape(-1, players)).reshape(walks, players + 1)
    added = np.take_along_axis(np.diff(worth, axis=1), rank, axis=1)
    pairs = added.reshape(walks // 2, 2, players).mean(axis=1)
    error = pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.full(players, np.inf)
    return Shares(added.mean(axis=0), error)


def all_sets(players: int, most: int) -> tuple[np.ndarray, int]:
    """The smallest sets and their opposites [N, P], size after size as long as they are at most ``most``, and how many
    sizes those are on each side."""
    found: list[np.ndarray] = []
    size = 0
    while 2 * (size + 1) < players and sum(map(len, found)) + 2 * comb(players, size + 1) <= most:
        size += 1
        chosen = np.zeros((comb(players, size), players), bool)
        for row, members in zip(chosen, combinations(range(players), size), strict=True):
            row[list(members)] = True
        found.append(np.stack([chosen, ~chosen], axis=1).reshape(-1, players))
    return np.concatenate([np.zeros((0, players), bool), *found]), size


def draw_sets(players: int, pairs: int, random: np.random.Generator, known: int = 0) -> np.ndarray:
    """Sets [2 pairs, P] by the kernel (P - 1) / (C(P, s) s (P - s)), every second the rest of the one before it;
    none of the ``known`` smallest and largest sizes."""
    sizes = np.arange(1 + known, players - known)
    chance = 1 / (sizes * (players - sizes))
    size = random.choice(sizes, pairs, p=chance / chance.sum())
    rank = np.argsort(np.argsort(random.random((pairs, players)), axis=1), axis=1)
    chosen = rank < size[:, None]
    return np.stack([chosen, ~chosen], axis=1).reshape(-1, players)


def by_regression(sets: np.ndarray, worth: np.ndarray, none: float, all_: float, known: int = 0) -> Shares:
    """The weighted least squares over sets [N, P] and their worth [N], whose values add up to ``all_ - none``.

    The first sets are those of :func:`all_sets`, all of the ``known`` smallest and largest sizes, each with its own
    weight; the others were drawn by :func:`draw_sets` and share the weight of their sizes.
    """
    players = sets.shape[1]
    size = sets.sum(axis=1)
    whole = (size <= known) | (size >= players - known)
    kernel = np.array([0.0, *((players - 1) / (s * (players - s)) for s in range(1, players)), 0.0])
    weight = np.zeros(len(sets))
    weight[whole] = [kernel[s] / comb(players, s) for s in size[whole].tolist()]
    rest = kernel[known + 1 : players - known].sum()
    drawn = np.flatnonzero(~whole)
    # the last value is the rest of the sum
    a = sets[:, :-1].astype(np.float64) - sets[:, -1:]
    b = worth - none - sets[:, -1] * (all_ - none)

    def solve(chosen: np.ndarray) -> np.ndarray:
        w = weight.copy()
        w[chosen] = rest / max(1, len(chosen))
        root = np.sqrt(w)
        found = np.linalg.lstsq(a * root[:, None], b * root, rcond=None)[0]
        return np.append(found, all_ - none - found.sum())

    values = solve(drawn)
    pairs = len(drawn) // 2
    part = np.repeat(np.arange(pairs) % PARTS, 2)
    if pairs < 2 * PARTS or (not known and pairs * (PARTS - 1) // PARTS < players):
        return Shares(values, np.full(players, np.inf))
    left_out = np.stack([solve(drawn[part != k]) for k in range(PARTS)])  # the jackknife over parts
    error = np.sqrt((PARTS - 1) / PARTS * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    return Shares(values, error)
