"""Attacks find what is there and nothing where nothing is; canaries are as exposed as their ranks say."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from weft.results.audit.leaks import Beside, attack, canaries_section, likelihood_ratio, membership_section

RANDOM = np.random.default_rng(0)


def test_an_attack_is_the_curve_of_scikit_learn():
    member = RANDOM.random(4_000) < 0.6
    score = RANDOM.normal(size=4_000) + 0.8 * member
    found = attack(score, member)
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(member, score))
    false, true, _ = roc_curve(member, score)
    assert found["tpr"]["value"] == pytest.approx(true[false <= 0.01].max(), abs=2e-3)
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]


def test_of_no_memory_nothing_is_found():
    member = np.arange(6_000) % 2 == 0
    found = attack(RANDOM.normal(size=6_000), member)
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"] and found["tpr"]["value"] < 0.02


def test_the_likelihood_ratio_sees_through_rows_of_unlike_difficulty():
    """Rows differ far more than membership moves them: the loss alone tells little, beside other models much."""
    rows, shadows = 3_000, 8
    hard, member = RANDOM.normal(0, 5, rows), RANDOM.random(rows) < 0.5
    learnt = np.stack([(RANDOM.random(rows) < 0.5) ^ (k % 2 == 1) for k in range(shadows)])
    scores = hard + learnt + RANDOM.normal(0, 0.7, (shadows, rows))
    own = hard + member + RANDOM.normal(0, 0.7, rows)
    loss, ratio = attack(own, member), attack(likelihood_ratio(own, Beside(scores, learnt)), member)
    assert loss["auc"]["value"] < 0.6 < 0.75 < ratio["auc"]["value"]
    # two normals a step of 1 apart with deviation 0.7: no attack is better than this, beside exact means
    assert ratio["auc"]["value"] < norm.cdf(1 / (0.7 * np.sqrt(2))) + 0.02


def test_epsilon_bounds_what_can_be_recognised():
    member = np.arange(1_000) % 2 == 0
    section = membership_section(RANDOM.normal(size=1_000), member, None, {"spent": 1.0, "delta": 1e-5})
    assert section["bound"] == pytest.approx(np.e * 0.01 + 1e-5)
    assert section["members"] == section["others"] == 500


def test_exposure_is_log_candidates_less_log_rank():
    found = canaries_section([1, 1, 16], [1_000, 500, 1], 1_000)
    np.testing.assert_allclose(found["exposure"], [0, 1, np.log2(1_000)])
    assert [g["times"] for g in found["groups"]] == [1, 16] and [g["found"] for g in found["groups"]] == [0, 1]
    # chance: ranks are uniform, and their exposure is 1.443 on average
    ranks = RANDOM.integers(1, 1_001, 20_000).tolist()
    assert np.mean(canaries_section([1] * 20_000, ranks, 1_000)["exposure"]) == pytest.approx(1.443, abs=0.04)
