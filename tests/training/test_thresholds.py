"""Thresholds against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from weft.features.targets import UNSEEN, LabelsTarget
from weft.models.row import RowConfig, RowModels
from weft.models.transformer import TransformerConfig
from weft.training.fit import Fitted, Watched, _decide
from weft.training.thresholds import area_under_roc, choose_score, coverage_threshold, f1_threshold, label_thresholds

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("coverage", [1.0, 0.95, 0.9, 0.5, 1 / 3, 0.001])
@pytest.mark.parametrize("rows", [1, 7, 100, 1001])
def test_at_least_the_share_is_answered_and_a_higher_threshold_would_not_do(coverage, rows):
    scores = RANDOM.permutation(rows).astype(np.float32)
    threshold = coverage_threshold(scores, coverage)
    assert (scores >= threshold).mean() >= coverage - 1e-12
    assert (scores > threshold).mean() < coverage


def test_equal_scores_are_all_answered():
    assert coverage_threshold(np.array([1.0, 1.0, 1.0, 5.0]), 0.5) == 1.0


def test_the_area_is_scikit_learns():
    inside, outside = RANDOM.integers(2, 9, 300).astype(float), RANDOM.integers(0, 6, 40).astype(float)
    truth = np.repeat([1, 0], [300, 40])
    assert area_under_roc(inside, outside) == pytest.approx(roc_auc_score(truth, np.concatenate([inside, outside])))


def test_the_score_that_tells_apart_is_chosen():
    inside = {"blind": RANDOM.normal(size=200), "seeing": RANDOM.normal(2, 1, 200)}
    outside = {name: RANDOM.normal(size=50) for name in inside}
    chosen, areas = choose_score(inside, outside)
    assert chosen == "seeing" and areas["seeing"] > 0.85 > areas["blind"]
    assert choose_score(inside, {name: np.zeros(0) for name in inside}) == ("blind", {})


def test_no_threshold_gives_a_better_f1():
    truth = RANDOM.random(300) < 0.2
    p = np.round(np.clip(0.3 * truth + RANDOM.normal(0.3, 0.2, 300), 0, 1), 2)
    best = max(f1_score(truth, p >= t) for t in np.unique(p))
    found = f1_threshold(p, truth)
    assert f1_score(truth, p >= found) == pytest.approx(best)
    assert not (np.isclose(p, found)).any(), "it stands between two probabilities, not on one"
    assert f1_threshold(p, np.zeros(300)) == 0.5


def test_a_rare_label_has_the_threshold_of_all():
    truth = np.zeros((200, 3))
    truth[:100, 0], truth[50:90, 1], truth[:5, 2] = 1, 1, 1
    p = np.clip(truth * [[0.2, 0.6, 0.3]] + RANDOM.random((200, 3)) * 0.3, 0, 1)
    found = label_thresholds(p, truth)
    own = [f1_threshold(p[:, k], truth[:, k]) for k in range(3)]
    assert found[:2] == pytest.approx(own[:2]) and found[2] == pytest.approx(f1_threshold(p.ravel(), truth.ravel()))


def test_a_row_with_a_label_that_was_never_learnt_moves_no_threshold():
    target = LabelsTarget("tags", ["a", "b"])
    target.counts, target.rows = [50, 50], 100
    shape = RowConfig(TransformerConfig(width=8, layers=1, heads=1), 8, 0.0, linear=())
    truth = (RANDOM.random((60, 2)) < 0.5).astype(np.int8)
    logits = np.where(truth, 1.0, -1.0) + RANDOM.normal(size=(60, 2))
    unseen = np.full((30, 2), UNSEEN, np.int8)
    found = []
    for codes, answers in ((truth, logits), (np.vstack([truth, unseen]), np.vstack([logits, 9 * logits[:30]]))):
        models = RowModels([], target, shape, 1)
        rows = np.arange(len(answers))
        watched = Watched(rows, answers.astype(np.float32), np.zeros(len(rows)), codes, np.zeros(0, np.int64))
        _decide(models, Fitted([], 1, 1.0), [watched], None)
        found.append(models.threshold.tolist())
    assert found[0] == found[1] != [0.5, 0.5]
