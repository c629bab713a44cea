"""What is declined, counted by hand; the curve against its definition."""

import numpy as np
import pytest

from weft.features.targets import OUTSIDE, UNSEEN
from weft.results.abstention import abstention_in_words, judge_abstention, recall_at, risk_coverage


def test_counts_by_hand():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [0.7, 0.3], [0.1, 0.9]])
    margin = np.array([3.0, 0.0, -1.0, -2.0, 1.0, 5.0])  # 0 is answered
    truth = np.array([0, 0, 0, OUTSIDE, OUTSIDE, UNSEEN])
    found = judge_abstention(np.column_stack([p, margin]), truth)
    assert (found["in_scope"], found["out_of_scope"]) == (3, 2)
    assert found["coverage"]["value"] == pytest.approx(2 / 3)
    assert found["accuracy_answered"]["value"] == 0.5 and found["accuracy_all"]["value"] == pytest.approx(2 / 3)
    assert found["out_of_scope_recall"]["value"] == 0.5 and found["out_of_scope_precision"]["value"] == 0.5
    assert 0 < found["out_of_scope_recall"]["low"] < 0.5 < found["out_of_scope_recall"]["high"] < 1
    assert "declines 50.0%" in abstention_in_words(found)[1]


def test_the_curve_is_the_error_of_the_surest():
    random = np.random.default_rng(0)
    score, right = random.random(500), random.random(500) < 0.8
    order = np.argsort(-score)
    curve = risk_coverage(score, right)
    assert curve[-1] == {"coverage": 1.0, "risk": pytest.approx(1 - right.mean())}
    for point in curve:
        surest = order[: round(point["coverage"] * 500)]
        assert point["risk"] == pytest.approx(1 - right[surest].mean())


def test_recall_at_a_coverage():
    assert recall_at(np.arange(100.0), np.array([-1.0, 3, 4, 5, 50]), 0.95)["value"] == 3 / 5


def test_nothing_answered_is_said():
    found = judge_abstention(np.array([[0.5, 0.5, -1.0]]), np.array([0]))
    assert found["accuracy_answered"]["value"] is None and "right in none" in abstention_in_words(found)[0]
