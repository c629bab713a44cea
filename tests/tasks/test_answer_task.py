"""The whole way for rows that are declined, for rows with several labels, and for rows in several languages."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score
from tests.tables import FAST

import weft
from weft.errors import DataError, SettingsError


def train(table, target, out, **settings):
    merged = {k: {**FAST.get(k, {}), **v} if isinstance(v, dict) else v for k, v in settings.items()}
    return weft.train(table, target, out, quiet=True, **{**FAST, **merged})


def scoped(rows=900, seed=0):
    """Three classes far apart, and a quarter of rows between them that belong to none (``neither``)."""
    random = np.random.default_rng(seed)
    kind = random.choice(["up", "left", "right", "neither"], rows)
    centre = {"up": (0, 3), "left": (-3, -2), "right": (3, -2), "neither": (0, -0.3)}
    at = np.array([centre[k] for k in kind]) + random.normal(0, 0.6, (rows, 2))
    return pa.table({"a": at[:, 0], "b": at[:, 1], "kind": kind})


def labelled(rows=600, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3))
    has = x + random.normal(0, 0.3, (rows, 3)) > [0, 0.7, 1.2]
    names = np.array(["common", "some, times", "罕见"])
    return pa.table({"p": x[:, 0], "q": x[:, 1], "r": x[:, 2], "tags": [names[h].tolist() for h in has]}), has


@pytest.fixture(scope="module")
def declining(tmp_path_factory):
    target = {"column": "kind", "coverage": 0.9, "out_of_scope": "neither"}
    return train(scoped(), target, tmp_path_factory.mktemp("scope") / "run",
                 training={"epochs": 15}, data={"split": {"test": 0.3, "valid": 0.2}})  # fmt: skip


@pytest.fixture(scope="module")
def labels_run(tmp_path_factory):
    return train(labelled()[0], "tags", tmp_path_factory.mktemp("labels") / "run", training={"epochs": 15},
                 data={"split": {"test": 0.3, "valid": 0.2}})  # fmt: skip


class TestDeclining:
    def test_the_word_is_never_an_answer(self, declining):
        assert declining.figures["target"]["classes"] == ["left", "right", "up"]
        out = declining.predict(scoped(500, seed=1))
        assert set(out["prediction"].to_pylist()) == {"left", "right", "up", None}
        assert "probability of neither" not in out.column_names

    def test_a_declined_row_has_no_prediction_and_says_so(self, declining):
        out = declining.predict(scoped(500, seed=1))
        declined = out["declined"].to_numpy()
        assert [p is None for p in out["prediction"].to_pylist()] == declined.tolist() and 0 < declined.mean() < 1
        truth = scoped(500, seed=1)["kind"].to_numpy().astype(str)
        assert declined[truth == "neither"].mean() > 2 * declined[truth != "neither"].mean()

    def test_the_figures_are_those_of_the_predictions(self, declining):
        table = scoped(700, seed=2)
        found, out = declining.evaluate(table), declining.predict(table)
        truth, declined = table["kind"].to_numpy().astype(str), out["declined"].to_numpy()
        inside = truth != "neither"
        says = found["declines"]
        assert found["rows"] == inside.sum() == says["in_scope"] and says["out_of_scope"] == (~inside).sum()
        assert says["coverage"]["value"] == pytest.approx((~declined)[inside].mean())
        assert says["out_of_scope_recall"]["value"] == pytest.approx(declined[~inside].mean())
        answered = inside & ~declined
        right = np.array(out["prediction"].to_pylist(), object)[answered] == truth[answered]
        assert says["accuracy_answered"]["value"] == pytest.approx(right.mean())
        assert found["unknown_class"] == 0

    def test_the_share_that_was_asked_for_is_answered(self, declining):
        says = declining.figures["declines"]
        assert says["coverage"]["low"] <= 0.9 <= says["coverage"]["high"] + 0.05
        assert declining.figures["model"]["declines"]["outside"] > 20
        assert set(declining.figures["model"]["declines"]["areas"]) == {"energy", "probability"}
        assert len(says["beside"]) == 3

    def test_the_threshold_goes_with_the_weights(self, declining, tmp_path):
        from safetensors.numpy import load_file

        assert "threshold" in load_file(declining.path / "model.safetensors")
        assert json.loads((declining.path / "config.json").read_text())["score"] in ("energy", "probability")
        again = weft.load(declining.path).predict(scoped(200, seed=3))
        assert again.equals(declining.predict(scoped(200, seed=3)))

    def test_the_report_and_the_command_say_it(self, declining, capsys, tmp_path):
        from weft.cli import call

        page = (declining.path / "report.html").read_text()
        assert "What it declines" in page and "rows out of scope" in page
        pq.write_table(scoped(100, seed=4), tmp_path / "a.parquet")
        assert call(["evaluate", str(declining.path), str(tmp_path / "a.parquet")]) == 0
        assert "out of scope it declines" in capsys.readouterr().out

    def test_without_such_rows_the_least_sure_are_declined(self, tmp_path):
        table = scoped(900).filter(pa.compute.not_equal(scoped(900)["kind"], "neither"))
        run = train(table, {"column": "kind", "coverage": 0.8}, tmp_path / "run", data={"split": {"valid": 0.3}},
                    results={"baselines": False})  # fmt: skip
        says = run.figures["declines"]
        assert run.figures["model"]["declines"]["areas"] == {} and says["out_of_scope"] == 0
        assert says["coverage"]["low"] - 0.08 <= 0.8 <= says["coverage"]["high"] + 0.08  # two draws of rows
        assert says["accuracy_answered"]["value"] >= says["accuracy_all"]["value"]

    def test_a_word_that_no_row_has(self, tmp_path):
        with pytest.raises(SettingsError, match=r"target\.out_of_scope: must be a word.*'kind'.*'nothing'"):
            train(scoped(200), {"column": "kind", "out_of_scope": "nothing"}, tmp_path / "run")

    def test_what_does_not_belong_together(self):
        for wrong, said in [
            ({"type": "number", "coverage": 0.9}, "coverage is for a target of type class"),
            ({"type": "labels", "out_of_scope": "x"}, "out_of_scope is for a target of type class"),
            ({"separator": ";", "coverage": 0.9}, "separator is for a target of labels"),
        ]:
            with pytest.raises(SettingsError, match=said):
                weft.Pipeline({"target": {"column": "y", **wrong}})


class TestLabels:
    def test_learns_them_beside_the_baselines(self, labels_run):
        f1 = {m["key"]: m["metrics"]["micro_f1"] for m in labels_run.figures["models"]}
        assert set(f1) == {"weft", "trivial", "linear", "trees"} and labels_run.figures["target"]["type"] == "labels"
        assert f1["weft"]["value"] > 0.8 > f1["trivial"]["high"] and f1["linear"]["value"] > 0.8
        assert "gave the labels of 'tags'" in labels_run.figures["headline"]
        assert [r["label"] for r in labels_run.figures["labels"]] == ["common", "some, times", "罕见"]
        page = (labels_run.path / "report.html").read_text()
        assert "Each label" in page and "罕见" in page

    def test_predicts_a_list_and_a_probability_each(self, labels_run):
        table, has = labelled(300, seed=1)
        out = labels_run.predict(table)
        assert out["prediction"].type == pa.list_(pa.string())
        names = labels_run.figures["target"]["classes"]
        thresholds = [r["threshold"] for r in labels_run.figures["labels"]]
        for row in out.to_pylist()[:50]:
            given = [n for n, t in zip(names, thresholds, strict=True) if row[f"probability of {n}"] >= t]
            assert row["prediction"] == given
        guess = np.array([[n in given for n in names] for given in out["prediction"].to_pylist()])
        assert labels_run.evaluate(table)["metrics"]["micro_f1"]["value"] == pytest.approx(
            f1_score(has, guess, average="micro")
        )

    def test_csv_holds_json_arrays(self, labels_run, tmp_path):
        pq.write_table(labelled(20, seed=2)[0], tmp_path / "in.parquet")
        labels_run.predict_file(str(tmp_path / "in.parquet"), tmp_path / "out.csv")
        read = [json.loads(cell) for cell in pd.read_csv(tmp_path / "out.csv")["prediction"]]
        assert read == labels_run.predict(labelled(20, seed=2)[0])["prediction"].to_pylist()

    def test_texts_with_a_separator_or_json_are_the_same_as_lists(self, labels_run, tmp_path):
        table, _ = labelled()
        cells = table["tags"].to_pylist()
        pacsv.write_csv(table.set_column(3, "tags", pa.array(map(json.dumps, cells))), tmp_path / "a.csv")
        again = train(str(tmp_path / "a.csv"), "tags", tmp_path / "run", training={"epochs": 15},
                      data={"split": {"test": 0.3, "valid": 0.2}}, results={"baselines": False})  # fmt: skip
        ours = [f["models"][0]["metrics"]["micro_f1"]["value"] for f in (labels_run.figures, again.figures)]
        assert ours[0] == pytest.approx(ours[1]) and again.figures["target"]["type"] == "labels"

    def test_an_empty_list_is_a_value_and_a_missing_cell_is_none(self, tmp_path):
        table, _ = labelled(400)
        cells = [None if i % 8 == 0 else c for i, c in enumerate(table["tags"].to_pylist())]
        table = table.set_column(3, "tags", pa.array(cells, pa.list_(pa.string())))
        run = train(table, "tags", tmp_path / "run", results={"baselines": False})
        assert run.figures["data"]["rejected"] == 50 and run.figures["data"]["used"] == 350

    def test_a_separator_is_guessed_and_said(self, tmp_path):
        table, _ = labelled(300)
        cells = [";".join(c).replace(", ", "") or None for c in table["tags"].to_pylist()]
        table = table.set_column(3, "tags", pa.array(cells))
        run = train(table, {"column": "tags", "type": "labels"}, tmp_path / "run", results={"baselines": False})
        assert "';' stands between the labels of a cell, guessed" in run.figures["target"]["reason"]
        assert run.figures["target"]["classes"] == ["common", "sometimes", "罕见"]

    def test_a_label_never_seen_is_not_judged(self, labels_run):
        table, _ = labelled(50, seed=3)
        cells = [[*c, "new"] if i < 5 else c for i, c in enumerate(table["tags"].to_pylist())]
        found = labels_run.evaluate(table.set_column(3, "tags", pa.array(cells)))
        assert found["rows"] == 45 and found["unknown_class"] == 5

    def test_a_cell_that_is_no_list_is_set_aside(self, labels_run):
        table, _ = labelled(40, seed=3)
        cells = [json.dumps(c) for c in table["tags"].to_pylist()]
        cells[7] = "common"
        assert labels_run.evaluate(table.set_column(3, "tags", pa.array(cells)))["rejected"] == 1

    @pytest.mark.parametrize(("cells", "said"), [([[]] * 60, "no label at all"), ([["a"]] * 60, "in every row")])
    def test_labels_that_teach_nothing(self, tmp_path, cells, said):
        table = labelled(60)[0].set_column(3, "tags", pa.array(cells, pa.list_(pa.string())))
        with pytest.raises(DataError, match=said):
            train(table, "tags", tmp_path / "run")


def test_init_and_check_know_them(tmp_path, monkeypatch, capsys):
    from weft.cli import call

    monkeypatch.chdir(tmp_path)
    pq.write_table(labelled(200)[0], "tags.parquet")
    pq.write_table(scoped(200), "scope.parquet")
    assert call(["init", "tags.parquet", "--target", "tags"]) == 0
    assert "# a list of labels: every cell is a list" in (tmp_path / "weft.yaml").read_text()
    assert call(["check", "weft.yaml"]) == 0
    said = "data: {source: scope.parquet}\ntarget: {column: kind, out_of_scope: neither}\n"
    (tmp_path / "scope.yaml").write_text(said)
    assert call(["check", "scope.yaml"]) == 0
    assert "kind: class" in capsys.readouterr().out


class TestLanguages:
    WORDS = (("good", "bad"), ("很好", "不好"))

    def table(self, rows=400):
        random = np.random.default_rng(0)
        language, good = random.random(rows) < 0.4, random.random(rows) < 0.5
        texts = []
        for is_chinese, is_good in zip(language, good, strict=True):
            word = self.WORDS[int(is_chinese)][int(not is_good)]
            number = random.integers(1, 99)
            texts.append(
                f"我觉得第{number}个房间{word}，谢谢" if is_chinese else f"I think that room {number} is {word}"
            )
        names = np.where(language, "Chinese", "English")
        return pa.table({"text": texts, "speaks": names, "good": np.where(good, "yes", "no")})

    def test_a_column_says_it(self, tmp_path):
        run = train(self.table(), "good", tmp_path / "run", features={"speaks": "off", "text": "text"},
                    results={"language": "speaks", "baselines": False})  # fmt: skip
        found = run.figures["languages"]
        assert found["column"] == "speaks" and {g["group"] for g in found["groups"]} == {"English", "Chinese"}
        assert sum(g["rows"] for g in found["groups"]) == run.figures["rows_judged"]
        page = (run.path / "report.html").read_text()
        assert "By language" in page and "few rows" in page

    def test_the_texts_show_it(self, tmp_path):
        run = train(self.table(), "good", tmp_path / "run", features={"speaks": "off", "text": "text"},
                    results={"baselines": False})  # fmt: skip
        assert {g["group"] for g in run.figures["languages"]["groups"]} == {"en", "zh"}
        english = self.table().filter(pa.compute.equal(self.table()["speaks"], "English"))
        alone = train(english, "good", tmp_path / "alone", features={"speaks": "off", "text": "text"},
                      results={"baselines": False})  # fmt: skip
        assert alone.figures["languages"] is None and "By language" not in (alone.path / "report.html").read_text()

    def test_a_column_that_is_not_there(self, tmp_path):
        with pytest.raises(SettingsError, match=r"'speak' \(results\.language\)\. Did you mean 'speaks'"):
            train(self.table(), "good", tmp_path / "run", results={"language": "speak"})
