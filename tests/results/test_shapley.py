"""Shapley values and LIME against brute force over all orders, closed forms, and the libraries that made them known."""

import itertools

import numpy as np
import pytest
import shap
from lime.lime_text import LimeTextExplainer

from weft.results.explain.lime import by_line, draw_near
from weft.results.explain.shapley import all_sets, by_orders, by_regression, draw_sets, exact, orders


class Tangled:
    """A game with interactions of two and three players."""

    def __init__(self, players: int, seed: int = 0):
        random = np.random.default_rng(seed)
        self.one = random.normal(size=players)
        self.two = random.normal(size=(players, players)) / players
        self.asked = 0

    def __call__(self, present: np.ndarray) -> np.ndarray:
        z = present.astype(np.float64)
        self.asked += len(z)
        return 0.5 + z @ self.one + np.einsum("ni,ij,nj->n", z, self.two, z) + z[:, 0] * z[:, 1 % z.shape[1]] * z[:, -1]


def brute_force(value, players: int) -> np.ndarray:
    """The definition: what a player adds, over all orders."""
    found = np.zeros(players)
    everyone = list(itertools.permutations(range(players)))
    for order in everyone:
        present = np.zeros((players + 1, players), bool)
        for place, player in enumerate(order):
            present[place + 1 :, player] = True
        found[list(order)] += np.diff(value(present))
    return found / len(everyone)


@pytest.mark.parametrize("players", [1, 2, 3, 5, 7])
def test_exact_is_the_mean_over_all_orders(players: int) -> None:
    value = Tangled(max(players, 1))
    assert np.allclose(exact(value, players).values, brute_force(value, players), atol=1e-12)


def test_exact_of_a_linear_game_is_its_weights() -> None:
    weights = np.array([3.0, -1.0, 0.0, 0.5, 2.0, -4.0, 1.0, 0.25, 7.0, -0.5, 1.5, 2.5])
    found = exact(lambda present: 10 + present @ weights, 12)
    assert np.allclose(found.values, weights) and not found.errors.any()


def test_exact_of_nobody() -> None:
    assert len(exact(lambda present: np.zeros(len(present)), 0).values) == 0


@pytest.mark.parametrize("seed", range(3))
def test_estimates_come_to_the_exact_values_within_their_errors(seed: int) -> None:
    players, random = 10, np.random.default_rng(seed)
    value = Tangled(players, seed)
    truth = exact(value, players).values
    none, all_ = value(np.array([[False] * players, [True] * players]))
    sets = draw_sets(players, 400, random)
    kernel = by_regression(sets, value(sets), none, all_)
    small, known = all_sets(players, 200)
    assert known == 2 and len(small) == 2 * (10 + 45)
    both = np.concatenate([small, draw_sets(players, 345, random, known)])
    better = by_regression(both, value(both), none, all_, known)
    assert better.errors.mean() < kernel.errors.mean()
    walked = by_orders(value, orders(players, 60, random))
    for found in (kernel, better, walked):
        assert found.values.sum() == pytest.approx(all_ - none, abs=1e-9)
        assert np.abs(found.values - truth).max() < 0.1
        assert (np.abs(found.values - truth) <= 4 * found.errors + 1e-9).all()


def test_more_questions_make_the_errors_smaller() -> None:
    value, random = Tangled(12), np.random.default_rng(0)
    none, all_ = value(np.array([[False] * 12, [True] * 12]))
    errors = []
    for pairs in (100, 1_600):
        sets = draw_sets(12, pairs, random)
        errors.append(by_regression(sets, value(sets), none, all_).errors.mean())
    assert errors[1] < errors[0] / 2.5  # a sixteenth of the variance would be a quarter


def test_sets_come_in_opposite_pairs_with_the_sizes_of_the_kernel() -> None:
    sets = draw_sets(6, 20_000, np.random.default_rng(0))
    assert (sets[::2] == ~sets[1::2]).all()
    sizes = np.bincount(sets.sum(axis=1), minlength=7)
    assert sizes[0] == sizes[6] == 0
    kernel = np.array([1 / (s * (6 - s)) for s in range(1, 6)])
    assert np.allclose(sizes[1:6] / sizes.sum(), kernel / kernel.sum(), atol=0.01)


def test_all_sets_are_enough_where_they_are_all() -> None:
    value = Tangled(5)
    sets, known = all_sets(5, 100)
    assert known == 2 and len(sets) == 2**5 - 2 and len(np.unique(sets, axis=0)) == len(sets)
    none, all_ = value(np.array([[False] * 5, [True] * 5]))
    found = by_regression(sets, value(sets), none, all_, known)
    assert np.allclose(found.values, exact(value, 5).values, atol=1e-9)


def test_players_of_a_group_come_in_together() -> None:
    groups = np.array([0, 0, 1, 1, 1, 2])
    drawn = orders(6, 50, np.random.default_rng(0), groups)
    assert (drawn[1::2] == drawn[::2, ::-1]).all()
    changes = (np.diff(groups[drawn], axis=1) != 0).sum(axis=1)
    assert (changes == 2).all()


def test_agrees_with_the_shap_library() -> None:
    players = 8
    value = Tangled(players)
    theirs = shap.KernelExplainer(lambda x: value(x > 0.5), np.zeros((1, players))).shap_values(
        np.ones((1, players)), nsamples=2**players, silent=True
    )
    assert np.allclose(exact(value, players).values, theirs[0], atol=1e-6)
    walked = shap.PermutationExplainer(lambda x: value(x > 0.5), np.zeros((1, players)))(
        np.ones((1, players)), max_evals=4_000, silent=True
    )
    ours = by_orders(value, orders(players, 200, np.random.default_rng(0)))
    assert np.abs(ours.values - walked.values[0]).max() < 0.1


def test_agrees_with_the_lime_library() -> None:
    words = [f"word{i}" for i in range(9)]
    weights = np.random.default_rng(1).normal(size=9)

    def classify(texts: list[str]) -> np.ndarray:
        z = np.array([[w in t.split() for w in words] for t in texts]) @ weights
        z = np.tanh(z)
        return np.stack([-z, z], axis=1)

    theirs = LimeTextExplainer(random_state=0).explain_instance(
        " ".join(words), classify, labels=(1,), num_features=9, num_samples=4_000
    )
    found = np.zeros(9)
    for word, weight in theirs.as_list(label=1):
        found[words.index(word)] = weight
    near = draw_near(9, 4_000, np.random.default_rng(0))
    ours = by_line(near, np.tanh(near @ weights))
    assert np.corrcoef(ours.weights, found)[0, 1] > 0.999
    assert np.abs(ours.weights - found).max() < 0.02
    assert ours.r2 == pytest.approx(theirs.score[1] if isinstance(theirs.score, dict) else theirs.score, abs=0.03)


def test_a_line_is_found_and_a_parity_is_not() -> None:
    near = draw_near(8, 2_000, np.random.default_rng(0))
    weights = np.arange(8.0)
    line = by_line(near, 1.0 + near @ weights, ridge=1e-9)
    assert np.allclose(line.weights, weights, atol=1e-6) and line.r2 == pytest.approx(1)
    assert line.intercept == pytest.approx(1)
    assert by_line(near, (near.sum(axis=1) % 2).astype(float)).r2 < 0.3
