"""Metrics of labels are scikit-learn's, with and without weights."""

import numpy as np
import pytest
from sklearn import metrics as sk

from weft.results.labels import each_label, label_metrics

RANDOM = np.random.default_rng(0)
THRESHOLDS = np.array([0.5, 0.3, 0.6, 0.4])


@pytest.fixture(params=[2, 12], ids=["ties", "no ties"])
def case(request):
    truth = RANDOM.random((250, 4)) < [0.5, 0.3, 0.1, 0.08]
    p = np.round(np.clip(0.3 * truth + RANDOM.random((250, 4)) * 0.7, 0, 1), request.param)
    return p, truth.astype(np.int8)


@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_scikit_learns(case, weighted):
    p, truth = case
    w = RANDOM.integers(0, 4, len(p)).astype(float) if weighted else np.ones(len(p))
    ours = {k: m(w) for k, m in label_metrics(p, truth, THRESHOLDS).items()}
    given = (p >= THRESHOLDS).astype(int)
    for key, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        known = sk.f1_score(truth, given, average=average, sample_weight=w, zero_division=0)
        assert ours[key] == pytest.approx(known), key
    assert ours["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, given, sample_weight=w))
    assert ours["average_precision"] == pytest.approx(
        np.mean([sk.average_precision_score(truth[:, k], p[:, k], sample_weight=w) for k in range(4)])
    )


def test_each_label_is_scikit_learns(case):
    p, truth = case
    given = (p >= THRESHOLDS).astype(int)
    table = each_label(list("abcd"), p, truth, THRESHOLDS)
    assert [r["label"] for r in table] == list("abcd") and [r["rows"] for r in table] == truth.sum(0).tolist()
    for k, row in enumerate(table):
        assert row["recall"] == pytest.approx(sk.recall_score(truth[:, k], given[:, k]))
        assert row["precision"] == pytest.approx(sk.precision_score(truth[:, k], given[:, k], zero_division=0))
        assert row["f1"] == pytest.approx(sk.f1_score(truth[:, k], given[:, k]))
        assert row["average_precision"] == pytest.approx(sk.average_precision_score(truth[:, k], p[:, k]))


def test_a_label_that_no_row_has_says_nothing():
    table = each_label(["a"], np.array([[0.1], [0.2]]), np.zeros((2, 1)), np.array([0.5]))
    assert all(table[0][k] is None for k in ("precision", "recall", "f1", "average_precision"))
