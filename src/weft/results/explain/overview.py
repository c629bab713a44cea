"""What a model relies on, over many rows: what the report of a run says of it.

All from a sample of judged rows, as large as a time budget allows:

- the share of each column: the mean of |Shapley value| where a whole column is one player;
- the effect of a number: its Shapley value beside its value, in those rows;
- pairs that are read together: Shapley interactions (Grabisch & Roubens 1999), exact, of the columns that matter most
  while the others stay as they are;
- words: their mean Shapley value over the rows they stand in, drawn towards 0 where those are few, where it is
  farther from 0 than three standard errors;
- rows as examples: explained as ``weft explain`` does.

Of two classes all shares speak for the one that is looked for; of more, for the answer that the row gets.

Shape suffixes: R rows, K columns, N hidden rows, P players of a row.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np

from weft.features.columns import Columns
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.results.explain import shapley
from weft.results.explain.game import Games, Value
from weft.results.explain.page import told
from weft.results.explain.sampling import Design
from weft.results.explain.why import explain
from weft.results.explain.words import bare

LEAST_SECONDS, MOST_SECONDS, SHARE_OF_TRAINING = 5.0, 120.0, 0.1
LEAST_ROWS, MOST_ROWS = 8, 120
SETS = 128  # of columns, a row
EXAMPLES_UNTIL, COLUMNS_UNTIL, PAIRS_UNTIL = 0.3, 0.65, 0.8  # of the budget; the rest is for words
AT_ONCE = 512  # hidden rows asked about together
EXACT = 7  # columns
PAIRED = 6  # columns whose pairs are looked at: 64 sets a row
MOST_PLAYERS = 400  # a row of more is no sample for words
EXAMPLE_EVALUATIONS = 512
MOST_CURVES, MOST_PAIRS, MOST_WORDS, MOST_WORD_CLASSES = 3, 4, 8, 4
LEAST_WORD_ROWS, DRAWN_TO_ZERO = 3, 3.0
SURELY = 3.0  # standard errors from 0: of hundreds of words, some are two away by chance
BINS = 8
HARDLY = 0.02  # of all shares: a column below it hardly matters


def budget(training: float) -> float:
    """Seconds for the overview after a training of so many."""
    return float(np.clip(SHARE_OF_TRAINING * training, LEAST_SECONDS, MOST_SECONDS))


@dataclass
class Clock:
    """Tells when a share of the budget is spent."""

    seconds: float

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    def spent(self, share: float = 1.0) -> bool:
        return time.monotonic() - self.started >= share * self.seconds


def overview(
    columns: Columns, model: RowModels, sample: CleanBatch, examples: dict[str, CleanBatch], of: int | None,
    seconds: float, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The figures as JSON.

    Args:
        sample: rows in the order they are asked about, until the time is spent.
        examples: kind of example -> its rows, explained one by one of each kind in turn.
        of: the class that all shares speak for; None: the answer of each row.
        seconds: the budget; at least ``LEAST_ROWS`` rows and one example of each kind are looked at all the same.
    """
    texts = any(codec.type == "text" for codec in columns.codecs)
    clock = Clock(seconds if texts else seconds / PAIRS_UNTIL)  # nothing is left for words that are not there
    shown = _examples(columns, model, examples, clock, seed)
    games = Games(columns, model, sample.chosen(np.arange(len(sample.rows)) < MOST_ROWS), of)
    names = list(games.players.parts)
    shares_RK = _by_column(games, clock, seed)
    mean = np.abs(shares_RK).mean(axis=0) if len(shares_RK) else np.zeros(len(names))
    order = np.argsort(-mean, kind="stable").tolist()
    several = len(shares_RK) > 1
    error = np.abs(shares_RK).std(axis=0, ddof=1) / np.sqrt(len(shares_RK)) if several else np.zeros(len(mean))
    classes, kinds = games.classes, columns.types
    one_way = of is not None or not classes
    return {
        "method": "shap", "rows": len(shares_RK), "budget": seconds,
        "of": None if of is None or not classes else classes[of],
        "unit": "log odds" if classes else columns.target.name,
        "columns": [
            {"column": names[k], "mean": float(mean[k]), "error": float(error[k]),
             "share": float(mean[k] / max(mean.sum(), 1e-12))}
            for k in order
        ],
        "effects": [
            effect(names[k], sample, shares_RK[:, k]) for k in order
            if kinds[names[k]] == "number" and mean[k] >= HARDLY * mean.sum() > 0
        ][:MOST_CURVES] if one_way else [],
        "pairs": _pairs(games, shares_RK, order, names, clock),
        "words": _words(games, classes, of, clock, seed),
        "examples": shown, "seconds": round(time.monotonic() - clock.started, 2),
    }  # fmt: skip


