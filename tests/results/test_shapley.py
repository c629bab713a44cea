"""Shapley values and LIME against brute force over all orders, closed forms, and the libraries that made them known."""

import itertools

import numpy as np
import pytest
import shap
import torch
from captum.attr import ShapleyValueSampling
from lime.lime_text import LimeTextExplainer

from weft.results.explain.methods import by_line, draw_near
from weft.results.explain.sampling import Design, owen
from weft.results.explain.shapley import by_orders, by_regression, exact, orders, sets_of_exact


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


def brute_force_owen(value, groups: np.ndarray) -> np.ndarray:
    """The definition: over all orders in which the players of a group stand together."""
    found, orders = np.zeros(len(groups)), 0
    inside = [list(itertools.permutations(np.flatnonzero(groups == g))) for g in np.unique(groups)]
    for columns in itertools.permutations(inside):
        for chosen in itertools.product(*columns):
            order = list(itertools.chain(*chosen))
            present = np.zeros((len(groups) + 1, len(groups)), bool)
            for place, player in enumerate(order):
                present[place + 1 :, player] = True
            found[order] += np.diff(value(present))
            orders += 1
    return found / orders


GROUPS = [[0], [0, 0, 0], [0, 1, 2], [0, 0, 1, 1, 1, 2], [1, 1, 0, 2, 2, 0, 0]]


@pytest.mark.parametrize("groups", GROUPS)
def test_exact_by_columns_is_the_mean_over_the_orders_that_keep_columns_together(groups: list[int]) -> None:
    value = Tangled(len(groups))
    found = exact(value, len(groups), np.array(groups)).values
    assert value.asked == sets_of_exact(np.array(groups))
    assert np.allclose(found, brute_force_owen(value, np.array(groups)), atol=1e-12)
    shares = [found[np.array(groups) == g].sum() for g in np.unique(groups)]
    whole = exact(lambda sets: value(sets[:, groups]), max(groups) + 1).values  # columns as players
    assert np.allclose(shares, whole, atol=1e-12)


class Rows:
    """Some games at once, as :func:`owen` asks them."""

    def __init__(self, values: list[Tangled]):
        self.values = values
        ends = [v(np.array([[False] * len(v.one), [True] * len(v.one)])) for v in values]
        self.empty, self.full = np.array(ends).T
        self.asked = np.zeros(len(values), int)

    def ask(self, row, present):
        np.add.at(self.asked, row, 1)
        return np.array([self.values[r](p[None])[0] for r, p in zip(row, present, strict=True)])

    def game(self, row):
        return self.values[row]


@pytest.mark.parametrize("groups", [np.arange(14), np.array([0] * 9 + [1] * 3 + [2, 3, 4]), np.zeros(14, int)])
def test_a_sample_comes_to_the_exact_values_within_its_errors(groups: np.ndarray) -> None:
    games = Rows([Tangled(len(groups), seed) for seed in range(6)])
    truth = [exact(v, len(groups), groups).values for v in games.values]
    found = owen(games, [groups] * 6, 400, sure=0.0)
    assert (games.asked <= 400).all() and (games.asked > 300).all()
    z = np.concatenate([(s.values - t) / (s.errors + 1e-9) for (s, _), t in zip(found, truth, strict=True)])
    z = z[np.abs(z) > 1e-3]  # some shares are exact
    assert np.sqrt((z**2).mean()) < 2 and 0.3 < np.median(np.abs(z)) < 1.2  # of true standard errors 1 and 0.67
    for (s, again), t, total in zip(found, truth, games.full - games.empty, strict=True):
        assert s.values.sum() == pytest.approx(total, abs=1e-9)
        assert np.abs(s.values - t).max() < 0.06 * np.abs(t).max() and again > 0.95
    few = owen(Rows(games.values), [groups] * 6, 100, sure=0.0)
    assert np.mean([s.errors.mean() for s, _ in few]) > 1.2 * np.mean([s.errors.mean() for s, _ in found])
    games = Rows(games.values)
    owen(games, [groups] * 6, 400, sure=0.2)
    assert games.asked.max() < 250  # asking stops when the interval is tight enough


@pytest.mark.parametrize("groups", [np.zeros(40, int), np.array([0] * 36 + [1] * 4 + [2, 3])])
def test_many_parts_are_walked_through_in_orders(groups: np.ndarray) -> None:
    """Against the closed form of games of pairs: each pair's part is halved between the two, in a column or not."""
    value = Tangled(len(groups))
    alone = lambda sets: value(sets) - sets[:, 0] * sets[:, 1] * sets[:, -1]  # noqa: E731
    games = Rows([value])
    games.values = [alone]
    games.empty, games.full = alone(np.array([[False] * len(groups), [True] * len(groups)]))[:, None]
    (shares, again), *_ = owen(games, [groups], 1_000, sure=0.0)
    truth = value.one + (value.two + value.two.T).sum(axis=1) / 2
    z = (shares.values - truth)[shares.errors > 1e-9] / shares.errors[shares.errors > 1e-9]
    assert games.asked[0] > 800 and np.abs(shares.values - truth).max() < 0.05 * np.abs(truth).max()
    assert again > 0.95 and (not len(z) or np.median(np.abs(z)) < 1.3)
    assert shares.values.sum() == pytest.approx((games.full - games.empty)[0], abs=1e-9)


