"""How well the next item is found among all items, never among a sample of them (Krichene & Rendle 2020).

Shape suffixes: B questions at once, V items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from weft.features.events import Events, histories
from weft.inference.ranking import best
from weft.results.metrics import UNKNOWN, Estimate, Weighted, mean_of, with_intervals

TOP = 10
MOST_QUESTIONS, MOST_SCORES = 100_000, 2_000_000_000
"""That are judged; of more, events are drawn (never items)."""
SHOWN = ("hit_at_10", "ndcg_at_10", "mrr", "hit_at_1", "coverage", "popularity")
SAID = ("hit_at_10", "ndcg_at_10", "hit_at_1")
"""In which it stands beside the best simple way."""
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
        return {name: mean_of(np.bincount(self.users, v, self.rows), count) for name, v in values.items()}

    def estimates(self) -> dict[str, Estimate]:
        """The same with intervals over users; the share of the catalogue that is recommended at all has none."""
        covered = float((self.recommended > 0).mean())
        return with_intervals(self.metrics(), self.rows) | {
            "coverage": replace(UNKNOWN, value=covered), "gini": replace(UNKNOWN, value=gini(self.recommended)),
        }  # fmt: skip


def some_questions(events: Events, part: int, size: int, seed: int) -> tuple[np.ndarray, int]:
    """Events of a part that are asked for, and how many there are in all; of very many some are drawn.

    ``size``: items of the catalogue, each of which is scored for each.
    """
    places = events.places(part)
    most = int(min(MOST_QUESTIONS, MOST_SCORES // max(1, size)))
    if len(places) <= most:
        return places, len(places)
    return np.sort(np.random.default_rng(seed).choice(places, most, replace=False)), len(places)


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


def ranking_sentence(found: dict[str, Estimate], users: int, items: int) -> str:
    """The result in words."""
    ten, first = found["hit_at_10"], found["hit_at_1"]
    return (
        f"Of {users:,} users, {ten.value:.1%} find what they had next among the first ten of {items:,} items "
        f"({ten.interval('.1%')}), {first.value:.1%} as the first."
    )
