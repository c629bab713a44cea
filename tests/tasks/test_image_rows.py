"""Tables with pictures from end to end: folders, bytes, paths, arrays; what is learnt, said, shown and refused."""

import json
import re

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.killed import killed
from tests.preprocess.test_pictures import png_of, saved
from tests.tables import pictured

import weft
from weft import config
from weft.cli import call
from weft.data.columns import guess
from weft.data.plan import look
from weft.data.table import Table
from weft.errors import DataError, SettingsError, TooManyBadRows
from weft.estimates.rows import estimate

SMALL = {"model": {"width": 16, "layers": 1}, "training": {"epochs": 6, "batch_rows": 32, "learning_rate": 0.01}}
NO_BASELINES = {"results": {"baselines": False}}


def pixels_of(table):
    return [None if c is None else np.array(c, np.uint8) for c in table["photo"].to_pylist()]


@pytest.fixture
def folder(tmp_path):
    """Pictures with a class a sub-folder, and what is none beside them."""
    table = pictured(120)
    for i, (pixels, side) in enumerate(zip(pixels_of(table), table["side"].to_pylist(), strict=True)):
        if pixels is not None:
            path = tmp_path / "sides" / side / f"{i:03}.{'png' if i % 2 else 'BMP'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "sides" / "readme.md").write_text("no picture")
    return tmp_path / "sides"


def accuracy(run):
    return run.figures["models"][0]["metrics"]["accuracy"]["value"]


@pytest.mark.parametrize("backbone", ["transformer", "rnn"])
def test_a_folder_of_pictures_is_learnt(folder, tmp_path, backbone):
    table = Table.open(folder)
    assert table.columns == {"image": pa.string(), "label": pa.string()} and table.row_count() == 109
    model = {**SMALL["model"], "backbone": backbone}
    run = weft.train(str(folder), "label", tmp_path / "run", quiet=True, **{**SMALL, "model": model})
    assert accuracy(run) > 0.9
    told = run.evaluate(str(folder), everything=True)
    assert told["rows"] == 109 and told["metrics"]["accuracy"]["value"] > 0.9
    answers = run.predict(Table.open(folder))
    again = weft.load(tmp_path / "run").predict_file(folder, tmp_path / "out.parquet", keep=("image",))
    assert again["predicted"] == 109
    assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == answers["prediction"].to_pylist()


def test_the_same_pictures_as_paths_bytes_pairs_and_arrays_give_the_same_codes(tmp_path):
    table = pictured(40)
    arrays = pixels_of(table)
    for i, pixels in enumerate(arrays):
        if pixels is not None:
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    paths = [None if a is None else f"{i}.png" for i, a in enumerate(arrays)]
    cells = [None if a is None else saved(a) for a in arrays]
    pairs = [None if c is None else {"bytes": c, "path": "x.png"} for c in cells]
    filled = np.stack([a for a in arrays if a is not None])
    answers = {}
    for name, photo in (("paths", paths), ("bytes", cells), ("pairs", pairs), ("arrays", table["photo"])):
        made = pa.table({"photo": photo, "side": table["side"]})
        assert guess("photo", made["photo"]).type == "image"
        if name == "paths":
            pacsv.write_csv(made, tmp_path / "paths.csv")
            made = Table.open(tmp_path / "paths.csv")
        run = weft.train(made, "side", tmp_path / name, quiet=True, **SMALL, **NO_BASELINES)
        answers[name] = run.predict(made)
    first = answers.pop("paths")
    for name, other in answers.items():
        assert other.equals(first), name
    assert Table.of({"photo": filled}).head(3)["photo"].to_pylist() == filled[:3].tolist()
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(filled)
    assert Table.of({"photo": tensors[5:9]}).head(9)["photo"].to_pylist() == filled[5:9].tolist()