def _examples(
    columns: Columns, model: RowModels, examples: dict[str, CleanBatch], clock: Clock, seed: int
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in examples}
    for turn in range(max((len(rows.rows) for rows in examples.values()), default=0)):
        for kind, rows in examples.items():
            if turn < len(rows.rows) and not (turn and clock.spent(EXAMPLES_UNTIL)):
                one = rows.chosen(np.arange(len(rows.rows)) == turn)
                found[kind].append(told(explain(columns, model, one, "shap", None, EXAMPLE_EVALUATIONS, seed)[0]))
    return found


def _worth(games: Games, rows: list[int], sets: np.ndarray) -> np.ndarray:
    """What the model says [rows, N] of each row when only the columns of a set [N, K] are there."""
    groups = [games.players.groups(r) for r in rows]
    asked = games.ask(np.repeat(rows, len(sets)), [s[g] for g in groups for s in sets])
    return asked.reshape(len(rows), len(sets))


def _every_set(players: int) -> np.ndarray:
    return (np.arange(2**players)[:, None] >> np.arange(players)) & 1 == 1


def _by_column(games: Games, clock: Clock, seed: int) -> np.ndarray:
    """The share of each column [R, K], of as many rows as there is time for."""
    k = len(games.players.parts)
    found: list[np.ndarray] = []
    if k <= EXACT:
        one, sets = None, _every_set(k)
    else:
        design = Design(k, 0, seed)
        design.grow(max(SETS, 4 * k) // 2)
        one = design.sets
        sets = np.concatenate([one, ~one])
    for rows in _in_turn(games, len(sets)):
        if len(found) >= LEAST_ROWS and clock.spent(COLUMNS_UNTIL):
            break
        for row, worth in zip(rows, _worth(games, rows, sets), strict=True):
            if one is None:
                found.append(shapley.exact(_said(worth), k).values)
            else:
                gains, total = np.subtract(*np.split(worth, 2)), games.full[row] - games.empty[row]
                found.append(shapley.by_regression(one, gains, total, np.ones(len(one), bool)).values)
    return np.array(found).reshape(len(found), k)


def _said(worth: np.ndarray) -> Value:
    """The game of a row that was asked about already."""
    return lambda present: worth


def _in_turn(games: Games, sets: int) -> list[list[int]]:
    """The rows, some at a time: so many that ``AT_ONCE`` hidden rows are asked about together."""
    rows, step = len(games.players.rows), max(1, AT_ONCE // sets)
    return [list(range(i, min(i + step, rows))) for i in range(0, rows, step)]


def effect(name: str, sample: CleanBatch, shares: np.ndarray) -> dict[str, Any]:
    """Value and share of a number in each row, and the mean share in up to ``BINS`` bins of as many rows."""
    values = sample.columns[name].to_numpy(zero_copy_only=False).astype(np.float64)[: len(shares)]
    there = ~np.isnan(values)
    values, shares = values[there], shares[there]
    points = [[float(v), float(s)] for v, s in zip(values, shares, strict=True)]
    if not len(values):
        return {"column": name, "points": [], "line": [], "direction": 0.0}
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, values)
    line = [
        [float(values[m].mean()), float(shares[m].mean())] for b in range(len(edges) + 1) if (m := place == b).any()
    ]
    ranks = [np.unique(x, return_inverse=True)[1].astype(np.float64) for x in (values, shares)]
    moves = all(r.std() > 0 for r in ranks)
    return {
        "column": name, "points": points, "line": line,
        "direction": float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if moves else 0.0,
    }  # fmt: skip


def _pairs(
    games: Games, shares_RK: np.ndarray, order: list[int], names: list[str], clock: Clock
) -> list[dict[str, Any]]:
    """The pairs of columns that are read together the most: mean |interaction| of the ``PAIRED`` largest columns."""
    chosen = [k for k in order if np.abs(shares_RK[:, k]).any()][:PAIRED] if len(shares_RK) else []
    if len(chosen) < 2:
        return []
    found: list[np.ndarray] = []
    sets = np.ones((2 ** len(chosen), len(names)), bool)
    sets[:, chosen] = _every_set(len(chosen))
    for rows in _in_turn(games, len(sets)):
        if rows[-1] >= len(shares_RK) or (len(found) >= LEAST_ROWS and clock.spent(PAIRS_UNTIL)):
            break
        found += [interactions(_said(worth), len(chosen)) for worth in _worth(games, rows, sets)]
    if not found:
        return []
    mean = np.abs(found).mean(axis=0)
    pairs: list[dict[str, Any]] = [
        {"columns": [names[chosen[i]], names[chosen[j]]], "mean": float(mean[i, j]), "rows": len(found)}
        for i, j in combinations(range(len(chosen)), 2)
    ]
    return sorted(pairs, key=lambda pair: -pair["mean"])[:MOST_PAIRS]


def interactions(value: Value, players: int) -> np.ndarray:
    """Shapley interactions [P, P], exact, the diagonal 0:

    sum over S without i, j of |S|! (P - |S| - 2)! / (P - 1)! (v(S + i + j) - v(S + i) - v(S + j) + v(S))
    """
    assert players <= 12
    present = _every_set(players)
    worth, size = value(present), present.sum(axis=1)
    found = np.zeros((players, players))
    for i, j in combinations(range(players), 2):
        out = np.flatnonzero(~present[:, i] & ~present[:, j])
        gain = worth[out | 1 << i | 1 << j] - worth[out | 1 << i] - worth[out | 1 << j] + worth[out]
        weight = np.array([1 / ((players - 1) * comb(players - 2, s)) for s in range(players - 1)])
        found[i, j] = found[j, i] = (weight[size[out]] * gain).sum()
    return found


def _words(games: Games, classes: list[str], of: int | None, clock: Clock, seed: int) -> list[dict[str, Any]]:
    """The most telling words for and against each class: of two the one looked for, else the most frequent answers."""
    if not games.players.words:
        return []
    shares: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    rows: dict[int, int] = defaultdict(int)
    for row, players in enumerate(games.players.rows):
        if row >= LEAST_ROWS and clock.spent():
            break
        if not 0 < len(players) <= MOST_PLAYERS:
            continue
        random = np.random.default_rng([seed, row])
        drawn = shapley.orders(len(players), 1, random, games.players.groups(row))
        added = shapley.by_orders(games.game(row), drawn).values
        rows[int(games.of[row])] += 1
        once: dict[str, float] = defaultdict(float)
        for player, share in zip(players, added.tolist(), strict=True):
            if player.start is not None:
                once[bare(player.shown).lower()] += share
        for word, share in once.items():
            shares[int(games.of[row])][word].append(share)
    found = []
    for place in sorted(shares, key=lambda c: -rows[c])[:MOST_WORD_CLASSES]:
        ranked: list[dict[str, Any]] = [
            {"word": word, "share": sum(s) / (len(s) + DRAWN_TO_ZERO), "rows": len(s)}
            for word, s in shares[place].items()
            if len(s) >= LEAST_WORD_ROWS and abs(np.mean(s)) > SURELY * np.std(s, ddof=1) / np.sqrt(len(s))
        ]  # fmt: skip
        ranked.sort(key=lambda w: -w["share"])
        up = [w for w in ranked if w["share"] > 0][:MOST_WORDS]
        down = [w for w in reversed(ranked) if w["share"] < 0][:MOST_WORDS]
        if up or down:
            found.append(
                {"class": classes[place] if classes else None, "rows": rows[place], "for": up, "against": down}
            )
    return found
