"""What is said of the data's quality: beside scipy's figures, on planted faults, and nothing where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tests.results.test_report import Page
from tests.tables import FAST

import weft
from weft.data.split import TEST, TRAIN
from weft.preprocess.ingest import ROW, CleanRows
from weft.results import quality as quality_module
from weft.results.alone import _explained, _right
from weft.results.mislabelled import suspects
from weft.results.pages import Phrases
from weft.results.quality import quality, stability_index

TYPES = {"n": "number", "c": "category", "t": "text", "l": "labels"}


def clean(folder: Path, columns: dict[str, Any], parts: np.ndarray) -> CleanRows:
    table = pa.table({ROW: np.arange(len(parts)), **columns})
    with pa.ipc.new_file(str(folder / "clean.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    return CleanRows(folder / "clean.arrow", parts)


def columns_of(rows: int, seed: int = 0) -> dict[str, pa.Array]:
    random = np.random.default_rng(seed)
    gone = random.random(rows) < 0.1
    return {
        "n": pa.array(random.normal(3, 2, rows), mask=gone),
        "c": pa.array(random.choice(["red", "green", "蓝"], rows, p=[0.5, 0.3, 0.2]), mask=np.roll(gone, 3)),
        "t": pa.array(["x" * n for n in random.poisson(40, rows)], mask=np.roll(gone, 5)),
        "l": pa.array([["a"] * n for n in random.poisson(2, rows)]),
        "y": pa.array(random.choice(["yes", "no"], rows)),
    }  # fmt: skip


def kinds(found: dict[str, Any]) -> list[tuple[str, str]]:
    names = {phrase: name for name, phrase in quality_module._SAID.items()}
    return [(names[phrase], values.get("column", "")) for phrase, values in found["said"]]


def look(folder: Path, columns: dict[str, Any], parts: np.ndarray, **types: str) -> dict[str, Any]:
    return quality(types or TYPES, ("y", "class"), clean(folder, columns, parts), TEST)


def halves(rows: int) -> np.ndarray:
    return np.where(np.random.default_rng(9).random(rows) < 0.3, TEST, TRAIN).astype(np.uint8)


def test_columns_without_a_fault_are_not_spoken_of_and_have_scipy_s_figures(tmp_path: Path) -> None:
    columns, parts = columns_of(3_000), halves(3_000)
    found = look(tmp_path, columns, parts)
    assert found["said"] == [] and found["rows"] == {"train": (parts == TRAIN).sum(), "test": (parts == TEST).sum()}
    n, c, t, labels, y = found["columns"]
    values = columns["n"].filter(pa.array(parts == TRAIN)).drop_null().to_numpy()
    assert n["skewness"] == pytest.approx(stats.skew(values)) and n["median"] == pytest.approx(np.median(values))
    assert n["missing"] == pytest.approx(columns["n"].null_count / 3_000) and c["distinct"] == 3
    assert labels["high"] == max(map(len, columns["l"].to_pylist())) and t["type"] == "text" and y["distinct"] == 2


def test_by_chance_the_index_is_beyond_its_bound_as_rarely_as_it_should() -> None:
    """Like chi-square's test of the same counts: of 2,000 pairs without a difference 1 % are beyond, 0.1 % of ten."""
    random = np.random.default_rng(0)
    share = np.array([0.4, 0.3, 0.2, 0.1])
    draws = [(random.multinomial(900, share), random.multinomial(400, share)) for _ in range(2_000)]
    found = np.array([stability_index(a, b) for a, b in draws])
    beyond = found[:, 0] > found[:, 1]
    assert 0.004 < beyond.mean() < 0.018
    by_test = np.array([stats.chi2_contingency([a, b]).pvalue < 0.01 for a, b in draws])
    assert (beyond == by_test).mean() > 0.99
    assert stability_index(*draws[0], columns=10)[1] > stability_index(*draws[0])[1]


def test_the_index_is_the_sum_that_it_is_defined_as() -> None:
    learnt, there = np.array([5_000, 3_000, 2_000, 0]), np.array([2_000, 3_000, 5_000, 0])
    p, q = learnt[:3] / 1e4, there[:3] / 1e4
    assert stability_index(learnt, there)[0] == pytest.approx(float(((p - q) * np.log(p / q)).sum()), rel=1e-3)


@pytest.mark.parametrize("name", ["n", "c", "t", "l"])
def test_a_column_that_differs_between_the_parts_is_named(tmp_path: Path, name: str) -> None:
    columns, parts = columns_of(2_000), halves(2_000)
    there = pa.array(parts == TEST)
    other = {
        "n": pa.array(columns["n"].to_numpy(zero_copy_only=False) + 1.5, from_pandas=True),
        "c": pa.array(["red"] * 2_000), "t": pa.array(["x" * 55] * 2_000), "l": pa.array([["a"] * 5] * 2_000),
    }[name]  # fmt: skip
    joined = pa.concat_arrays([columns[name], other])
    places = np.arange(2_000) + 2_000 * (parts == TEST)
    columns[name] = joined.take(pa.array(places))
    found = look(tmp_path, columns, parts)
    assert ("drift", name) in kinds(found) and {n for kind, n in kinds(found) if kind == "drift"} == {name}
    values = next(v for phrase, v in found["said"] if phrase in (quality_module._SAID[k] for k in ("middle", "word")))
    mine = columns[name].filter(there)
    if name == "n":
        assert values["after"] == pytest.approx(np.median(mine.drop_null().to_numpy()))
        same = stats.ks_2samp(mine.drop_null().to_numpy(), columns[name].filter(pa.array(parts == TRAIN)).drop_null())
        assert same.pvalue < 1e-9
    if name == "c":
        assert values == {"value": "red", "before": pytest.approx(0.45, abs=0.04), "after": 1.0}


