"""A history beside other columns of a row: read for a class and a number, in every form, by every backbone."""

import json

import numpy as np
import pyarrow as pa
import pytest

import weft


def table(rows=500, seed=0, form="list"):
    """``won``: whether the last item was even; ``spent``: how many of the items were ``i3``; some histories missing."""
    random = np.random.default_rng(seed)
    had = [[int(i) for i in random.integers(0, 8, random.integers(0, 7))] for _ in range(rows)]
    won = ["yes" if h and h[-1] % 2 == 0 else "no" for h in had]
    spent = [10.0 * h.count(3) + random.normal(0, 0.1) for h in had]
    cells = {"list": had, "json": [json.dumps(h) for h in had], "text": [" ".join(map(str, h)) for h in had]}[form]
    return pa.table({"had": [None if not h and i % 2 else c for i, (h, c) in enumerate(zip(had, cells, strict=True))],
                     "noise": random.normal(size=rows), "won": won, "spent": spent})  # fmt: skip


def figure(run, key, model="weft"):
    return next(m for m in run.figures["models"] if m["key"] == model)["metrics"][key]["value"]


@pytest.mark.parametrize(("backbone", "form"), [("transformer", "list"), ("rnn", "json")])
def test_a_class_is_told_by_what_came_last(tmp_path, backbone, form):
    run = weft.train(
        table(form=form).drop_columns(["spent"]), "won", tmp_path / "run", quiet=True,
        model={"backbone": backbone, "copies": 1}, training={"epochs": 20, "learning_rate": 5e-3, "patience": 20},
    )  # fmt: skip
    assert {c["name"]: c["type"] for c in run.figures["columns"]}["had"] == "sequence"
    assert figure(run, "accuracy") > 0.93 > figure(run, "accuracy", "linear")  # a bag of items knows no order
    new = table(60, seed=1, form=form)
    found = weft.load(run.path).predict(new.select(["had", "noise"]))
    assert np.mean(np.array(found["prediction"]) == np.array(new["won"])) > 0.9
    one = run.predict(new.select(["had", "noise"]).slice(7, 1))
    assert one["prediction"][0] == found["prediction"][7]


def test_a_number_is_told_by_what_was_had_and_a_text_is_cut_where_it_is_said(tmp_path):
    run = weft.train(
        table(form="text").drop_columns(["won"]), "spent", tmp_path / "run", quiet=True,
        features={"had": {"type": "sequence", "separator": " ", "max_events": 6, "max_categories": 50}},
        model={"copies": 1}, training={"epochs": 20, "learning_rate": 5e-3, "patience": 20},
    )  # fmt: skip
    assert figure(run, "mae") < 0.4 * figure(run, "mae", "trivial")
    odd = pa.table({"had": ["3 3", "never seen", None, "3 " * 5_000], "noise": [0.0] * 4})
    found = run.predict(odd)["prediction"].to_pylist()
    assert found[0] > 10 and abs(found[1]) < 8 and abs(found[2]) < 8 and np.isfinite(found[3])