def test_pictures_beside_other_columns_and_two_of_them(tmp_path):
    table = pictured(160).drop_columns(["review", "bought", "when"])
    table = table.append_column("small", pa.array([saved(np.full((4, 4, 3), i, np.uint8)) for i in range(160)]))
    training = {**SMALL["training"], "epochs": 15}
    run = weft.train(table, "side", tmp_path / "run", quiet=True, model=SMALL["model"], training=training)
    assert {c["name"]: c["type"] for c in run.figures["columns"]}["small"] == "image"
    assert accuracy(run) > 0.75
    titles = [m["title"] for m in run.figures["models"]]
    assert any("Logistic" in t for t in titles) and "Gradient-boosted trees" in titles
    assert min(m["metrics"]["accuracy"]["value"] for m in run.figures["models"][2:]) > 0.75  # the floor sees pixels
    page = (run.path / "report.html").read_text()
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) > 6 and all(s.startswith("data:image/png;base64,") for s in sources)
    rows = json.loads((run.path / "report.json").read_text())["pictures"]
    assert {r["right"] for r in rows if r["right"]} == {True} and all(r["prediction"] and r["truth"] for r in rows)


@pytest.mark.parametrize("target", ["price", "tags"])
def test_numbers_and_labels_are_learnt_from_pictures_too(tmp_path, target):
    table = pictured(120).select(["photo", "price", "side"])
    tags = pa.array([["big", s] if i % 3 else [s] for i, s in enumerate(table["side"].to_pylist())])
    table = table.append_column("tags", tags).select(["photo", target]).filter(table["price"].is_valid())
    run = weft.train(table, target, tmp_path / "run", quiet=True, **SMALL)
    assert len(run.figures["pictures"]) > 3 and "truly" in (run.path / "report.html").read_text()


def test_mixup_and_cutmix_train_on_pictures(tmp_path):
    table = pictured(90).select(["photo", "side"])
    answers = []
    for name in ("plain", "mixup", "cutmix"):
        training = SMALL["training"] | ({} if name == "plain" else {name: 1.0})
        run = weft.train(table, "side", tmp_path / name, quiet=True, model=SMALL["model"], training=training,
                         **NO_BASELINES)  # fmt: skip
        assert accuracy(run) > 0.6
        answers.append(run.predict(table)["probability"])
    assert not answers[0].equals(answers[1]) and not answers[0].equals(answers[2])


def test_simple_models_learn_from_as_many_pictures_as_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("weft.tasks.row_results.MOST_PICTURE_BYTES", 50 * 64)
    run = weft.train(pictured(120).select(["photo", "side"]), "side", tmp_path / "run", quiet=True, **SMALL)
    assert run.figures["note"] == "The simple models learnt from 50 of the rows."


def test_what_is_no_picture_is_set_aside_with_row_column_and_reason(tmp_path):
    cells = [saved(a) for a in np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)]
    cells[3], cells[7], cells[9] = cells[3][: len(cells[3]) // 2], b"<svg/>", png_of(60_000, 60_000)
    cells[11] = None
    table = pa.table({"photo": pa.array(cells, pa.binary()), "y": ["a", "b"] * 30})
    with pytest.raises(TooManyBadRows, match="row 3, column 'photo': must be a whole picture"):
        weft.train(table, "y", tmp_path / "few", quiet=True, **SMALL, **NO_BASELINES)
    run = weft.train(table, "y", tmp_path / "run", quiet=True, **SMALL, **NO_BASELINES, data={"max_rejected": 0.1})
    aside = pq.read_table(run.path / "rejected.parquet").to_pylist()
    assert [(r["row"], r["column"]) for r in aside] == [(3, "photo"), (7, "photo"), (9, "photo")]
    assert run.figures["data"]["used"] == 57
    answers = run.predict(table)
    assert [i for i, p in enumerate(answers["prediction"].to_pylist()) if p is None] == [3, 7, 9]


def test_animations_are_said(tmp_path, monkeypatch):
    frames = [Image.new("L", (6, 6), shade) for shade in (40, 200)]
    cell = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    said = []

    class Heard(weft.progress.Silent):
        def line(self, text):
            said.append(text)

    table = pa.table({"photo": [cell, saved(np.full((6, 6), 9, np.uint8))] * 30, "y": ["a", "b"] * 30})
    settings = config.from_mapping({"target": "y", **SMALL, **NO_BASELINES})
    weft.pipeline.run(settings, Table.of(table), tmp_path / "run", Heard())
    assert "30 x photo: animated or of several pages: its first picture is read" in said


@pytest.mark.parametrize(
    ("column", "features", "words"),
    [
        (pa.array([1, 2] * 20), {"photo": "image"}, "must hold paths, bytes or arrays of pictures. Got int64"),
        (pa.array([[[0.5]], [[0.1]]] * 20), {"photo": "image"}, "must say what is black and white"),
        (pa.array([[[1]], [[2]]] * 20), {"photo": "number"}, "must hold single values"),
        (pa.array(["a", "b"] * 20), {"photo": {"type": "text", "size": 8}}, "size is for image columns"),
        (pa.array(["a", "b"] * 20), {"photo": {"type": "image", "range": [1, 0]}}, "range must go up"),
    ],
)
def test_settings_that_do_not_fit_the_column(column, features, words):
    with pytest.raises(SettingsError, match=words):
        settings = config.from_mapping({"target": "y", "features": features})
        look(settings, Table.of(pa.table({"photo": column, "y": ["a", "b"] * 20})))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([[[0.5]], [[0.1]]] * 20), "off"), (pa.array([[0.5], [1.5]] * 20), "off"),
        (pa.array([b"\x00\xff\xfe", b"\x01\xfe\xff"] * 20), "off"),
        (pa.array(["https://example.org/a.png", "https://example.org/b.png"] * 20), "category"),
        (pa.array(["photos/a.JPG", "b.jpeg"] * 20), "image"),
    ],
)  # fmt: skip
def test_what_is_guessed(column, kind):
    assert guess("photo", column).type == kind