def test_faults_of_columns_are_named(tmp_path: Path) -> None:
    rows = 2_000
    columns, parts = columns_of(rows), halves(rows)
    random = np.random.default_rng(0)
    odd: dict[str, Any] = {
        "gone": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.6),
        "same": pa.array([7.0] * rows, mask=random.random(rows) < 0.1),
        "nearly": pa.array(np.where(np.arange(rows) % 200 == 0, "other", "usual")),
        "long": pa.array(random.lognormal(0, 2, rows)),
        "key": pa.array([f"k{i}" for i in range(rows)]),
        "y": pa.array(["rare" if i in (5, 6, 900) else ("yes", "no")[i % 2] for i in range(rows)]),
        "void": pa.nulls(rows, pa.float64()),
    }  # fmt: skip
    types = {"gone": "number", "same": "number", "nearly": "category", "long": "number", "key": "category",
             "void": "number"}  # fmt: skip
    found = look(tmp_path, {**columns, **odd}, parts, **types)
    told = [kind for kind in kinds(found) if kind[0] != "drift"]
    assert ("missing", "gone") in told and ("constant", "same") in told and ("nearly", "nearly") in told
    assert (
        ("lopsided", "long") in told and ("id", "key") in told and ("rare", "") in told and ("missing", "void") in told
    )
    assert len(told) == 7
    assert json.loads(json.dumps(found)) is not None
    for phrase, values in found["said"]:
        assert phrase.format(**values)


def planted(rows: int = 2_000) -> tuple[dict[str, Any], np.ndarray, dict[str, str]]:
    """A clean table with an id (unique words and numbers) and a column that is the answer but in 3 % of the rows."""
    columns, parts = columns_of(rows), halves(rows)
    random = np.random.default_rng(4)
    wrong = random.random(rows) < 0.03
    y = columns["y"].to_numpy(zero_copy_only=False)
    extra = {
        "refund": pa.array(np.where((y == "yes") ^ wrong, "issued", None)),
        "key": pa.array([f"k{i}" for i in range(rows)]),
        "count": pa.array(random.permutation(rows).astype(float)),
    }  # fmt: skip
    return {**columns, **extra}, parts, {**TYPES, "refund": "category", "key": "category", "count": "number"}


def test_a_column_that_nearly_gives_the_answer_is_named_first_and_an_id_is_not(tmp_path: Path) -> None:
    columns, parts, types = planted()
    found = look(tmp_path, columns, parts, **types)
    assert kinds(found)[0] == ("alone", "refund") and [k for k, _ in kinds(found)].count("alone") == 1
    read, warned = clean(tmp_path, columns, parts), ["'refund' alone tells the target in 99.9% of the rows"]
    told_before = quality(types, ("y", "class"), read, TEST, warned)
    assert kinds(told_before) == kinds(found)[1:], "what was said before the training is not said again"
    phrase, values = found["said"][0]
    y, there = columns["y"].to_numpy(zero_copy_only=False), parts == TEST
    right = (columns["refund"].is_valid().to_numpy(zero_copy_only=False) == (y == "yes"))[there].mean()
    usual = max(("yes", "no"), key=lambda c: (y[~there] == c).sum())
    assert values["share"] == pytest.approx(right) and values["base"] == pytest.approx((y[there] == usual).mean())
    assert values["next"] < 0.6 and "features: {refund: off}" in phrase.format(**values)
    chinese = Phrases("zh")(phrase, **values)
    assert "单凭“refund”一列" in chinese and f"{right:.0%}" in chinese and "features: {refund: off}" in chinese
    del types["refund"]
    assert ("alone", "key") not in kinds(look(tmp_path, columns, parts, **types))


def test_right_answers_of_one_column_are_those_of_a_tree_of_its_bins() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    edges = np.quantile(x[:400, 23], [0.25, 0.5, 0.75])
    bins = np.searchsorted(edges, x[:, 23])
    tree = DecisionTreeClassifier().fit(np.eye(4)[bins[:400]], y[:400])
    right = (tree.predict(np.eye(4)[bins[400:]]) == y[400:]).mean()
    assert _right(bins[:400], bins[400:], y[:400], y[400:]) == pytest.approx(right)
    means = DecisionTreeRegressor().fit(np.eye(4)[bins[:400]], x[:400, 20]).predict(np.eye(4)[bins[400:]])
    assert _explained(bins[:400], bins[400:], x[:400, 20], x[400:, 20]) == pytest.approx(r2_score(x[400:, 20], means))


