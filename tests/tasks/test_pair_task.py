"""Vectors learnt from pairs, the whole way: found among all, searched by the commands, exact to the bit."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import weft
from weft.cli import call
from weft.errors import DataError, SettingsError, UsageError
from weft.runs.pairs import PairRun

COLOURS = {"red": "红", "blue": "蓝", "green": "绿", "black": "黑", "white": "白", "grey": "灰"}
THINGS = {"house": "房子", "tree": "树", "river": "河", "stone": "石头", "bird": "鸟", "fish": "鱼", "boat": "船"}
PLACES = {"home": "家", "school": "学校", "market": "市场", "church": "教堂"}
TARGET = {"column": "zh", "type": "embedding"}
FAST = {"features": {"en": "text"}, "model": {"width": 64, "layers": 1},
        "training": {"epochs": 20, "learning_rate": 3e-3, "batch_rows": 32}}  # fmt: skip


def table():
    rows = [
        {"en": f"a {c} {t} at the {p}", "zh": f"在{PLACES[p]}的{COLOURS[c]}{THINGS[t]}"}
        for c in COLOURS for t in THINGS for p in PLACES
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> PairRun:
    return weft.train(table(), TARGET, tmp_path_factory.mktemp("pairs") / "run", quiet=True, **FAST)


def test_translations_that_it_never_saw_are_found(run):
    models = {m["key"]: m["metrics"] for m in run.figures["models"]}
    assert set(models) == {"weft", "tfidf", "bm25"}
    assert models["weft"]["recall_at_1"]["value"] > 0.7 and models["weft"]["recall_at_5"]["value"] > 0.9
    assert models["tfidf"]["recall_at_1"]["value"] < 0.1  # the two languages share no word
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What it finds" in page and "weft search" in (run.path / "README.md").read_text(encoding="utf-8")


def test_vectors_are_of_length_one_and_evaluate_repeats_the_report(run):
    vectors = run.embed(["a red tree at the school", "在学校的红树", "在家的白船"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    found = run.evaluate(table())
    assert found["metrics"] == run.figures["models"][0]["metrics"] and found["part"].startswith("test rows")
    everything = run.evaluate(table(), everything=True)
    assert everything["rows"] == 168 == everything["documents"]


def test_the_run_is_a_model_of_the_commands(run, tmp_path, capsys):
    data, index = tmp_path / "d.parquet", tmp_path / "i.parquet"
    pq.write_table(table(), data)
    assert call(["embed", str(run.path), str(data), "--column", "zh", "-o", str(index)]) == 0
    assert call(["search", str(run.path), str(index), "a grey fish at the market", "--top", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["found"]
    assert "在市场的灰鱼" in [f["zh"] for f in found]
    assert call(["evaluate", str(run.path), str(data)]) == 0
    assert "Recall at 1" in capsys.readouterr().out
    assert call(["predict", str(run.path), str(data), "-o", str(tmp_path / "x.csv")]) == 2
    assert isinstance(weft.load(run.path), PairRun)
    with pytest.raises(UsageError, match="gives vectors"):
        run.predict(table())


def test_a_checkpoint_stands_beside_what_it_became(tmp_path):
    first = weft.train(
        pa.concat_tables([table()] * 4),
        {"masked_token": "en"},
        tmp_path / "a",
        quiet=True,
        model={"width": 32, "layers": 1},
        training={"epochs": 1},
    )
    run = weft.train(
        table(),
        {"column": "zh", "type": "embedding"},
        tmp_path / "b",
        quiet=True,
        features={"en": "text"},
        model={"from": str(first.path)},
        training={"epochs": 6, "learning_rate": 3e-3},
    )
    models = {m["key"]: m["metrics"]["mrr"]["value"] for m in run.figures["models"]}
    assert models["weft"] > models["untouched"]


def test_rows_that_lack_a_text_are_set_aside_and_too_few_are_an_error(tmp_path):
    rows = table().to_pylist()
    rows[0]["en"] = None
    run = weft.train(pa.Table.from_pylist(rows), TARGET, tmp_path / "a", quiet=True,
                     **{**FAST, "training": {"epochs": 1}, "results": {"baselines": False}})  # fmt: skip
    assert run.figures["data"]["rejected"] == 1 and "must hold text" in next(iter(run.figures["data"]["reasons"]))
    with pytest.raises(DataError, match="at least two pairs"):
        weft.train(table().slice(0, 8), TARGET, tmp_path / "b", quiet=True, **FAST)
    with pytest.raises(SettingsError, match=r"reads 1 text column: .*Got none"):
        weft.train(table(), TARGET, tmp_path / "c", quiet=True)


def test_a_model_that_writes_is_refused(tmp_path):
    writer = weft.train(
        pa.concat_tables([table()] * 4),
        {"next_token": "en"},
        tmp_path / "w",
        quiet=True,
        model={"width": 32, "layers": 1},
        training={"epochs": 1},
    )
    with pytest.raises(SettingsError, match="needs a model that reads"):
        weft.train(table(), TARGET, tmp_path / "x", quiet=True, features={"en": "text"},
                   model={"from": str(writer.path)})  # fmt: skip
