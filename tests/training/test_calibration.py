"""Thresholds of answers against scipy's exact intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest

from weft.training.calibration import fit_margin


@pytest.mark.parametrize(("count", "most", "wrong"), [(2000, 0.005, 0.02), (700, 0.01, 0.1), (5000, 0.003, 0.5)])
def test_the_margin_is_the_least_whose_bound_holds(count, most, wrong):
    random = np.random.default_rng(count)
    margin = random.random(count).astype(np.float32)
    equal = random.random(count) > wrong * (1 - margin) ** 2
    found = fit_margin(margin, equal, most)

    def high(least):  # of a two-sided interval of 90 %, so that 5 % lie above
        differ = int((~equal & (margin >= least)).sum())
        return binomtest(differ, count).proportion_ci(0.9, "exact").high

    assert high(found) <= most < high(found - 1 / 200)


def test_too_few_rows_show_nothing():
    one = np.ones(598)
    assert fit_margin(one, one > 0, 0.005) == 0.0
    assert fit_margin(one[:597], one[:597] > 0, 0.005) == np.inf
    assert fit_margin(one, one < 0, 0.005) == np.inf
