"""Groups of rows that a model serves worse: figures against NumPy, and nothing is said where chance suffices."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from weft.results.uneven import uneven


def rows(n=3000, seed=0):
    random = np.random.default_rng(seed)
    colour = random.choice(["red", "green", "grey"], n)
    size = random.normal(10, 3, n)
    wrong = random.random(n) < np.where(colour == "red", 0.4, 0.1)
    gone = random.random(n) < 0.05
    return {"colour": pa.array(colour, mask=gone), "size": pa.array(size)}, wrong.astype(float), colour, gone, size


KINDS = {"colour": "category", "size": "number"}


def test_the_worse_group_is_found_with_its_figures():
    columns, wrong, colour, gone, _ = rows()
    found = uneven(columns, KINDS, wrong)
    group = found["worse"][0]
    mine = (colour == "red") & ~gone
    assert group["is"] == "red" and group["rows"] == mine.sum()
    assert group["value"] == pytest.approx(wrong[mine].mean()) and group["rest"] == pytest.approx(wrong[~mine].mean())
    low, high = stats.binomtest(int(wrong[mine].sum()), int(mine.sum())).proportion_ci(method="wilson")
    assert (group["low"], group["high"]) == pytest.approx((low, high), abs=1e-6)
    assert {g["is"] for g in found["better"]} == {"green", "grey"}
    assert found["looked_at"] == 8  # three colours, missing, four quarters of the size


def test_a_range_of_a_number_is_found():
    columns, _, _, _, size = rows()
    distance = np.abs(np.random.default_rng(1).normal(size=len(size))) * np.where(size > np.quantile(size, 0.75), 3, 1)
    group = uneven(columns, KINDS, distance)["worse"][0]
    mine = (size >= group["from"]) & (size <= group["to"])
    assert group["column"] == "size" and group["rows"] == mine.sum() == 750 and group["to"] == size.max()
    assert group["value"] == pytest.approx(distance[mine].mean())
    test = stats.ttest_1samp(distance[mine], 0).confidence_interval()
    assert (group["low"], group["high"]) == pytest.approx((test.low, test.high), rel=0.01)


def test_chance_alone_is_no_group():
    told = 0
    for seed in range(100):
        columns, wrong, *_ = rows(400, seed)
        shuffled = np.random.default_rng(seed).permutation(wrong)
        found = uneven(columns, KINDS, shuffled)
        told += bool(found["worse"] or found["better"])
    assert told <= 12  # 5 % are allowed


def test_few_rows_are_no_group():
    columns = {"colour": pa.array(["red"] * 29 + ["grey"] * 100)}
    wrong = np.array([1.0] * 29 + [0.0] * 100)
    assert uneven(columns, KINDS, wrong) == {"looked_at": 0, "overall": wrong.mean(), "worse": [], "better": []}