def test_a_folder_without_pictures_and_pictures_as_the_target(tmp_path, folder):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.md").write_text("x")
    with pytest.raises(DataError, match="must hold files that end in"):
        Table.open(tmp_path / "none")
    with fsspec.open("memory://photos/a/1.png", "wb") as stream:
        stream.write(saved(np.zeros((4, 4), np.uint8)))
    with pytest.raises(DataError, match="pictures are read from this machine"):
        Table.open("memory://photos")
    made = pictured(30)
    with pytest.raises(SettingsError, match="the target 'photo' must hold single values"):
        weft.train(made, "photo", tmp_path / "run", quiet=True)
    assert Table.open(str(folder / "*" / "*")).row_count() == 109
    assert Table.open(folder).fingerprint() != Table.open(folder / "left").fingerprint()


def test_init_and_check_know_pictures(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(["init", str(folder)]) == 0
    text = (tmp_path / "weft.yaml").read_text()
    assert re.search(r"image: +image +# names files of pictures", text) and "target: label" in text
    assert call(["check", "weft.yaml"]) == 0
    told = capsys.readouterr().out
    assert "image" in told and "of 65 tokens each" in told
    found = estimate(config.load(tmp_path / "weft.yaml"))
    assert found["rows"] == 109 and found["memory_bytes"] > 1e6


def test_killed_and_resumed_with_changed_pictures_is_never_killed(tmp_path):
    settings = config.from_mapping({
        "target": "side", **NO_BASELINES, "model": SMALL["model"],
        "training": {"epochs": 3, "batch_rows": 32, "augment": {"flip": True, "color": 0.2, "rand_augment": 1}},
    })  # fmt: skip
    table = pictured(90).select(["photo", "side"])
    whole = weft.pipeline.run(settings, Table.of(table), tmp_path / "whole")
    with killed(at=4):
        weft.pipeline.run(settings, Table.of(table), tmp_path / "cut")
    again = weft.pipeline.run(settings, Table.of(table), tmp_path / "cut", resume=True)
    assert again.predict(table).equals(whole.predict(table))


def test_a_picture_of_a_folder_is_explained_by_its_patches(folder, tmp_path, capsys):
    run = weft.train(
        str(folder), "label", out=tmp_path / "run", quiet=True, results={"baselines": False, "explain": "off"}, **SMALL
    )
    assert call(["explain", str(run.path), str(folder), "--row", "2", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["explanations"]
    assert told["answer"] in ("left", "right") and len(told["players"]) == 16
    assert told["players"][0]["shown"] == "patch 1, 1"
