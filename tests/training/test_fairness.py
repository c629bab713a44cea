"""Groups treated more alike: the weights of a paper, definitions, fairlearn's optimiser; resumed to the bit."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin
from tests.killed import killed
from tests.tables import FAST

import weft
from weft.errors import DataError, SettingsError
from weft.models.row import GroupShift
from weft.training.fairness import Fairness, group_thresholds, reweighing, told_by_group
from weft.training_settings import FairnessSettings


def test_the_weights_are_those_of_kamiran_and_calders():
    # 2012, example 3: of 5 men 4 are hired, of 5 women 2: 2/3 = .75 a hired man, 2 a rejected one, 1.5 and .67 women
    found = reweighing(np.array([[1.0, 4.0], [3.0, 2.0]]))
    assert found == pytest.approx(np.array([[2.0, 0.75], [2 / 3, 1.5]]))
    assert reweighing(np.array([[0.0, 4.0], [2.0, 2.0]]))[0, 0] == 1  # no row has it


def scored(rows=4_000, seed=0):
    random = np.random.default_rng(seed)
    groups = random.choice(3, rows, p=[0.5, 0.4, 0.1])
    truth = random.random(rows) < np.array([0.5, 0.25, 0.4])[groups]
    p = 1 / (1 + np.exp(-random.normal(2.0 * truth - 1 + np.array([0.4, -0.4, 0.0])[groups], 1)))
    return p, truth, groups


def test_the_penalty_is_the_share_of_variance_between_groups_and_asks_nothing_of_chance():
    p, _, groups = scored(20_000)
    means = np.array([p[groups == g].mean() for g in range(3)])
    between = (np.bincount(groups) * (means - p.mean()) ** 2).sum() / len(p) / (p.mean() * (1 - p.mean()))
    t, g = torch.from_numpy(np.stack([p, 1 - p], axis=1)), torch.from_numpy(groups)
    assert told_by_group(t, g, 3).item() == pytest.approx(between, abs=1e-4)
    random = np.random.default_rng(1)
    batches = [random.integers(0, len(p), 64) for _ in range(3_000)]
    assert np.mean([told_by_group(t[b], g[b], 3).item() for b in batches]) == pytest.approx(between, rel=0.06)
    shuffled = g[torch.from_numpy(random.permutation(len(p)))]
    assert abs(np.mean([told_by_group(t[b], shuffled[b], 3).item() for b in batches])) < between / 20
    assert told_by_group(t[:5], torch.zeros(5, dtype=torch.int64), 3).item() == 0


def test_the_loss_weighs_each_row_or_adds_the_penalty():
    logs = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    target, groups = torch.arange(40) % 2, torch.arange(40) // 20
    each = -logs[torch.arange(40), target]
    weight = torch.tensor([[2.0, 0.5], [1.0, 1.5]])
    fair = Fairness(FairnessSettings(by=["g"], how="reweigh"), groups.numpy(), 2, 1, weight)
    assert fair.loss(logs, target, groups).item() == pytest.approx((weight[groups, target] * each).mean().item())
    fair = Fairness(FairnessSettings(by=["g"], how="penalty", strength=3.0), groups.numpy(), 2, 1)
    p = logs.exp()
    assert fair.loss(logs, target, groups).item() == pytest.approx(
        (each.mean() + 3 * told_by_group(p, groups, 2)).item(), abs=1e-6
    )
    fair.settings = FairnessSettings(by=["g"], how="penalty", strength=3.0, goal="opportunity")
    mine = target == 1
    expected = each.mean() + 3 * told_by_group(p[mine], groups[mine], 2)
    assert fair.loss(logs, target, groups).item() == pytest.approx(expected.item(), abs=1e-6)


def between(x, groups):
    """Of one column of numbers, group by group: the spread of the means, less what chance gives them."""
    parts = [x[groups == g] for g in np.unique(groups)]
    spread = sum(len(part) * (part.mean() - x.mean()) ** 2 for part in parts) / len(x)
    within = sum(((part - part.mean()) ** 2).sum() for part in parts) / (len(x) - len(parts))
    return spread - (len(parts) - 1) / len(x) * within


def test_several_classes_and_numbers_are_held_to_equal_means_by_group():
    random = np.random.default_rng(0)
    groups, truth = random.integers(0, 3, 60), random.integers(0, 4, 60)
    p = random.dirichlet(np.ones(4), 60)
    logs, codes, place = torch.from_numpy(np.log(p)), torch.from_numpy(truth), torch.from_numpy(groups)
    surprise = -np.log(p[np.arange(60), truth]).mean()
    fair = Fairness(FairnessSettings(by="g", how="penalty", strength=5.0), groups, 3)
    told = sum(between(p[:, c], groups) / p[:, c].mean() for c in range(4))
    assert fair.loss(logs, codes, place).item() == pytest.approx(surprise + 5 * told, rel=1e-4)
    fair.settings = FairnessSettings(by="g", how="penalty", strength=5.0, goal="opportunity")
    told = 0.0
    for c in range(4):
        own, there = p[truth == c, c], groups[truth == c]
        told += (truth == c).mean() * between(own, there) / (own.mean() * (1 - own.mean()))
    assert fair.loss(logs, codes, place).item() == pytest.approx(surprise + 5 * told, rel=1e-4)

    target, answer = random.normal(size=60), random.normal(size=60) + groups  # standardised: mean 50, deviation 8
    fair = Fairness(FairnessSettings(by="g", how="penalty", strength=5.0), groups, 3, unit=(50.0, 8.0))
    given = torch.from_numpy(answer * 8 + 50), torch.from_numpy(target).float(), place
    error = ((answer - target) ** 2).mean()
    assert fair.loss(*given).item() == pytest.approx(error + 5 * between(answer, groups), rel=1e-4)
    fair.settings = FairnessSettings(by="g", how="penalty", strength=5.0, goal="opportunity")
    assert fair.loss(*given).item() == pytest.approx(error + 5 * between(answer - target, groups), rel=1e-4)


class Given(BaseEstimator, ClassifierMixin):
    """Scores that are there already."""

    def fit(self, x, y):
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, x):
        return np.stack([1 - x[:, 0], x[:, 0]], 1)


@pytest.mark.parametrize(
    "goal, constraint", [("parity", "demographic_parity"), ("opportunity", "true_positive_rate_parity")]
)
def test_thresholds_are_as_good_as_fairlearns(goal, constraint):
    p, truth, groups = scored()
    found, few = group_thresholds(p, truth, groups, goal, 1.0, 4)
    ours = p > found[groups]
    mine = np.ones(len(p), bool) if goal == "parity" else truth
    rates = [ours[mine & (groups == g)].mean() for g in range(3)]
    assert max(rates) - min(rates) < 0.01 and not few and found[3] == 0.5
    best = ThresholdOptimizer(estimator=Given().fit(None, None), constraints=constraint, objective="accuracy_score",
                              predict_method="predict_proba", prefit=True, grid_size=1_000)  # fmt: skip
    best.fit(p[:, None], truth.astype(int), sensitive_features=groups)
    theirs = best._pmf_predict(p[:, None], sensitive_features=groups)[:, 1]
    expected = np.where(truth, theirs, 1 - theirs).mean()
    assert (ours == truth).mean() == pytest.approx(expected, abs=0.003)
    half, _ = group_thresholds(p, truth, groups, goal, 0.5, 4)
    before = [(p > 0.5)[mine & (groups == g)].mean() for g in range(3)]
    after = [(p > half[groups])[mine & (groups == g)].mean() for g in range(3)]
    assert np.ptp(after) == pytest.approx(np.ptp(before) / 2, abs=0.01)


def test_a_group_of_few_rows_keeps_its_threshold():
    p, truth, groups = scored()
    groups[groups == 2] = 0
    groups[:20] = 2
    found, few = group_thresholds(p, truth, groups, "parity", 1.0, 3)
    assert found[2] == 0.5 and few == [2] and found[0] != 0.5


def test_a_shifted_probability_is_above_a_half_where_it_was_above_the_threshold():
    shift = GroupShift({"sex": 3, "race": 2}, positive=1)
    thresholds = np.linspace(0.2, 0.7, 6)
    shift.set(thresholds)
    p = torch.rand(600, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(600) % 6
    moved = shift(torch.stack([1 - p, p], 1), groups)
    assert torch.equal(moved[:, 1] > 0.5, p > torch.from_numpy(thresholds).float()[groups])
    assert torch.allclose(moved.sum(1), torch.ones(600))
    assert torch.isfinite(shift(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 2]))).all()


def hired(rows=1_500, seed=0):
    """Women are hired less often at the same skill."""
    random = np.random.default_rng(seed)
    sex, skill = random.choice(["f", "m"], rows, p=[0.4, 0.6]), random.normal(size=rows)
    chosen = skill * 1.3 + np.where(sex == "f", -0.8, 0.6) + random.normal(0, 0.8, rows) > 0
    return pa.table({"sex": sex, "skill": skill, "hired": np.where(chosen, "yes", "no")})


SETTINGS = {"model": FAST["model"], "target": {"column": "hired", "positive": "yes"},
            "results": {"baselines": False, "explain": "off"}}  # fmt: skip


def trained(folder, fair, resume=False, **more):
    training = {"epochs": 8, "batch_rows": 32, "seed": 1} | ({"fairness": fair} if fair else {})
    settings = {**SETTINGS, "training": training, **more}
    return weft.Pipeline(settings).run(hired(), folder, quiet=True, resume=resume)


def gap(run, table):
    guess = np.array(run.predict(table)["prediction"].to_pylist()) == "yes"
    truth = np.array(table["hired"].to_pylist()) == "yes"
    return demographic_parity_difference(truth, guess, sensitive_features=table["sex"].to_pylist())


@pytest.mark.parametrize("target", ["rank", "pay"])
def test_several_classes_and_numbers_end_with_the_same_bits_and_less_of_a_gap(target, tmp_path):
    table = hired()
    pay = np.array(table["skill"]) + 1.2 * (np.array(table["sex"].to_pylist()) == "m")
    pay += np.random.default_rng(2).normal(size=len(pay))
    table = table.append_column("pay", pa.array(pay)).append_column(
        "rank", pa.array(np.digitize(pay, [0, 1, 2]).astype(str))
    )
    others = table.drop_columns(["hired", "rank" if target == "pay" else "pay"])

    def run(folder, fair, resume=False):
        training = {"epochs": 8, "batch_rows": 32, "seed": 1} | ({"fairness": fair} if fair else {})
        settings = {**SETTINGS, "target": target, "training": training}
        return weft.Pipeline(settings).run(others, tmp_path / folder, quiet=True, resume=resume)

    def apart(run):
        found = np.array(run.predict(others)["prediction"].to_pylist(), float)
        men = np.array(others["sex"].to_pylist()) == "m"
        return found[men].mean() - found[~men].mean()

    fair = {"by": "sex", "how": "penalty"}
    before, after = run("before", None), run("after", fair)
    assert apart(before) > 0.85 and apart(after) < 0.6 * apart(before)
    with killed(at=70):
        run("killed", fair)
    assert run("killed", fair, resume=True).predict(others).equals(after.predict(others))


@pytest.mark.parametrize("how", ["reweigh", "penalty", "thresholds"])
def test_each_way_cuts_the_gap_and_ends_with_the_same_bits_when_resumed(how, tmp_path):
    fair = {"by": "sex", "how": how}
    before, after = trained(tmp_path / "before", None), trained(tmp_path / "after", fair)
    table = hired(2_000, seed=5)
    assert gap(before, table) > 0.3 and gap(after, table) < gap(before, table) * (0.5 if how == "thresholds" else 0.65)
    section = after.figures["fairness"]["columns"][0]
    judged = after.audit(hired(), ["sex"])["sections"]["groups"]["columns"][0]
    assert section["column"] == "sex" and section["gaps"] == judged["gaps"], "the report says what the audit says"
    assert (after.path / "report.html").read_text().count("Whom it fails") == 1
    with killed(at=70):
        trained(tmp_path / "killed", fair)
    resumed = trained(tmp_path / "killed", fair, resume=True)
    assert resumed.predict(table).equals(after.predict(table))


def test_a_column_that_the_model_does_not_read_can_be_reweighed_by(tmp_path):
    run = trained(tmp_path / "run", {"by": "sex", "how": "reweigh"}, features={"sex": "off"})
    assert run.columns.types == {"skill": "number"} and run.figures["fairness"]["columns"][0]["column"] == "sex"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"training": {"fairness": {"by": "sax", "how": "reweigh"}}}, r"no column 'sax' \(training.fairness.by\)"),
        ({"results": {"fairness": {"by": ["sax"]}}}, r"no column 'sax' \(results.fairness.by\).* Did you mean 'sex'"),
        ({"training": {"fairness": {"by": "skill", "how": "thresholds"}}}, "model reads. Got 'skill'"),
        ({"training": {"fairness": {"by": "one", "how": "reweigh"}}}, "at least two groups .* Got only 'x'"),
        ({"target": "skill", "training": {"fairness": {"by": "sex", "how": "reweigh"}}}, "a number. Take how: penalty"),
        ({"target": "skill", "training": {"fairness": {"by": "sex", "how": "thresholds"}}}, "are for a target of two"),
        (
            {"target": {"column": "sex", "coverage": 0.9}, "training": {"fairness": {"by": "hired", "how": "penalty"}}},
            "answers to every row",
        ),
        ({"training": {"fairness": {"by": "sex", "how": "reweigh"}, "mixup": 0.2}}, "exclude each other"),
        ({"training": {"fairness": {"by": "sex", "how": "penalty"}, "accumulate": 2}}, "exclude each other"),
        ({"training": {"fairness": {"by": "sex", "how": "thresholds", "strength": 3.0}}}, "at most 1. Got 3"),
        ({"training": {"fairness": {"by": "sex", "how": "reweigh", "goal": "opportunity"}}}, "Remove goal"),
        ({"target": {"next_token": "sex"}, "results": {"fairness": {"by": "sex"}}}, "results.fairness"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_fair_is_said(change, words, tmp_path):
    table = hired(200).append_column("one", pa.array(["x"] * 200))
    with pytest.raises((SettingsError, DataError), match=words):
        weft.Pipeline({**SETTINGS, **change}).run(table, tmp_path / "run", quiet=True)
