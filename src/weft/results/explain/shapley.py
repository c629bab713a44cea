"""Shapley values: what each player adds to the answer, on average over all orders in which players come in.

    phi_i = sum over S without i of |S|! (P - |S| - 1)! / P! (v(S + i) - v(S))          (Shapley 1953)

Players may stand in groups, the columns of a row, that come in together (Owen 1977): columns share out the answer as if
each were one player, and the parts of a column share out what it has.

Exact for few players. For more there are two estimates, which agree in the limit: by orders, each walked forwards
and backwards (Castro 2009; antithetic, Mitchell 2022), and by the weighted regression whose solution the values
are (kernel SHAP, Lundberg & Lee 2017) on pairs of a set and its rest (Covert & Lee 2021), of which none is drawn twice
and each size has its own weight, however many were drawn of it (after Musco & Witter 2025). Both give the standard
error of each value. All three share out v(all) - v(none) to the last bit.

Where the model gives several answers at once, one sample serves them all: worth is [N, O], the values are [P, O].

Shape suffixes: N hidden rows, or pairs of them, P players, K groups, O answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.results.explain.game import Value

MOST_EXACT = 12


@dataclass
class Shares:
    """Values [P] or [P, O] that add up to v(all) - v(none), and their standard errors (0 where exact)."""

    values: np.ndarray
    errors: np.ndarray


def members(groups: np.ndarray) -> list[np.ndarray]:
    """The players of each group that has any."""
    return [np.flatnonzero(groups == g) for g in np.unique(groups)]


def sets_of_exact(groups: np.ndarray) -> int:
    """How many sets :func:`exact` asks about."""
    sizes = [len(m) for m in members(groups)]
    return 2 ** len(sizes) + sum(2 ** (len(sizes) - 1) * (2**n - 2) for n in sizes)


def exact(value: Value, players: int, groups: np.ndarray | None = None) -> Shares:
    """All sets in which at most one group [P] is broken up; without groups all 2^P. P at most 20."""
    assert players <= 20
    bits = 1 << np.arange(players)
    columns = members(np.arange(players) if groups is None else groups)
    whole = np.array([bits[m].sum() for m in columns], np.int64)
    codes = [_sums(np.delete(whole, k))[:, None] + _sums(bits[m]) for k, m in enumerate(columns)]
    asked = np.unique(np.concatenate([c.ravel() for c in codes] or [np.zeros(1, np.int64)]))
    worth = value(asked[:, None] & bits > 0)
    around = _sums(np.ones(max(0, len(columns) - 1), np.int64))  # how many other groups each set holds
    found = np.zeros((players, *worth.shape[1:]))
    for m, c in zip(columns, codes, strict=True):
        mean = np.tensordot(_weights(len(columns))[around], worth[np.searchsorted(asked, c)], 1)
        # ``mean`` is the game among the group's players
        inside, size = np.arange(2 ** len(m)), _sums(np.ones(len(m), np.int64))
        for place, player in enumerate(m.tolist()):
            out = inside[inside >> place & 1 == 0]
            found[player] = _weights(len(m))[size[out]] @ (mean[out | 1 << place] - mean[out])
    return Shares(found, np.zeros_like(found))


def _sums(numbers: np.ndarray) -> np.ndarray:
    """The sum of each subset [2^n], in the order of the subsets' codes."""
    return (np.arange(2 ** len(numbers))[:, None] >> np.arange(len(numbers)) & 1) @ numbers


def _weights(players: int) -> np.ndarray:
    """|S|! (P - |S| - 1)! / P! by |S|, without large factorials."""
    weight = np.full(players, 1 / players)
    for s in range(1, players):
        weight[s] = weight[s - 1] * s / (players - s)
    return weight


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


def by_regression(
    sets: np.ndarray, gains: np.ndarray, total: float | np.ndarray, drawn: np.ndarray, all_by_chance: bool = False
) -> Shares:
    """The weighted least squares whose values add up to ``total``. All pairs of a size weigh together what the kernel
    gives their size, however many they are.

    Args:
        sets: one [N, P] of each pair of a set and its rest; each single player is among them, or its rest.
        gains: what the model says of the set, less what it says of the rest [N] or [N, O].
        drawn: which pairs are there by chance [N]. How far the line misses them, each left out of it in turn, tells the
            standard errors (MacKinnon & White 1985).
        all_by_chance: what is asked about beside the players is drawn for the other pairs, too; those are missed by as
            much.
    """
    players = sets.shape[1]
    smaller = np.minimum(sets.sum(axis=1), players - sets.sum(axis=1))
    weight = (size_weights(players) / np.maximum(np.bincount(smaller, minlength=players + 1), 1))[smaller]
    sign = 2.0 * sets - 1.0
    # the last value is the rest of the sum
    a, b = sign[:, :-1] - sign[:, -1:], gains - np.multiply.outer(sign[:, -1], total)
    pull = np.linalg.solve((a.T * weight) @ a, a.T * weight)  # of each pair on each value
    found = pull @ b
    miss = ((b - a @ found).T / np.maximum(1 - np.einsum("np,pn->n", a, pull), 1e-6)).T
    if all_by_chance and drawn.any():
        miss[~drawn] = np.sqrt((miss[drawn] ** 2).mean(axis=0))
    elif drawn.any():
        miss[~drawn] = 0.0
    else:
        miss[:] = np.inf if all_by_chance else 0.0
    pull = np.concatenate([pull, -pull.sum(axis=0, keepdims=True)])
    last = np.asarray(total - found.sum(axis=0))
    return Shares(np.concatenate([found, last[None]]), np.sqrt((pull**2) @ miss**2))


def size_weights(players: int) -> np.ndarray:
    """What all pairs of a size weigh together, by the size of the smaller of the two sets [P + 1]."""
    size = np.arange(1, players // 2 + 1)
    weight = np.where(2 * size == players, 1.0, 2.0) / (size * (players - size))
    return np.concatenate([[0.0], weight, np.zeros(players - len(size))])
