"""What an audit says of groups: fairlearn's figures, textbook intervals, and words that hold in both languages."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from scipy.stats import ttest_1samp, ttest_ind
from sklearn.metrics import accuracy_score, mean_absolute_error
from tests.results.test_overview import strings
from tests.results.test_report import Page
from tests.tables import FAST, mixed, numeric

import weft
from weft.cli import call
from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.features.groups import GroupColumns
from weft.features.targets import ClassTarget, LabelsTarget, NumberTarget
from weft.results.audit import words
from weft.results.audit.figures import by_members, difference, mean_of, ratio, values_of
from weft.results.audit.page import TITLES, in_words
from weft.results.audit.words import groups_section
from weft.results.metrics import METRICS, Estimate
from weft.results.outcomes import Outcomes
from weft.results.pages import Phrases, chinese


def members_of(by=(), **columns):
    table = Table.of(pa.table(columns))
    groups = GroupColumns.of(table, by or list(columns))
    raw = next(iter(table.batches()))
    return groups.members(groups.read(raw, raw.rows))


@pytest.fixture(scope="module")
def judged():
    """Probabilities, truth and two columns of groups in which women are selected less often."""
    random = np.random.default_rng(3)
    n = 3_000
    sex, race = random.choice(["f", "m"], n, p=[0.4, 0.6]), random.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    truth = (random.random(n) < np.where(sex == "f", 0.3, 0.5)).astype(np.int64)
    score = random.normal(truth * 1.5 + (sex == "m") * 0.6 - 1 + (race == "b") * 0.2, 1)
    p = 1 / (1 + np.exp(-score))
    return np.stack([1 - p, p], 1), truth, sex, race


def test_the_figures_of_classes_are_those_of_fairlearn(judged):
    output, truth, sex, race = judged
    guess = output.argmax(1)
    sections = groups_section(
        members_of(sex=sex, race=race), Outcomes(ClassTarget("y", ["no", "yes"]), output, truth, 1)
    )
    theirs = {"selection_rate": selection_rate, "accuracy": accuracy_score, "tpr": true_positive_rate,
              "fpr": false_positive_rate}  # fmt: skip
    for found, features in zip(
        sections["columns"], (sex, race, np.char.add(np.char.add(sex, " × "), race)), strict=True
    ):
        frame = MetricFrame(metrics=theirs, y_true=truth, y_pred=guess, sensitive_features=features)
        for g in found["groups"]:
            for key in theirs:
                assert g["metrics"][key]["value"] == pytest.approx(frame.by_group[key][g["group"]]), (g["group"], key)
        kept = {"y_true": truth, "y_pred": guess, "sensitive_features": features}
        gaps = found["gaps"]
        assert gaps["selection_rate"]["value"] == pytest.approx(demographic_parity_difference(**kept))
        assert gaps["selection_rate"]["ratio"]["value"] == pytest.approx(demographic_parity_ratio(**kept))
        assert gaps["equalized_odds"]["value"] == pytest.approx(equalized_odds_difference(**kept))
        assert gaps["accuracy"]["value"] == pytest.approx(frame.difference()["accuracy"])
    small = groups_section(  # the published example of ten rows
        members_of(g=list("aaaaabbbbb")), Outcomes(
            ClassTarget("y", ["no", "yes"]), np.eye(2)[[0, 1, 0, 1, 1, 0, 0, 1, 1, 0]],
            np.array([0, 1, 1, 1, 0, 0, 0, 0, 1, 0]), 1,
        ),
    )["columns"][0]  # fmt: skip
    assert all(g["small"] for g in small["groups"])
    assert [round(small["gaps"][k]["value"], 3) for k in ("selection_rate", "equalized_odds")] == [0.2, 0.333]
    assert round(small["gaps"]["selection_rate"]["ratio"]["value"], 3) == 0.667


def test_calibration_is_told_for_each_group(judged):
    output, truth, sex, _ = judged
    said = Outcomes(ClassTarget("y", ["no", "yes"]), output, truth, 1)
    found = groups_section(members_of(sex=sex), said)["columns"][0]
    for g in found["groups"]:
        rows = sex == g["group"]
        lean = output[rows, 1] - truth[rows]
        interval = ttest_1samp(lean, 0).confidence_interval()
        e = g["metrics"]["calibration"]
        assert [e["value"], e["low"], e["high"]] == pytest.approx([lean.mean(), *interval])
        assert sum(b["rows"] for b in g["reliability"]) == rows.sum()
    # without a class that counts: how sure it is beside how often it is right
    three = np.array([[0.8, 0.1, 0.1]] * 60 + [[0.4, 0.3, 0.3]] * 60)
    said = Outcomes(ClassTarget("y", list("xyz")), three, np.array([0] * 30 + [1] * 30 + [0] * 45 + [2] * 15))
    section = groups_section(members_of(g=["a"] * 60 + ["b"] * 60), said)
    values = [g["metrics"]["calibration"]["value"] for g in section["columns"][0]["groups"]]
    assert values == pytest.approx([0.3, -0.35])
    said = "\n".join(words.lines(section["columns"][0]["said"], Phrases()))
    assert "'a' it is surer than it is right, by 30.0" in said and "'b' it is right more often" in said


def test_the_interval_of_a_gap_is_newcombes_and_of_means_welchs():
    # Newcombe 1998, table II, 56/70 and 48/80: 0.0524 to 0.3339 (method 10, without continuity correction)
    a, b = mean_of(np.repeat([1.0, 0.0], [56, 14])), mean_of(np.repeat([1.0, 0.0], [48, 32]))
    found = difference(a, b)
    assert [found.value, found.low, found.high] == pytest.approx([0.2, 0.0524, 0.3339], abs=1e-4)
    random = np.random.default_rng(0)
    x, y = random.normal(3, 1, 400), random.normal(2, 2, 300)
    found, welch = difference(mean_of(x), mean_of(y)), ttest_ind(x, y, equal_var=False).confidence_interval()
    assert [found.low, found.high] == pytest.approx(list(welch), abs=2e-3)
    assert difference(a, b, 2.0).low == pytest.approx(0.2 - 2 * (0.2 - difference(a, b).low))
    share = ratio(b, a)
    assert share.value == pytest.approx(0.75) and share.low < 0.75 < share.high < 1
    assert ratio(Estimate(0.0, 0.0, 0.1), a).value == 0 and np.isnan(ratio(a, Estimate(0.0, 0.0, 0.1)).value)


def test_two_shares_are_never_farther_apart_than_all_and_none():
    truth, answers = np.array([1, 0, 1, 0, 1, 0, 1, 0]), np.array([[0.0, 1.0]] * 4 + [[1.0, 0.0]] * 4)
    target = ClassTarget("y", ["no", "yes"])
    found = by_members(members_of(g=list("aaaabbcc"))[0], values_of(Outcomes(target, answers, truth, 1)))["gaps"]
    assert found["selection_rate"]["value"] == found["selection_rate"]["high"] == 1 and found["accuracy"]["low"] >= -1


def test_numbers_and_labels_have_figures_too():
    random = np.random.default_rng(1)
    truth, error, group = random.normal(0, 1, 600), random.normal(0, 1, 600), np.repeat(["a", "b"], 300)
    error[300:] += 0.5
    target = NumberTarget("y", mean=10.0, deviation=2.0)
    found = by_members(members_of(g=group)[0], values_of(Outcomes(target, truth * 2 + 10 + error, truth, None)))
    for g in found["groups"]:
        rows = group == g["group"]
        mae = mean_absolute_error((truth * 2 + 10)[rows], (truth * 2 + 10 + error)[rows])
        assert g["metrics"]["mae"]["value"] == pytest.approx(mae)
        assert g["metrics"]["bias"]["value"] == pytest.approx(error[rows].mean())
        assert g["metrics"]["mean_answer"]["value"] == pytest.approx((truth * 2 + 10 + error)[rows].mean())
        assert g["metrics"]["mean_truth"]["value"] == pytest.approx((truth * 2 + 10)[rows].mean())
    said = "\n".join(words.lines(words.column_in_words(found, None), Phrases()))
    assert "For 'b' its answers are too high by" in said and "For 'a'" not in said and "It is off by" in said
    assert "It answers 1" in said and "Truly it is " in said
    output, tags = np.array([[0.9, 0.2], [0.9, 0.9]] * 50), np.array([[1, 0], [1, 0]] * 50)
    found = by_members(
        members_of(g=["x", "y"] * 50)[0],
        values_of(Outcomes(LabelsTarget("t", ["p", "q"]), output, tags, None, np.array([0.5, 0.5]))),
    )
    values = {
        g["group"]: [g["metrics"][k]["value"] for k in ("subset_accuracy", "label_accuracy")] for g in found["groups"]
    }
    assert values == {"x": [1.0, 1.0], "y": [0.0, 0.5]}


def test_groups_of_numbers_are_quarters_and_small_groups_are_flagged_not_hidden():
    ages = np.arange(400) % 83 + 17
    (found,) = members_of(age=ages)
    assert found.binned and len(found.names) == 4 and found.names[0].startswith("17 to ")
    assert np.bincount(found.place).min() > 80
    (few,) = members_of(kids=np.repeat([0, 1, 2, None], [50, 30, 15, 5]))
    assert few.names == ["0", "1", "2", "(missing)"] and not few.binned
    many = members_of(shop=[f"s{i}" for i in range(40) for _ in range(3)])[0]
    assert len(many.names) == 31 and many.names[-1] == "(others)"
    both = members_of(sex=["f", "m"] * 4, race=["a", "a", "b", "b"] * 2)
    assert [m.column for m in both] == ["sex", "race", "sex × race"] and len(both[2].names) == 4
    group = ["big"] * 200 + ["also"] * 150 + ["tiny"] * 5
    right = np.r_[np.ones(200), np.zeros(60), np.ones(90), np.zeros(5)]
    output = np.stack([1 - right, right], 1)
    said = Outcomes(ClassTarget("y", ["no", "yes"]), output, np.ones(355, np.int64), 1)
    section = groups_section(members_of(g=group), said)
    found = section["columns"][0]
    assert [g["small"] for g in found["groups"]] == [False, False, True]
    assert found["groups"][2]["metrics"]["accuracy"]["value"] == 0, "its figures are there"
    assert found["gaps"]["accuracy"]["least"] == "also", "but the gap is that of groups that can be told"
    few = groups_section(  # all are small: those of 30 rows and more are compared, not the tiny one
        members_of(g=["a"] * 40 + ["b"] * 40 + ["tiny"] * 5), said[np.arange(180, 265)]
    )["columns"][0]
    assert {few["gaps"]["accuracy"][k] for k in ("most", "least")} == {"a", "b"}
    told = words.lines(found["said"], Phrases())
    assert told[-1].startswith("Groups of less than 30 rows") and "1, with 5 rows" in told[-1]
    assert not any("tiny" in line for line in told)


@pytest.mark.parametrize(
    "table, by, words",
    [
        ({"a": ["x", "y"]}, ["b"], "there is no column 'b' to group by"),
        ({"sex": ["x", "y"]}, ["sax"], "Did you mean 'sex'?"),
        ({"a": ["x"] * 9}, ["a"], "at least two groups in the rows that are judged. Got only 'x'"),
        ({"a": [None] * 9}, ["a"], "Got only '(missing)'"),
        ({"a": [f"a rather long text of {i} words" for i in range(9)]}, ["a"], "must hold categories or numbers"),
        ({"a": [[1, 2], [3]] * 9}, ["a"], "must hold categories or numbers"),
    ],
)
def test_columns_that_hold_no_groups_are_refused(table, by, words):
    with pytest.raises(DataError, match=re.escape(words)):
        members_of(by, **table)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    table = mixed(600).append_column("sex", pa.array(["f", "m", "m"] * 200)).append_column(
        "age", pa.array((np.arange(600) % 60).astype(str).tolist())
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("audit")
    weft.train(table, "bought", folder / "run", quiet=True, features={"sex": "off", "age": "off"}, **FAST)
    csv.write_csv(table.slice(0, 500), folder / "data.csv")
    return folder


def test_a_run_is_audited_by_columns_that_it_does_not_read(run, capsys):
    page = run / "audit.html"
    assert (
        call(["audit", str(run / "run"), str(run / "data.csv"), "--by", "sex,age", "--html", str(page), "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    columns = found["sections"]["groups"]["columns"]
    assert [c["column"] for c in columns] == ["sex", "age", "sex × age"] and columns[1]["binned"]
    table = csv.read_csv(run / "data.csv")
    given = weft.load(run / "run").predict(table)
    frame = MetricFrame(
        metrics=accuracy_score, y_true=table["bought"].to_pylist(), y_pred=given["prediction"].to_pylist(),
        sensitive_features=table["sex"].to_pylist(),
    )  # fmt: skip
    ours = {g["group"]: g["metrics"]["accuracy"]["value"] for g in columns[0]["groups"]}
    assert ours == pytest.approx(dict(frame.by_group)) and found["sections"]["groups"]["rows"] == 500
    text = Page(page.read_text())
    assert "script" not in text.tags and not text.links and not text._open
    for line in found["sentences"]["groups"]:
        assert re.sub(r"\s+", " ", line).removesuffix(":") in text.text
    assert (
        call(["audit", str(run / "run"), str(run / "data.csv"), "--by", "sex", "--of", "no", "--language", "zh"]) == 0
    )
    out = capsys.readouterr().out
    assert "判为“no”" in out and not re.search(r"[A-Z][a-z]+ [a-z]+ ", out), out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--by", "sex", "--of", "perhaps"], "'yes'"),
        (["--by", "sex", "--html", "nowhere/a.html"], "there is no folder nowhere"),
        (["--by", "colour,sox"], "Did you mean 'sex'?"),
    ],
)
def test_what_cannot_be_audited_is_said(run, capsys, arguments, words):
    assert call(["audit", str(run / "run"), str(run / "data.csv"), *arguments]) in (1, 2)
    assert words in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_the_very_data_of_the_training_are_judged_on_their_test_rows(tmp_path):
    table = numeric(600).append_column("g", pa.array(["u", "v"] * 300))
    found = weft.train(table, "y", tmp_path / "run", quiet=True, features={"label": "off", "g": "off"}, **FAST)
    section = found.audit(table, ["g"])["sections"]["groups"]
    assert section["rows"] == 90 and "test rows" in section["part"]
    assert found.audit(table, ["g"], everything=True)["sections"]["groups"]["rows"] == 600
    said = in_words(found.audit(table, ["g"]))["groups"]
    assert said[0] == "Judged on 90 rows: of the data of the training only those that were not learnt from."
    assert "It answers" in said[2] and "It is off by" in said[4]
    with pytest.raises(UsageError, match="of: must be a class"):
        found.audit(table, ["g"], of="u")


def phrases_of(module):
    """The sentences that a module may say."""
    return {phrase for phrase in strings(module) if re.search(r"[a-z] \{|\} [a-z]|^[:,] ", phrase)}


def test_every_phrase_of_an_audit_is_known_in_chinese():
    said = phrases_of(words) | set(TITLES.values())
    keys = ("base_rate", "selection_rate", "tpr", "fpr", "calibration", "declined", "label_accuracy", "bias")
    said |= {phrase for name in keys for phrase in (METRICS[name].title, METRICS[name].meaning)}
    assert len(said) > 30 and said <= set(chinese()), said - set(chinese())