@pytest.mark.parametrize(("noise", "said"), [(0.05, True), (0.5, False)])
def test_of_numbers_a_column_that_explains_nearly_all_is_named(tmp_path: Path, noise: float, said: bool) -> None:
    columns, parts = columns_of(3_000), halves(3_000)
    random = np.random.default_rng(1)
    y = random.uniform(0, 1, 3_000)
    columns |= {"y": pa.array(y), "paid": pa.array((y + noise * random.uniform(-1, 1, 3_000)) ** 2)}
    found = quality({**TYPES, "paid": "number"}, ("y", "number"), clean(tmp_path, columns, parts), TEST)
    assert (("alone_number", "paid") in kinds(found)) == said
    for phrase, values in found["said"][:said]:
        assert values["share"] >= 0.98 and "单凭“paid”一列" in Phrases("zh")(phrase, **values)


def test_columns_that_are_alike_are_not_spoken_of(tmp_path: Path) -> None:
    """Of breast cancer many measures name nine of ten rows, each like the next one."""
    data = load_breast_cancer()
    columns = {n: pa.array(data.data[:, i]) for i, n in enumerate(data.feature_names)}
    columns["y"] = pa.array(data.target_names[data.target])
    found = look(tmp_path, columns, halves(569), **dict.fromkeys(data.feature_names, "number"))
    assert "alone" not in {kind for kind, _ in kinds(found)}


def plainly(p: np.ndarray, given: np.ndarray) -> dict[int, int]:
    """Suspects as the paper's equations say, row by row."""
    usual = [p[given == j, j].mean() if (given == j).any() else np.inf for j in range(p.shape[1])]
    found = {}
    for row in range(len(p)):
        classes = [j for j in range(p.shape[1]) if p[row, j] >= usual[j] - 1e-6]
        if classes:
            best = max(classes, key=lambda j: p[row, j])
            if best != given[row]:
                found[row] = best
    return found


def test_suspects_are_those_of_the_paper_s_equations() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet([0.5, 0.7, 1.0, 0.2], 500)
    given = random.integers(0, 3, 500)  # of class 3 no row
    rows, seems = suspects(p, given)
    assert dict(zip(rows.tolist(), seems.tolist(), strict=True)) == plainly(p, given) and len(rows) > 50
    margin = p[rows, given[rows]] - p[rows, seems]
    assert (np.diff(margin) >= 0).all() and (margin < 0).any()


def test_planted_wrong_labels_are_found() -> None:
    """Of 30 flipped labels of the breast cancer table more than half are suspects, and hardly another one is."""
    x, y = load_breast_cancer(return_X_y=True)
    flipped = np.random.default_rng(0).choice(len(y), 30, replace=False)
    given = y.copy()
    given[flipped] = 1 - y[flipped]
    p = cross_val_predict(
        LogisticRegression(C=0.1), StandardScaler().fit_transform(x), given, cv=5, method="predict_proba"
    )
    rows, seems = suspects(p, given)
    assert np.isin(flipped, rows).sum() >= 17 and np.isin(rows, flipped).mean() >= 0.9
    assert (seems != given[rows]).all()


def test_a_run_names_the_rows_whose_labels_were_exchanged(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 600))
    right = np.where(a + b > 0, "up", "down")
    wrong = [i for i in np.flatnonzero(np.abs(a + b) > 1.2).tolist() if i % 9 == 0]
    given = right.copy()
    given[wrong] = np.where(right[wrong] == "up", "down", "up")
    table = pa.table({"a": a, "b": b, "y": given})
    table = pa.concat_tables([table, table.slice(0, 30)])
    run = weft.train(table, "y", tmp_path / "run", quiet=True, **{**FAST, "training": {"epochs": 12, "batch_rows": 32}})
    found = run.figures["quality"]["mislabelled"]
    asked = set(np.flatnonzero(np.load(run.path / "split.npy") != TRAIN).tolist()) & set(wrong)
    named = {r["row"] for r in found["rows"]}
    assert len(asked) >= 5 and len(asked - named) <= len(asked) / 4
    first = found["rows"][0]
    assert first["given"] == given[first["row"] % 600] != first["seems"] and first["probability"] > 0.5
    assert float(first["cells"]["a"]) == pytest.approx(a[first["row"] % 600], rel=1e-3)
    copies = run.figures["data"]["copies"]
    assert copies["rows"] == 30 and copies["left_out"] == 0
    parts = np.load(run.path / "split.npy")
    crossed = sum(
        (parts[i] == TEST and parts[600 + i] == TRAIN) or (parts[i] == TRAIN and parts[600 + i] == TEST)
        for i in range(30)
    )
    assert copies["in_test"] == crossed > 0
    for language, words in (("en", "Labels that may be wrong"), ("zh", "可能有误的标签")):
        page = Page(run.report(language).read_text())
        assert words in page.text and str(first["row"]) in page.text and not page._open
    assert "用于学习的行的重复" in page.text and f"{crossed:,}" in page.text
