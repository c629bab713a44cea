"""``weft export --to int8|int4``: a run that opens everywhere, refused where it costs more than is allowed."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import weft
from weft.cli import call
from weft.data.split import VALID
from weft.data.table import Table
from weft.features.batching import collate
from weft.inference.predict import WIDE, Predictor
from weft.models.backbone import machine_has_bfloat16
from weft.models.quantised import Linear8
from weft.runs.judged import split_of
from weft.smaller import export_smaller


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smaller")
    x = np.random.default_rng(0).normal(size=(600, 4))
    table = pd.DataFrame(x, columns=list("abcd")).assign(kind=np.where(x[:, 0] * x[:, 1] > 0, "same", "other"))
    table.to_csv(folder / "t.csv", index=False)
    return weft.train(
        folder / "t.csv", "kind", folder / "run", quiet=True, training={"epochs": 8, "learning_rate": 0.01},
        model={"copies": 1, "width": 128}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip


def test_a_smaller_run_is_judged_written_and_answers_nearly_the_same(run, tmp_path, capsys):
    table = pd.read_csv(run.settings.data.source)
    before = run.predict(table)["probability"].to_numpy()
    sizes = {}
    for kind in ("int8", "int4"):
        asked = ["export", str(run.path), "--to", kind, "-o", str(tmp_path / kind), "--max-loss", "9", "--json"]
        assert call(asked) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["figure"] == "Accuracy" and found["rows"] == 60
        points = {p["kind"]: p for p in found["points"]}
        accuracy = run.evaluate(table)["metrics"]["accuracy"]["value"]
        assert points["float32"]["quality"] > 0.8 and abs(points["float32"]["quality"] - accuracy) < 0.15
        sizes[kind] = (tmp_path / kind / "model.safetensors").stat().st_size
        assert sizes[kind] / 1e6 == pytest.approx(points[kind]["megabytes"], rel=0.05)
        small = weft.load(tmp_path / kind)
        assert any(isinstance(m, Linear8) for m in small.model.modules())
        after = small.predict(table)["probability"].to_numpy()
        assert np.abs(after - before).mean() < (0.01 if kind == "int8" else 0.06)
        assert small.figures["smaller"]["kind"] == kind
        assert "int4" in (tmp_path / kind / "report.html").read_text(encoding="utf-8")
    whole = (run.path / "model.safetensors").stat().st_size
    assert sizes["int8"] < 0.35 * whole and sizes["int4"] < 0.25 * whole
    assert call(["explain", str(tmp_path / "int8"), str(run.settings.data.source), "--row", "3", "--json"]) == 0


@pytest.mark.skipif(not machine_has_bfloat16("cpu"), reason="bfloat16 is measured where the machine multiplies it")
def test_a_wide_reader_is_measured_as_each_kind_of_number(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 2))
    pd.DataFrame(x, columns=list("ab")).assign(sum=x.sum(1)).to_csv(tmp_path / "t.csv", index=False)
    wide = weft.train(
        tmp_path / "t.csv", "sum", tmp_path / "run", quiet=True, training={"epochs": 1},
        model={"copies": 1, "width": WIDE, "layers": 1}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip
    found = export_smaller(tmp_path / "run", "int8", tmp_path / "small", 99)
    qualities = {p["kind"]: p["quality"] for p in found["points"]}
    valid = pd.read_csv(tmp_path / "t.csv").iloc[split_of(wide.path) == VALID]
    with torch.no_grad():
        codes = wide.columns.encode(next(Predictor(wide.columns, wide.model).clean(Table.of(valid))))
        said = wide.model.predict(collate(codes, len(valid))).numpy()
    error = np.abs(said - valid["sum"].to_numpy()).mean()
    assert qualities["float32"] == pytest.approx(error, rel=1e-5) and len(set(qualities.values())) == 4


def test_what_costs_too_much_or_cannot_be_judged_is_refused(run, tmp_path, capsys):
    assert call(["export", str(run.path), "--to", "int4", "-o", str(tmp_path / "a"), "--max-loss", "-50"]) == 1
    assert "must cost at most -50 points of Accuracy" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert call(["export", str(run.path), "--to", "int8", "-o", str(tmp_path / "b"), "--max-loss", "9"]) == 0
    assert call(["export", str(tmp_path / "b"), "--to", "int4", "-o", str(tmp_path / "c")]) == 2
    assert "few bits already" in capsys.readouterr().err
    assert call(["export", str(run.path), "--to", "hf", "-o", str(tmp_path / "d"), "--max-loss", "9"]) == 2
