"""Shapley values of rows from a sample: columns share out the answer, the parts of a column what it has (Owen 1977).

A pair is a set of players and all others. First come the pairs that hold a single part, or all pairs of few parts; then
pairs are drawn, their sizes by the kernel of Shapley's values. Many parts are walked through in random orders instead.
Among the parts of one column each other column is in the set or not by chance, as many as come in before it in an order
drawn at random; what they make of the answer is known from the columns' shares. Each of ``SEEDS`` generators draws its
own pairs, so that what comes of some seeds can be held against what comes of others. Asking goes on, round after round,
until the standard errors are small enough or the questions are used up.

``total`` is a number, or [O] where the model gives several answers at once.

Shape suffixes: N pairs, M parts, P players of a row, C other columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from weft.results.explain import shapley
from weft.results.explain.game import Value
from weft.results.explain.shapley import Shares

SEEDS = 8  # a power of two
FIRST = 16  # pairs drawn in the first round; each further one is half of all before
FEW = 6  # parts of which all sets are asked about
MANY = 32  # parts, from which on orders tell more than pairs
TRIES = 20  # draws of what nobody drew before, before there is nothing left to draw
SURE = 0.05  # standard error, of the largest share, at which asking stops


class Asked(Protocol):
    """What :func:`owen` asks: see :class:`weft.results.explain.game.Games`."""

    full: np.ndarray
    empty: np.ndarray

    def ask(self, row: np.ndarray, present: Sequence[np.ndarray]) -> np.ndarray: ...

    def game(self, row: int) -> Value: ...


class Design:
    """Which pairs to ask about among M parts with C other columns around; the same for every row of such a shape.

    ``sets`` [N, M]: one of each pair; ``around`` [N, C]: the columns that are in the set; ``part`` [N]: the seed, -1
    for the pairs that come first.
    """

    def __init__(self, parts: int, around: int, seed: int):
        self._random = [np.random.default_rng([seed, parts, around, k]) for k in range(SEEDS)]
        first = _all_pairs(parts) if parts <= FEW else np.eye(parts, dtype=bool)
        self.first = len(first)
        self.sets = first
        self.around = _subsets(self._random[0], self._random[0].integers(0, around + 1, len(first)), around)
        self.part = np.full(len(first), -1)
        self._sizes = np.arange(1 if parts <= FEW or around else 2, parts // 2 + 1)
        chance = shapley.size_weights(parts)[self._sizes]
        self._chance = chance / chance.sum()
        self._seen = {key.tobytes() for key in np.concatenate([self.sets, self.around], axis=1)}
        self.all = parts <= FEW and not around

    def grow(self, pairs: int) -> None:
        """Until there are so many pairs; or as many as there are at all."""
        while len(self.sets) < pairs and not self.all:
            drawn = [self._draw(k) for k in range(SEEDS)]
            self.sets = np.concatenate([self.sets, *(d[0] for d in drawn)])
            self.around = np.concatenate([self.around, *(d[1] for d in drawn)])
            self.part = np.concatenate([self.part, *(np.full(len(d[0]), k) for k, d in enumerate(drawn))])
            self.all = not any(len(d[0]) for d in drawn)

    def _draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The next pairs of one generator, one or two, that nobody drew before."""
        random, parts, around = self._random[seed], self.sets.shape[1], self.around.shape[1]
        for _ in range(TRIES):
            sets = _subsets(random, random.choice(self._sizes, FIRST // SEEDS, p=self._chance), parts)
            sets ^= ((2 * sets.sum(axis=1) == parts) & ~sets[:, 0])[:, None]  # of two halves always the same one
            there = _subsets(random, random.integers(0, around + 1, len(sets)), around)
            keys = [key.tobytes() for key in np.concatenate([sets, there], axis=1)]
            new = [i for i, key in enumerate(keys) if key not in self._seen and key not in keys[:i]]
            if new:
                self._seen.update(keys[i] for i in new)
                return sets[new], there[new]
        return sets[:0], there[:0]


def _subsets(random: np.random.Generator, sizes: np.ndarray, of: int) -> np.ndarray:
    """A random subset of each size [N, of]."""
    return np.argsort(np.argsort(random.random((len(sizes), of)), axis=1), axis=1) < sizes[:, None]


def _all_pairs(parts: int) -> np.ndarray:
    """One of each pair of a set and its rest, but for none and all."""
    codes = np.arange(1, 2 ** (parts - 1))
    return codes[:, None] >> np.arange(parts) & 1 == 1


Half = tuple[int, int]
"""Of the seeds those alone whose number has this bit, counted from the last, so."""


class _Stage:
    """What is shared out among some parts of a row [M, P], the other columns [C, P] around them."""

    def __init__(self, design: Design, parts: np.ndarray, around: np.ndarray):
        self.design, self.parts, self.around = design, parts, around
        self.gains = np.zeros(0)

    def ask(self, most: int) -> np.ndarray:
        """The hidden rows [2 N, P] to ask about next, at most ``most``: sets and then their rests."""
        n = len(self.gains)
        pairs = min(max(FIRST, n // 2) if n else self.design.first + FIRST, most // 2)
        self.design.grow(n + pairs)
        new = slice(n, n + pairs)
        sets = self.design.sets[new] @ self.parts | self.design.around[new] @ self.around
        return np.concatenate([sets, ~sets])

    def learn(self, worth: np.ndarray) -> None:
        known = self.gains.reshape(len(self.gains), *worth.shape[1:])
        self.gains = np.concatenate([known, np.subtract(*np.split(worth, 2))])

    def shares(self, total: Any, around: np.ndarray, half: Half | None) -> Shares:
        """Of a column that has ``total`` while the others have ``around`` [C]."""
        n, players = len(self.gains), len(self.parts)
        sets, part = self.design.sets[:n], self.design.part[:n]
        if n < self.design.first or not (self.design.all or part.max() >= 0):
            even = np.repeat(np.asarray(total / players)[None], players, axis=0)
            return Shares(even, np.full_like(even, np.inf))
        use = np.ones(n, bool) if half is None else (part < 0) | (part >> half[0] & 1 == half[1])
        # without what the other columns make of the gains
        own = self.gains - (2.0 * self.design.around[:n] - 1.0) @ around
        return shapley.by_regression(sets[use], own[use], total, part[use] >= 0, len(around) > 0)

    @property
    def over(self) -> bool:
        return self.design.all and len(self.gains) == len(self.design.sets)


class _Walks:
    """The same by orders, each walked forwards and, with all others in place of those that are there, backwards: of
    many parts what one more of them adds varies far less than the answer does (Castro 2009; Mitchell 2022)."""

    def __init__(self, parts: np.ndarray, around: np.ndarray, seed: int):
        self.parts, self.around, self._seed = parts, around, [seed, *parts.shape, len(around)]
        self._orders: list[np.ndarray] = []
        self._added: list[np.ndarray] = []
        self.over = False

    def ask(self, most: int) -> np.ndarray:
        m, n = len(self.parts), len(self._added)
        pairs = min(max(1, n // 2) if n else 2, most // (2 * m + 2))
        self._orders, sets = [], [np.zeros((0, self.parts.shape[1]), bool)]
        for k in range(n, n + pairs):
            random = np.random.default_rng([*self._seed, k])
            order = random.permutation(m)
            there = _subsets(random, random.integers(0, len(self.around) + 1, 1), len(self.around))
            inside = np.argsort(order) < np.arange(m + 1)[:, None]
            forwards = inside @ self.parts | there @ self.around
            sets += [forwards, ~forwards]
            self._orders.append(order)
        return np.concatenate(sets)

    def learn(self, worth: np.ndarray) -> None:
        self.over = not self._orders  # no question is left for another pair
        walks = worth.reshape(len(self._orders), 2, len(self.parts) + 1, *worth.shape[1:])
        for order, (forwards, others) in zip(self._orders, walks, strict=True):
            self._added.append(((np.diff(forwards, axis=0) - np.diff(others, axis=0)) / 2)[np.argsort(order)])

    def shares(self, total: Any, around: np.ndarray, half: Half | None) -> Shares:
        players = len(self.parts)
        added = [a for k, a in enumerate(self._added) if half is None or k >> half[0] & 1 == half[1]]
        found = np.mean(added, axis=0) if added else np.zeros((players, *np.shape(total)))
        error = np.std(added, axis=0, ddof=1) / len(added) ** 0.5 if len(added) > 1 else np.full_like(found, np.inf)
        return Shares(found + (total - found.sum(axis=0)) / players, error)


class _Row:
    """The columns of a row as one stage, and the parts of each column that has several."""

    def __init__(self, groups: np.ndarray, most: int, designs: dict[tuple[int, int], Design], seed: int):
        self._column = np.unique(groups, return_inverse=True)[1]
        whole = np.arange(self._column.max() + 1)[:, None] == self._column
        inside = {k: np.eye(len(groups), dtype=bool)[w] for k, w in enumerate(whole) if w.sum() > 1}
        shapes = [(whole, whole[:0])] if len(whole) > 1 else []
        shapes += [(parts, np.delete(whole, k, axis=0)) for k, parts in inside.items()]
        stages: list[_Stage | _Walks] = []
        for parts, around in shapes:
            shape = (len(parts), len(around))
            if len(parts) > MANY:
                stages.append(_Walks(parts, around, seed))
                continue
            if shape not in designs:
                designs[shape] = Design(*shape, seed)
            stages.append(_Stage(designs[shape], parts, around))
        self.open, self._left = list(stages), most
        self._root = stages.pop(0) if len(whole) > 1 else None
        self._stages = dict(zip(inside, stages, strict=True))

    def ask(self) -> list[np.ndarray]:
        """The hidden rows that the open stages ask about now, a list for each."""
        asked = []
        for stage in self.open:
            asked.append(stage.ask(self._left))
            self._left -= len(asked[-1])
        return asked

    def learn(self, worth: Sequence[np.ndarray], total: Any, sure: float) -> None:
        """What the model said; closes the stages that know enough, and all when no question is left."""
        for stage, said in zip(self.open, worth, strict=True):
            stage.learn(said)
        shares, errors = self._share_out(total)
        enough = sure * np.abs(shares.values).max()
        self.open = [s for s in self.open if errors[s] > enough and not s.over]
        if self._left < 2:
            self.open = []

    def shares(self, total: Any, half: Half | None = None) -> Shares:
        return self._share_out(total, half)[0]

    def _share_out(self, total: Any, half: Half | None = None) -> tuple[Shares, dict[_Stage | _Walks, float]]:
        """The shares of all players, and the largest error that each stage adds."""
        columns, largest = Shares(np.array([total]), np.zeros((1, *np.shape(total)))), {}
        if self._root is not None:
            columns = self._root.shares(total, np.zeros((0, *np.shape(total))), half)
            largest[self._root] = float(columns.errors.max())
        found = Shares(columns.values[self._column], columns.errors[self._column])
        for k, stage in self._stages.items():
            inside = stage.shares(columns.values[k], np.delete(columns.values, k, axis=0), half)
            place = self._column == k
            found.values[place] = inside.values
            found.errors[place] = np.hypot(inside.errors, columns.errors[k] / place.sum())
            largest[stage] = float(inside.errors.max())
        return found, largest

    def same_again(self, total: Any) -> float:
        """How alike the values are that two halves of the seeds give: the least of three ways to split them, of few
        orders of the one; 0 where there is no telling."""
        if not np.isfinite(self.shares(total).errors).all():
            return 0.0
        few = any(isinstance(stage, _Walks) for stage in (self._root, *self._stages.values()))
        bits = range(1 if few else SEEDS.bit_length() - 1)
        return min(alike(*(self.shares(total, (bit, side)).values for side in (0, 1))) for bit in bits)


def owen(
    games: Asked, groups: Sequence[np.ndarray], evaluations: int, seed: int = 0, sure: float = SURE
) -> list[tuple[Shares, float]]:
    """Of each row the values of its players, and how alike those are that different seeds give (the correlation).

    Args:
        groups: of each row the column that each player belongs to [P].
        evaluations: most hidden rows to ask about a row; where few players' values can be had exactly, four times that.
        sure: standard error, of the row's largest share, at which asking stops.
    """
    few = [len(g) <= shapley.MOST_EXACT and shapley.sets_of_exact(g) <= 4 * evaluations for g in groups]
    designs: dict[tuple[int, int], Design] = {}
    rows = {r: _Row(g, evaluations, designs, seed) for r, g in enumerate(groups) if not few[r]}
    totals = games.full - games.empty
    while waiting := {r: row for r, row in rows.items() if row.open}:
        asked = {r: row.ask() for r, row in waiting.items()}
        sets = [s for lists in asked.values() for s in lists]
        count = [sum(map(len, lists)) for lists in asked.values()]
        said = games.ask(np.repeat(list(asked), count), [p for s in sets for p in s])
        worth = iter(np.split(said, np.cumsum([len(s) for s in sets])[:-1]))
        for r, row in waiting.items():
            row.learn([next(worth) for _ in asked[r]], totals[r], sure)
    found = []
    for r, g in enumerate(groups):
        if few[r]:
            found.append((shapley.exact(games.game(r), len(g), g), 1.0))
            continue
        found.append((rows[r].shares(totals[r]), rows[r].same_again(totals[r])))
    return found


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """The correlation of two tries; 1 where nothing varies in either."""
    first, second = first.ravel(), second.ravel()
    if len(first) < 2 or not (first.std() and second.std()):
        return 1.0
    return float(np.corrcoef(first, second)[0, 1])
