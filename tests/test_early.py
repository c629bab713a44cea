"""``weft export --to early``: easy rows are answered by a linear path, the others by the model as before."""

import json

import numpy as np
import pandas as pd
import pytest

import weft
from weft.cli import call
from weft.data.table import Table
from weft.early import export_early
from weft.inference.predict import Predictor
from weft.server.served import Served

KINDS, FIRST, THEN = ["bag", "coat", "hat"], ["left", "right"], ["above", "below"]


def rows(count, seed):
    """Bags, coats and hats; of every fifth row two words far apart tell only together."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, count)
    hard = random.random(count) < 0.2
    a, b = random.integers(0, 2, (2, count))
    kind = np.where(hard, (a != b).astype(int), kind)
    text = [
        f"{FIRST[a[i]]} one and then {THEN[b[i]]} again" if hard[i]
        else f"I like this {KINDS[kind[i]]} number {random.integers(9)}" for i in range(count)
    ]  # fmt: skip
    return pd.DataFrame({"text": text, "size": random.normal(size=count), "kind": np.array(KINDS)[kind]})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run and the same with easy rows that leave early, and what was said of it."""
    folder = tmp_path_factory.mktemp("early")
    rows(1200, 0).to_csv(folder / "t.csv", index=False)
    run = weft.train(
        folder / "t.csv", "kind", folder / "run", quiet=True, training={"epochs": 6, "learning_rate": 0.01},
        features={"text": "text", "size": "number"},
        model={"copies": 1, "width": 32, "layers": 2}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip
    found = export_early(run.path, folder / "early", 3.0)
    return run, weft.load(folder / "early"), found


def by_hand(run, table):
    """What the path says of rows, from the weights in the file and the codes of the columns."""
    (clean,) = Predictor(run.columns, run.model).clean(Table.of(table))
    codes = run.columns.encode(clean)
    state = {n: t.numpy() for n, t in run.model.state_dict().items() if n.startswith("first.")}
    text, size = codes["text"], codes["size"]["value"]
    score = np.stack([
        state["first.path.grams.0"][text["gram"][i]].T @ text["weight"][i] for i in range(len(table))
    ])  # fmt: skip
    score = score + state["first.path.bias"] + np.clip(size, -4, 4)[:, None] * state["first.path.number"][0]
    share = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    best = np.sort(share, axis=1)
    return share, best[:, -1] - best[:, -2] >= state["first.margin"]


def test_easy_rows_are_answered_by_the_path_and_the_others_by_the_model(runs):
    run, early = runs[0], weft.load(runs[1].path)
    early.model.first.margin.fill_(0.9)
    fresh = rows(800, 1).drop(columns="kind")
    names = [f"probability of {name}" for name in run.columns.target.classes]
    alone, both = (r.predict(fresh) for r in (run, early))
    share, easy = by_hand(early, fresh)
    assert 0.5 < easy.mean() < 0.95
    np.testing.assert_allclose(both[names].to_numpy()[easy], share[easy], atol=1e-5)
    np.testing.assert_allclose(both[names].to_numpy()[~easy], alone[names].to_numpy()[~easy], atol=1e-5)
    assert np.abs(both[names].to_numpy() - alone[names].to_numpy()).max() > 1e-3
    assert (both["prediction"] == alone["prediction"]).mean() >= 0.97


def test_what_it_costs_is_measured_and_told(runs, capsys):
    run, early, found = runs
    points = {p["kind"]: p for p in found["points"]}
    assert points["early"]["milliseconds"] > 0 and found["decided"] == 120 == found["rows"]
    size = (early.path / "model.safetensors").stat().st_size
    assert points["early"]["megabytes"] > points["float32"]["megabytes"]
    assert size / 1e6 == pytest.approx(points["early"]["megabytes"], rel=0.1)
    assert early.figures["early"]["left"] == found["left"]
    assert "Easy rows leave early" in (early.path / "report.html").read_text(encoding="utf-8")
    asked = ["export", str(run.path), "--to", "early", "-o", str(run.path.parent / "again"), "--max-loss", "3"]
    assert call(asked) == 0
    assert f"early:   {found['left']:.1%} of 120 validation rows" in capsys.readouterr().out


def test_every_command_opens_it(runs, tmp_path, capsys):
    _, early, _ = runs
    fresh = rows(300, 2)
    fresh.to_csv(tmp_path / "t.csv", index=False)
    said = early.predict(fresh.drop(columns="kind"))
    right = (said["prediction"].astype(str) == fresh["kind"]).mean()
    assert early.evaluate(fresh)["metrics"]["accuracy"]["value"] == pytest.approx(right)
    served = Served(early.path, "early").predict([fresh.drop(columns="kind").to_dict("records")])[0]
    names = [name for name in said.columns if name.startswith("probability")]
    np.testing.assert_allclose([[row[n] for n in names] for row in served], said[names].to_numpy(), atol=1e-5)
    assert call(["predict", str(early.path), str(tmp_path / "t.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    assert (pd.read_csv(tmp_path / "out.csv")["prediction"] == said["prediction"].astype(str)).all()
    for method in ("shap", "gradient"):
        asked = ["explain", str(early.path), str(tmp_path / "t.csv"), "--row", "0", "--method", method, "--json"]
        assert call(asked) == 0
    capsys.readouterr()
    asked = ["export", str(early.path), "--to", "int8", "-o", str(tmp_path / "small"), "--max-loss", "9"]
    assert call(asked) == 0
    smaller = weft.load(tmp_path / "small").predict(fresh.drop(columns="kind"))
    assert (smaller["prediction"] == said["prediction"]).mean() > 0.95


def test_runs_that_have_no_easy_rows_are_refused(runs, tmp_path, capsys, monkeypatch):
    run, early, _ = runs
    out = ["-o", str(tmp_path / "out")]
    assert call(["export", str(run.path), "--to", "early", *out]) == 1
    assert "at least 598 validation rows" in capsys.readouterr().err
    assert call(["export", str(early.path), "--to", "early", *out]) == 2
    assert "leave early already" in capsys.readouterr().err
    numbers = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) * 2})
    fast = {"training": {"epochs": 1}, "results": {"baselines": False, "explain": "off"}}
    other = weft.train(numbers, "b", tmp_path / "number", quiet=True, model={"copies": 1, "width": 16}, **fast)
    assert call(["export", str(other.path), "--to", "early", *out]) == 2
    assert "must choose one of several classes" in capsys.readouterr().err
    assert call(["export", str(run.path), "--to", "early", *out, "--max-loss", "inf"]) == 2
    assert "less than 100 of a hundred rows. Got inf" in capsys.readouterr().err
    monkeypatch.setattr("weft.early.EARNS", 1.1)
    assert call(["export", str(run.path), "--to", "early", *out, "--max-loss", "3"]) == 1
    assert "at least 110% of the rows must be easy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert json.loads((run.path / "config.json").read_text()).get("first") is None
