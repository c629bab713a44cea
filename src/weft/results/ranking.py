"""How well the next item is found among all items, never among a sample of them (Krichene & Rendle 2020).

Shape suffixes: B questions at once, V items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.features.events import Events
from weft.results.metrics import Estimate, Weighted, difference, with_intervals

TOP = 10
SHOWN = ("hit_at_10", "ndcg_at_10", "mrr", "hit_at_1", "coverage", "popularity")
Score = Callable[[np.ndarray], np.ndarray]
"""Places (events) [B] -> scores of every item for what comes there, by the events before it [B, V]."""


@dataclass
class Ranked:
    """Where the true item of each question stands, and what was recommended.

    users: whose question each is [N]. ranks: from 1, infinite where the item can never be recommended [N].
    popularity: mean share of the catalogue that is less popular than what was recommended [N].
    recommended: how often each item was among the first ``TOP`` [V].
    """

    users: np.ndarray
    ranks: np.ndarray
    popularity: np.ndarray
    recommended: np.ndarray

    @property
    def rows(self) -> int:
        """Users, which are what an interval draws anew."""
        return int(self.users.max()) + 1

    def metrics(self) -> dict[str, Weighted]:
        """Figures as functions of the weights of the users."""
        hit = self.ranks <= TOP
        values = {
            "hit_at_10": hit, "ndcg_at_10": np.where(hit, 1 / np.log2(1 + self.ranks), 0), "mrr": 1 / self.ranks,
            "hit_at_1": self.ranks <= 1, "popularity": self.popularity,
        }  # fmt: skip
        count = np.bincount(self.users, minlength=self.rows)
        return {name: _mean_of(np.bincount(self.users, v, self.rows), count) for name, v in values.items()}

    def estimates(self) -> dict[str, Estimate]:
        """The same with intervals over users; the share of the catalogue that is recommended at all has none."""
        covered = float((self.recommended > 0).mean())
        nothing = float("nan")
        return with_intervals(self.metrics(), self.rows) | {
            "coverage": Estimate(covered, nothing, nothing),
            "gini": Estimate(gini(self.recommended), nothing, nothing),
        }


def rank_questions(
    score: Score, events: Events, counts: np.ndarray, batches: Iterable[np.ndarray], taken: bool
) -> Ranked:
    """Rank every item at each question, some questions at a time. An item with the score of the true one is before it.

    Args:
        counts: training events of each item [V].
        batches: places (events) that are asked for.
        taken: whether items that the user had before may be recommended.
    """
    percentile = popularity_percentile(counts)
    places, ranks, popularity = [], [], []
    recommended = np.zeros(len(counts), np.int64)
    for some in batches:
        scores = score(some).astype(np.float64)
        if not taken:
            row, item = histories(events, some)
            scores[row[item > 0], item[item > 0] - 1] = -np.inf
        ranks.append(ranks_of(scores, np.asarray(events.items[some]).astype(np.int64) - 1))
        top = best(scores, TOP)
        there = np.take_along_axis(scores, top, 1) > -np.inf
        recommended += np.bincount(top[there], minlength=len(counts))
        popularity.append((percentile[top] * there).sum(1) / np.maximum(1, there.sum(1)))
        places.append(some)
    order = np.argsort(np.concatenate(places), kind="stable")
    owners = events.owners(np.concatenate(places)[order])
    users = np.unique(owners, return_inverse=True)[1]
    return Ranked(users, np.concatenate(ranks)[order], np.concatenate(popularity)[order], recommended)


def ranks_of(scores_BV: np.ndarray, truth_B: np.ndarray) -> np.ndarray:
    """1 + how many other items have at least the score of the true one [B]; infinite where it is none or excluded."""
    found = np.full(len(truth_B), np.inf)
    rows = np.flatnonzero(truth_B >= 0)
    own = scores_BV[rows, truth_B[rows]]
    # a score that is no number is never better than the truth, and the truth never better than another
    rank = (~(scores_BV[rows] < own[:, None])).sum(axis=1).astype(np.float64)
    found[rows] = np.where(own > -np.inf, rank, np.inf)
    return found


def best(scores_BV: np.ndarray, count: int) -> np.ndarray:
    """The items with the highest scores, the highest first, of equal ones the first [B, count or V]."""
    count = min(count, scores_BV.shape[1])
    if not count:
        return np.zeros((len(scores_BV), 0), np.int64)
    edge = np.partition(scores_BV, -count, axis=1)[:, [-count]]
    # those above the edge, then as many at the edge as there is room for
    order = np.where(scores_BV > edge, 2, 0) + (scores_BV == edge)
    chosen = np.argsort(-order, axis=1, kind="stable")[:, :count]
    within = np.lexsort((chosen, -np.take_along_axis(scores_BV, chosen, 1)), axis=1)
    return np.take_along_axis(chosen, within, 1)


def histories(events: Events, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(question, item) of all events of the same user before each place."""
    first = events.offsets[events.owners(places)]
    lengths = places - first
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(first - bounds[:-1], lengths) + np.arange(bounds[-1])
    return np.repeat(np.arange(len(places)), lengths), np.asarray(events.items[at]).astype(np.int64)


def popularity_percentile(counts: np.ndarray) -> np.ndarray:
    """Share of the items that have fewer training events, those with as many counted half [V]."""
    ordered = np.sort(counts)
    below, upto = np.searchsorted(ordered, counts, "left"), np.searchsorted(ordered, counts, "right")
    return (below + upto) / 2 / max(1, len(counts))


def gini(amounts: np.ndarray) -> float:
    """Gini coefficient: 0 where all are recommended alike, near 1 where a few are recommended always."""
    total, n = amounts.sum(), len(amounts)
    if not total:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(amounts) / (n * total))


def beside(ours: Ranked, others: dict[str, Ranked]) -> dict[str, Any]:
    """Ours minus each of the others on the same questions, with the intervals of the differences."""
    return {
        key: {m: difference(ours.metrics(), other.metrics(), m, ours.rows).to_dict() for m in ("hit_at_10", "ndcg_at_10")}
        for key, other in others.items()
    }  # fmt: skip


def _mean_of(sums: np.ndarray, counts: np.ndarray) -> Weighted:
    return lambda w: float((w * sums).sum() / (w * counts).sum())
