"""Metrics are scikit-learn's; intervals hold what they say; calibration mends what was broken."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from weft.results.answers import answer_metrics, answer_sentence
from weft.results.metrics import class_metrics, difference, number_metrics, reliability, share, with_intervals
from weft.results.retrieval import rank_metrics, retrieval_sentence
from weft.training.calibration import fit_temperature

RANDOM = np.random.default_rng(0)


def case(classes, rows=400):
    target = RANDOM.integers(0, classes, rows)
    logits = RANDOM.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[target]
    logits = np.round(logits, 1)  # ties
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), target


@pytest.mark.parametrize("weighted", [False, True])
def test_two_classes_are_scikit_learns(weighted):
    p, y = case(2)
    w = RANDOM.integers(0, 4, len(y)).astype(float) if weighted else np.ones(len(y))
    ours = {k: m(w) for k, m in class_metrics(p, y, 1).items()}
    guess = p.argmax(1)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, guess, sample_weight=w))
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(y, p[:, 1], sample_weight=w))
    assert ours["f1"] == pytest.approx(sk.f1_score(y, guess, sample_weight=w))
    assert ours["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guess, sample_weight=w))
    assert ours["log_loss"] == pytest.approx(sk.log_loss(y, p, sample_weight=w))


def test_many_classes_are_scikit_learns():
    p, y = case(5)
    ours = {k: m(np.ones(len(y))) for k, m in class_metrics(p, y, None).items()}
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"))
    assert ours["f1"] == pytest.approx(sk.f1_score(y, p.argmax(1), average="macro"))
    assert ours["log_loss"] == pytest.approx(sk.log_loss(y, p))


def test_the_positive_class_may_be_the_first():
    p, y = case(2)
    ours = class_metrics(p, y, 0)["f1"](np.ones(len(y)))
    assert ours == pytest.approx(sk.f1_score(y, p.argmax(1), pos_label=0))


def test_numbers_are_scikit_learns():
    y = RANDOM.normal(3, 2, 300)
    z = y + RANDOM.normal(0, 1, 300)
    w = RANDOM.integers(0, 3, 300).astype(float)
    ours = {k: m(w) for k, m in number_metrics(z, y).items()}
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y, z, sample_weight=w))
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(y, z, sample_weight=w))
    assert ours["r2"] == pytest.approx(sk.r2_score(y, z, sample_weight=w))


def test_calibration_error_by_hand():
    p = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    y = np.array([0] * 5 + [1] * 5 + [1] * 7 + [0] * 3)
    # 10 rows at 0.9 of which half are right, 10 at 0.7 of which 7 are
    assert class_metrics(p, y, 1)["ece"](np.ones(20)) == pytest.approx(0.5 * 0.4)


def test_the_interval_holds_the_truth_in_about_95_of_100():
    held = 0
    for seed in range(100):
        right = np.random.default_rng(seed).random(200) < 0.8
        e = with_intervals({"accuracy": lambda w, r=right: float((w * r).sum() / w.sum())}, 200, seed)["accuracy"]
        held += e.low <= 0.8 <= e.high
    assert 88 <= held <= 100


def test_a_difference_is_paired():
    p, y = case(2, 2_000)
    worse = p.copy()
    worse[:40] = worse[:40, ::-1]
    gap = difference(class_metrics(p, y, 1), class_metrics(worse, y, 1), "accuracy", len(y))
    alone = with_intervals(class_metrics(p, y, 1), len(y))["accuracy"]
    assert gap.high - gap.low < 0.8 * (alone.high - alone.low)


def test_temperature_undoes_a_known_overconfidence():
    p, y = case(3, 5_000)
    truth = fit_temperature(np.log(p), y)
    assert fit_temperature(3 * np.log(p), y) == pytest.approx(3 * truth, rel=0.02)


def test_reliability_counts_every_row():
    p, y = case(2)
    points = reliability(p, y)
    assert sum(b["rows"] for b in points) == len(y)
    assert sum(b["rows"] * b["right"] for b in points) == (p.argmax(1) == y).sum()


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (1, 10), (81, 263), (148, 148)])
def test_the_interval_of_a_share_is_scipys(hits, rows):
    known = binomtest(hits, rows).proportion_ci(0.95, "wilson")
    found = share(hits, rows)
    assert (found.value, found.low, found.high) == pytest.approx((hits / rows, known.low, known.high), abs=1e-6)


def test_all_right_is_not_certainty():
    p = np.tile([[0.9, 0.1], [0.2, 0.8]], (20, 1))
    found = with_intervals(class_metrics(p, np.tile([0, 1], 20), 1), 40)
    known = binomtest(40, 40).proportion_ci(0.95, "wilson")
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((known.low, 1.0))
    assert found["f1"].to_dict() == {"value": 1.0, "low": None, "high": None}
    wrong = with_intervals(class_metrics(p, np.tile([1, 0], 20), 1), 40)["accuracy"]
    assert (wrong.low, wrong.high) == pytest.approx((0.0, 1 - known.low))


def test_what_is_all_right_is_said_without_nan():
    ranks = with_intervals(rank_metrics(np.ones(40, int)), 40)
    right = with_intervals(answer_metrics(["a"] * 40, ["a"] * 40), 40)
    known = binomtest(40, 40).proportion_ci(0.95, "wilson")
    for found in (ranks["recall_at_1"], ranks["recall_at_5"], ranks["recall_at_10"], right["exact_match"]):
        assert (found.low, found.high) == pytest.approx((known.low, 1.0))
    assert f"interval {known.low:.1%} to 100.0%" in retrieval_sentence(ranks, 40, 40, "queries")
    assert "not one row is wrong" in answer_sentence(right, 40, "questions")


def test_what_cannot_be_told_is_null_in_json():
    one_class = with_intervals(class_metrics(np.tile([[0.9, 0.1]], (9, 1)), np.zeros(9, int), 1), 9)
    told = json.dumps({k: e.to_dict() for k, e in one_class.items()}, allow_nan=False)
    assert json.loads(told)["auc"] == {"value": None, "low": None, "high": None}