def test_other_seeds_tell_another_story_where_too_little_was_asked() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=2**14)
    value = Tangled(14)
    value.one[:] = 0
    noisy = lambda present: noise[present @ (1 << np.arange(14))] + 0 * value(present)  # noqa: E731
    games = Rows([value])
    games.values = [noisy]
    (shares, again), *_ = owen(games, [np.arange(14)], 80)
    assert again < 0.7 and shares.errors.max() > 0.25 * np.abs(shares.values).max()


def test_rows_of_different_shapes_share_a_round() -> None:
    groups = [np.arange(13), np.array([0] * 14), np.array([0] * 10 + [1, 2, 3]), np.arange(3)]
    games = Rows([Tangled(len(g), seed) for seed, g in enumerate(groups)])
    found = owen(games, groups, 300)
    for (shares, _), value, g in zip(found, games.values, groups, strict=True):
        truth = exact(value, len(g), g).values
        assert np.abs(shares.values - truth).max() < 0.15 * np.abs(truth).max()
    alone = owen(Rows(games.values[2:3]), groups[2:3], 300)[0][0].values
    assert np.array_equal(alone, found[2][0].values)  # whatever else is asked about


def test_what_was_hardly_asked_about_has_no_known_error() -> None:
    (shares, _), *_ = owen(Rows([Tangled(40)]), [np.arange(40)], 64)
    assert np.isinf(shares.errors).all()


def test_no_pair_is_asked_twice_and_sizes_follow_the_kernel() -> None:
    design = Design(30, 0, 0)
    design.grow(4_000)
    sets = np.concatenate([design.sets, ~design.sets])
    assert len(np.unique(sets, axis=0)) == len(sets)
    assert (design.sets[:30] == np.eye(30, dtype=bool)).all() and (design.part[:30] == -1).all()
    size = design.sets[30:].sum(axis=1)
    mass = np.array([(1 if s == 15 else 2) / (s * (30 - s)) for s in range(2, 16)])
    got = np.bincount(size, minlength=16)[2:] / len(size)
    assert np.allclose(got[2:], (mass / mass.sum())[2:], atol=0.03)  # there are few pairs of size 2: all 435 at most
    assert set(np.bincount(design.part[30:])) <= set(range(450, 551))
    around = Design(8, 5, 0)
    around.grow(200)
    assert np.bincount(around.around.sum(axis=1), minlength=6).min() > 15  # each number of columns is as likely


def test_all_sets_are_enough_where_they_are_all() -> None:
    value = Tangled(7)
    design = Design(7, 0, 0)
    design.grow(1_000)
    assert design.all and len(design.sets) == 2**6 - 1
    gains = value(design.sets) - value(~design.sets)
    total = np.diff(value(np.array([[False] * 7, [True] * 7])))[0]
    found = by_regression(design.sets, gains, total, np.zeros(63, bool))
    assert np.allclose(found.values, exact(value, 7).values, atol=1e-9) and not found.errors.any()


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
    assert by_line(near, (near.sum(axis=1) % 2).astype(float)).r2 < 0.3


def test_curves_are_as_good_as_those_of_shap_and_captum_at_as_many_calls() -> None:
    """Deletion: the mean score while the most telling go first (lower is better); insertion: while they come."""
    players, calls = 14, 128
    values = [Tangled(players, seed) for seed in range(8)]

    def curves(value: Tangled, shares: np.ndarray) -> float:
        rank = np.argsort(np.argsort(-shares))
        steps = np.arange(players + 1)[:, None]
        return float(value(rank < steps).mean() - value(rank >= steps).mean())  # insertion less deletion

    def by_captum(value: Tangled) -> np.ndarray:
        torch.manual_seed(0)
        forward = lambda x: torch.from_numpy(value(x.numpy() > 0.5))  # noqa: E731
        ones = torch.ones(1, players)
        done = ShapleyValueSampling(forward).attribute(ones, torch.zeros(1, players), n_samples=calls // players)
        return done[0].numpy()

    games = Rows(values)
    ours = [s.values for s, _ in owen(games, [np.arange(players)] * 8, calls, sure=0.0)]
    assert games.asked.max() <= calls
    random = np.random.default_rng(0)
    told = {
        "ours": ours,
        "shap": [
            shap.KernelExplainer(lambda x, v=v: v(x > 0.5), np.zeros((1, players)), seed=0).shap_values(
                np.ones((1, players)), nsamples=calls, silent=True
            )[0]
            for v in values
        ],
        "captum": [by_captum(v) for v in values],
        "random": [random.random(players) for _ in values],
    }
    area = {name: np.mean([curves(v, s) for v, s in zip(values, shares, strict=True)]) for name, shares in told.items()}
    assert area["ours"] > area["random"] + 1
    assert area["ours"] >= max(area["shap"], area["captum"]) - 0.01 * (area["ours"] - area["random"])
