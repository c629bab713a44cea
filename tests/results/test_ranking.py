"""Ranks, hits, NDCG and the simple recommenders against plain loops over users and items."""

import itertools

import numpy as np
import pytest

from weft.data.split import TEST, TRAIN
from weft.features.events import Events, leave_last
from weft.inference.ranking import best
from weft.results.ranking import Ranked, gini, popularity_percentile, rank_questions, ranks_of
from weft.results.ranking_baselines import baselines, cosines, user_items

ITEMS = 12


def made(seed=0, users=30):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, users))])
    items = random.integers(0, ITEMS + 1, offsets[-1]).astype(np.int32)  # 0: not in the catalogue
    events = Events(offsets, items, None, None, np.zeros(len(items), np.uint8))
    leave_last(events)
    return events


def counts_of(events):
    return np.bincount(events.items[events.parts == TRAIN], minlength=ITEMS + 1)[1:]


def users_of(events):
    return [
        (events.items[a:b].tolist(), events.parts[a:b].tolist())
        for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize("taken", [True, False])
def test_figures_are_those_of_a_plain_loop_whatever_the_batches(taken):
    events, random = made(), np.random.default_rng(5)
    counts, places = counts_of(events), events.places(TEST)
    table = random.integers(0, 6, (len(events.items), ITEMS)).astype(float)  # many ties
    found = rank_questions(lambda some: table[some], events, counts, np.array_split(places, 4), taken)
    hits, ndcg, mrr, first, popular, seen = [], [], [], [], [], set()
    percentile = [
        (sum(c < counts[j] for c in counts) + sum(c <= counts[j] for c in counts)) / 2 / ITEMS for j in range(ITEMS)
    ]
    for place in places:
        begin = events.offsets[np.searchsorted(events.offsets, place, side="right") - 1]
        had = set(events.items[begin:place].tolist())
        scores = {j: table[place, j - 1] for j in range(1, ITEMS + 1) if taken or j not in had}
        truth = int(events.items[place])
        rank = sum(s >= scores[truth] for s in scores.values()) if truth in scores else np.inf
        hits.append(rank <= 10)
        ndcg.append(1 / np.log2(rank + 1) if rank <= 10 else 0)
        mrr.append(1 / rank)
        first.append(rank == 1)
        top = sorted(scores, key=lambda j: (-scores[j], j))[:10]
        popular.append(np.mean([percentile[j - 1] for j in top]))
        seen |= set(top)
    figures = found.estimates()
    wanted = {"hit_at_10": hits, "ndcg_at_10": ndcg, "mrr": mrr, "hit_at_1": first, "popularity": popular}
    for key, values in wanted.items():
        assert figures[key].value == pytest.approx(np.mean(values)), key
        assert figures[key].low <= figures[key].value <= figures[key].high
    assert figures["coverage"].value == len(seen) / ITEMS


def test_an_equal_score_never_helps():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [np.nan, 2.0, 1.0, 0.0], [3.0, np.nan, 0.0, 0.0]])
    assert ranks_of(scores, np.array([0, 1, 1])).tolist() == [3, 2, np.inf]
    assert ranks_of(np.zeros((2, 5)), np.array([0, -1])).tolist() == [5, np.inf]
    assert ranks_of(np.array([[-np.inf, 0.0]]), np.array([0])).tolist() == [np.inf]


def test_the_best_are_those_of_a_sort_and_never_more_than_there_are():
    scores = np.random.default_rng(0).integers(0, 5, (40, 9)).astype(float)
    for count in (1, 4, 9, 50):
        wanted = np.lexsort((np.tile(np.arange(9), (40, 1)), -scores), axis=1)[:, :count]
        np.testing.assert_array_equal(best(scores, count), wanted)


def test_users_with_several_questions_weigh_by_their_questions_and_are_drawn_whole():
    ranked = Ranked(np.array([0, 0, 0, 1]), np.array([1.0, 1, 1, 99]), np.ones(4), np.ones(3, int))
    metric = ranked.metrics()["hit_at_10"]
    assert metric(np.array([1.0, 1.0])) == 0.75 and metric(np.array([0.0, 2.0])) == 0.0 and ranked.rows == 2


def test_gini_and_percentiles():
    assert gini(np.array([5, 5, 5, 5])) == pytest.approx(0) and gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    amounts = np.random.default_rng(0).integers(0, 20, 30)
    pairs = np.abs(amounts[:, None] - amounts[None]).sum() / (2 * 30**2 * amounts.mean())
    assert gini(amounts) == pytest.approx(pairs)
    assert popularity_percentile(np.array([5, 1, 5, 9])).tolist() == [0.5, 0.125, 0.5, 0.875]


def by_hand(events, key, taken):
    """Scores of each test place, by dictionaries."""
    counts, found = counts_of(events), {}
    users = users_of(events)
    learnt = [[i for i, p in zip(items, parts, strict=True) if p == TRAIN] for items, parts in users]
    sets = {j: {u for u, items in enumerate(learnt) if j in items} for j in range(1, ITEMS + 1)}
    share = counts / counts.sum()
    steps = {}
    for items in learnt:
        for a, b in itertools.pairwise(items):
            if a and b:
                steps.setdefault(a, []).append(b)
    for items, parts in users:
        for place in [i for i, p in enumerate(parts) if p == TEST]:
            had, scores = items[:place], np.zeros(ITEMS)
            for j in range(1, ITEMS + 1):
                if key == "neighbours":
                    for i in set(had) - {0}:
                        both = len(sets[i] & sets[j]) / max(1e-12, (len(sets[i]) * len(sets[j])) ** 0.5)
                        scores[j - 1] += both if i != j or taken else 0
                elif key == "markov" and had and had[-1] in steps:
                    scores[j - 1] = steps[had[-1]].count(j) / len(steps[had[-1]])
                elif key == "recent" and j in had:
                    scores[j - 1] = (len(had) - had[::-1].index(j)) / (len(had) + 1)
                elif key == "frequent" and j in had:
                    scores[j - 1] = had.count(j) + (len(had) - had[::-1].index(j)) / (len(had) + 1)
            found[len(found)] = share if key == "popularity" else scores + 1e-6 * share
    return np.array(list(found.values()))


@pytest.mark.parametrize("taken", [True, False])
def test_simple_recommenders_score_as_plain_loops_do(taken):
    events = made(seed=3)
    counts, places = counts_of(events), events.places(TEST)
    found = baselines(events, counts, taken)
    assert {key for key, _, _ in found} == {"popularity", "neighbours", "markov"} | (
        {"recent", "frequent"} if taken else set()
    )
    for key, _, score in found:
        np.testing.assert_allclose(score(places), by_hand(events, key, taken), atol=1e-9, err_msg=key)


def test_only_the_nearest_items_are_kept(monkeypatch):
    monkeypatch.setattr("weft.results.ranking_baselines.NEIGHBOURS", 3)
    monkeypatch.setattr("weft.results.ranking_baselines.BLOCK", 5)
    had = user_items(made(seed=1), ITEMS)
    near = cosines(had, own=True).toarray()
    dense = had.toarray()
    norms = np.sqrt((dense**2).sum(0))
    whole = dense.T @ dense / np.outer(norms, norms)
    for row, wanted in zip(near, whole, strict=True):
        assert (row > 0).sum() <= 3
        np.testing.assert_allclose(np.sort(row)[-3:], np.sort(wanted)[-3:])
