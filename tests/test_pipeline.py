"""The whole way on small tables: what must hold of every run, and what bad input does."""

import html
import json
import subprocess
import sys
from typing import ClassVar

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.killed import killed
from tests.tables import FAST, mixed, numeric

import weft
from weft.errors import CheckpointError, DataError, RunError, SettingsError, TooManyBadRows, TrainingError, UsageError
from weft.features.targets import ClassTarget
from weft.files import held
from weft.results.outcomes import Outcomes
from weft.results.summary import judge, verdict


def train(table, target, out, **settings):
    merged = {k: {**FAST.get(k, {}), **v} if isinstance(v, dict) else v for k, v in settings.items()}
    return weft.train(table, target, out, quiet=True, **{**FAST, **merged})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(mixed(600), "bought", tmp_path_factory.mktemp("run") / "run", training={"epochs": 12})


class TestARun:
    def test_learns_and_says_so_beside_baselines(self, run):
        models = {m["key"]: m["metrics"]["accuracy"] for m in run.figures["models"]}
        assert set(models) == {"weft", "trivial", "linear", "trees"}
        assert models["weft"]["value"] > models["trivial"]["high"]
        assert all(m["low"] <= m["value"] <= m["high"] for m in models.values())
        assert run.figures["headline"].startswith("On ") and run.figures["verdict"]["lines"]

    def test_leaves_the_folder_of_the_contract(self, run):
        names = {p.name for p in run.path.iterdir()}
        assert names >= {"weft.yaml", "model.safetensors", "config.json", "columns.json", "tokenizer.json",
                         "metrics.jsonl", "report.html", "report.json", "README.md", "manifest.json"}  # fmt: skip
        assert any(n.startswith("events.out.tfevents") for n in names)
        assert not names & {"work", "checkpoints"}
        assert run.figures["data"]["fingerprint"] in (run.path / "weft.yaml").read_text()

    def test_answers_the_same_loaded_in_another_process(self, run, tmp_path):
        rows = mixed(80, seed=9)
        here = run.predict(rows)
        pq.write_table(rows, tmp_path / "rows.parquet")
        code = (
            "import sys, weft, pyarrow.parquet as pq; r, a, b = sys.argv[1:]; "
            "pq.write_table(weft.load(r).predict(pq.read_table(a)), b)"
        )
        subprocess.run(
            [sys.executable, "-c", code, run.path, tmp_path / "rows.parquet", tmp_path / "out.parquet"], check=True
        )
        assert pq.read_table(tmp_path / "out.parquet").equals(here)

    @pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "duckdb", "datasets"])
    def test_gives_back_the_kind_and_order_of_table_it_was_given(self, run, kind):
        rows = mixed(50, seed=4)
        expected = run.predict(rows).column("prediction").to_pylist()
        given = {
            "pandas": rows.to_pandas, "polars": lambda: pl.from_arrow(rows), "arrow": lambda: rows,
            "duckdb": lambda: duckdb.from_arrow(rows), "datasets": lambda: datasets.Dataset(rows),
        }[kind]()  # fmt: skip
        if kind == "pandas":
            given.index = pd.Index(range(100, 150))
        got = run.predict(given)
        assert type(got) is type(given)
        found = got.to_arrow_table() if kind == "duckdb" else got
        assert list(found["prediction"].to_pylist() if kind in ("arrow", "duckdb") else got["prediction"]) == expected
        if kind == "pandas":
            assert got.index.equals(given.index)

    def test_a_dataset_of_another_order_is_read_in_that_order(self, run):
        rows = mixed(50, seed=4)
        turned = datasets.Dataset(rows).select(range(49, -1, -1))
        assert list(run.predict(turned)["prediction"]) == run.predict(rows).column("prediction").to_pylist()[::-1]
        with pytest.raises(UsageError, match=r"Got DatasetDict\. Take one of its parts: dataset\['train'\]"):
            run.predict(datasets.DatasetDict(train=turned))

    def test_shows_itself_in_a_notebook(self, run):
        page = run._repr_html_()
        assert run.figures["headline"] in html.unescape(page) and str(run.path / "report.html") in page
        assert all(model["title"] in page for model in run.figures["models"])
        assert len(page) < 3_000 and "<script" not in page
        run.figures["headline"], kept = "<script>alert(1)</script>", run.figures["headline"]
        assert "<script" not in run._repr_html_()
        run.figures["headline"] = kept

    def test_a_row_that_cannot_be_read_has_no_prediction_and_the_others_do(self, run):
        rows = mixed(4).to_pylist()
        rows[2]["price"] = "cheap"
        text = [{**r, "price": None if r["price"] is None else str(r["price"]), "when": str(r["when"])} for r in rows]
        out = run.predict(pa.Table.from_pylist(text)).column("prediction").to_pylist()
        assert out[2] is None and all(out[i] is not None for i in (0, 1, 3))

    def test_no_rows_give_no_predictions(self, run):
        assert run.predict(mixed(5).slice(0, 0)).num_rows == 0

    def test_predicts_a_file_and_accounts_for_every_row(self, run, tmp_path):
        table = mixed(30).append_column("id", pa.array(range(30)))
        pacsv.write_csv(table, tmp_path / "in.csv")
        lines = (tmp_path / "in.csv").read_text().splitlines()
        _, rest = lines[4].split(",", 1)
        lines[4] = "1e999," + rest
        lines.insert(9, "too,few")
        (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
        done = run.predict_file(str(tmp_path / "in.csv"), tmp_path / "out.parquet", keep=("id",))
        assert done["rows"] == 31 == done["predicted"] + done["rejected"] and done["rejected"] == 2
        out = pq.read_table(tmp_path / "out.parquet").to_pylist()
        aside = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
        assert sorted(r["row"] for r in out + aside) == list(range(31))
        assert [r["id"] for r in out] == [str(i) for i in range(30) if i != 3]
        assert {r["row"]: r["reason"].split(",")[0] for r in aside} == {
            3: "must be a finite number",
            8: "must have 6 fields like the header",
        }

    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_every_output_format_holds_the_same(self, run, tmp_path, ending):
        pq.write_table(mixed(20), tmp_path / "in.parquet")
        out = tmp_path / f"out.{ending}"
        run.predict_file(str(tmp_path / "in.parquet"), out)
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda p: pd.read_json(p, lines=True)}[ending](
            out
        )
        expected = run.predict(mixed(20))
        assert list(read["prediction"]) == expected["prediction"].to_pylist()
        np.testing.assert_allclose(read["probability"], expected["probability"].to_numpy(), rtol=1e-5)

    def test_an_absent_column_costs_quality_and_is_said_once(self, run, tmp_path):
        rows = mixed(10)
        without = rows.drop_columns(["price", "review"])
        nulls = without.append_column("price", pa.nulls(10)).append_column("review", pa.nulls(10))
        with pytest.warns(UserWarning, match=r"no 'price', 'review', which the model reads.*costs quality") as said:
            found = run.predict(without)
        assert len(said) == 1 and found.equals(run.predict(nulls)) and not found.equals(run.predict(rows))
        assert run.predict_file(without, tmp_path / "a.csv")["absent"] == ["price", "review"]
        assert run.predict_file(rows, tmp_path / "b.csv")["absent"] == []
        assert run.evaluate(without)["absent"] == ["price", "review"]
        with pytest.raises(DataError, match="must hold the target 'bought'"):
            run.evaluate(rows.drop_columns("bought"))

    def test_a_column_that_seems_renamed_is_an_error_unless_allowed_and_so_is_having_none(self, run):
        rows = mixed(10)
        renamed = rows.rename_columns(["price", "color", "when", "review", "bought"])
        with pytest.raises(DataError, match=r"no 'colour'.*Did you mean 'color'.*--allow-missing"):
            run.predict(renamed)
        assert run.predict(renamed, allow_missing=True).num_rows == 10
        for allow in (False, True):
            with pytest.raises(DataError, match=r"must hold the columns the model was trained on. Got no 'colour'"):
                run.predict(rows.select(["bought"]), allow_missing=allow)

    def test_never_writes_over_what_it_reads_nor_names_a_column_twice(self, run, tmp_path):
        pq.write_table(mixed(5), tmp_path / "a.parquet")
        before = (tmp_path / "a.parquet").read_bytes()
        with pytest.raises(UsageError, match="must not be the table that is read"):
            run.predict_file(str(tmp_path / "a.parquet"), tmp_path / "a.parquet")
        assert (tmp_path / "a.parquet").read_bytes() == before
        pq.write_table(mixed(5).append_column("row", pa.array(range(5))), tmp_path / "b.parquet")
        with pytest.raises(UsageError, match="--keep row"):
            run.predict_file(str(tmp_path / "b.parquet"), tmp_path / "c.parquet", keep=("row",))

    def test_values_never_seen_are_answered(self, run):
        rows = mixed(3).to_pylist()
        for r, colour in zip(rows, ["ultraviolet", "", None], strict=True):
            r["colour"] = colour
        assert None not in run.predict(pa.Table.from_pylist(rows)).column("prediction").to_pylist()

    def test_is_evaluated_on_new_rows_and_on_its_own_test_rows(self, run):
        new = run.evaluate(mixed(200, seed=5))
        assert new["part"] == "all rows" and new["rows"] == 200
        own = run.evaluate(mixed(600))
        assert own["part"] == "test rows of the training data" and own["rows"] == run.figures["rows_judged"]
        ours = next(m for m in run.figures["models"] if m["key"] == "weft")
        assert own["metrics"]["accuracy"] == ours["metrics"]["accuracy"]
        assert run.evaluate(mixed(600), everything=True)["rows"] == 600

    def test_evaluation_needs_the_target(self, run):
        with pytest.raises(DataError, match="must hold the target 'bought'"):
            run.evaluate(mixed(10).drop_columns("bought"))

    @pytest.mark.parametrize("name", ["model.safetensors", "columns.json", "config.json", "tokenizer.json"])
    def test_a_changed_file_is_refused(self, run, tmp_path, name):
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(run.path, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(bytes(data))
        with pytest.raises(CheckpointError, match=f"{name} has changed"):
            weft.load(copy)

    def test_columns_of_another_run_are_refused(self, run, tmp_path):
        import shutil

        from weft.files import write_manifest

        other = train(mixed(200, seed=8), "bought", tmp_path / "other")
        copy = tmp_path / "copy"
        shutil.copytree(run.path, copy)
        shutil.copy(other.path / "columns.json", copy)
        write_manifest(copy, ["model.safetensors", "columns.json"])
        with pytest.raises(CheckpointError, match="different runs"):
            weft.load(copy).predict(mixed(5))


def test_a_number_target(tmp_path):
    run = train(numeric(600), "y", tmp_path / "run", features={"label": "off"}, training={"epochs": 10})
    ours, trivial = (next(m for m in run.figures["models"] if m["key"] == k)["metrics"] for k in ("weft", "trivial"))
    assert ours["rmse"]["value"] < 0.5 * trivial["rmse"]["value"] and ours["r2"]["value"] > 0.7
    out = run.predict(numeric(50, seed=3))
    truth = numeric(50, seed=3)["y"].to_numpy()
    assert np.corrcoef(out["prediction"].to_numpy(), truth)[0, 1] > 0.8


def test_where_the_linear_model_is_best_the_report_recommends_it(tmp_path):
    run = weft.train(numeric(1500, noise=0.01), "y", tmp_path / "run", quiet=True, features={"label": "off"},
                     model={"width": 16, "layers": 1, "copies": 1}, training={"epochs": 1})  # fmt: skip
    linear = next(m for m in run.figures["models"] if m["key"] == "linear")
    assert run.figures["verdict"]["recommended"] == linear["title"]
    assert "use it" in " ".join(run.figures["verdict"]["lines"])


def test_ahead_only_within_chance_is_no_reason_to_recommend_it():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 200)
    right = np.where(truth[:, None] == [0, 1], 0.9, 0.1)
    target = ClassTarget("y", ["a", "b"])

    def judged(key, title, wrong):
        output = right.copy()
        output[wrong] = output[wrong, ::-1]
        return judge(key, title, Outcomes(target, output, truth, 1))

    ours, linear = judged("weft", "Weft", range(20, 28)), judged("linear", "Logistic regression", range(10))
    found = verdict(target, ours, [linear], 200)
    assert found["recommended"] == "Logistic regression" and "ahead by 1.0 points" in found["lines"][0]
    assert "within chance" in found["lines"][0] and "use it" in found["lines"][1]
    assert verdict(target, judged("weft", "Weft", []), [judged("linear", "L", range(40))], 200)["recommended"] == "Weft"


def test_rows_said_to_be_valid_are_never_learnt_from(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=300)
    parts = np.array(["train"] * 200 + ["valid"] * 50 + ["test"] * 50)
    y = np.where(x > 0, "high", "low")
    y[200:250] = np.where(y[200:250] == "high", "low", "high")
    table = pa.table({"x": x, "y": y, "part": parts})
    run = train(table, "y", tmp_path / "run", model={"copies": 2}, data={"split": {"column": "part"}},
                training={"epochs": 20, "patience": 30}, results={"baselines": False})  # fmt: skip
    assert run.figures["model"]["copies"] == 2
    curve = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for copy in (0, 1):  # of folds, two fifths of the watched rows would be like those learnt from
        last = [r["valid_loss"] for r in curve if r["copy"] == copy and "valid_loss" in r][-1]
        assert last > 1, "the watched rows are turned round, so that what is learnt must fail on them"


def test_shuffled_labels_give_chance(tmp_path):
    table = mixed(1200)
    shuffled = np.random.default_rng(0).permutation(table.column("bought").to_numpy())
    table = table.set_column(4, "bought", pa.array(shuffled))
    run = train(table, "bought", tmp_path / "run", training={"epochs": 10}, data={"split": {"test": 0.4}})
    auc = next(m for m in run.figures["models"] if m["key"] == "weft")["metrics"]["auc"]
    assert auc["low"] <= 0.5 <= auc["high"]
    assert "not surely better" in " ".join(run.figures["verdict"]["lines"])


def test_a_constant_column_changes_nothing(tmp_path):
    table = numeric(300)
    plain = train(table, "label", tmp_path / "a", features={"y": "off"})
    more = train(table.append_column("k", pa.array(["same"] * 300)), "label", tmp_path / "b", features={"y": "off"})
    assert "k" in more.figures["left_out"]
    assert plain.predict(table).equals(more.predict(table.append_column("k", pa.array(["same"] * 300))))


def test_the_order_of_the_columns_changes_nothing(tmp_path):
    table = mixed(300)
    other = table.select(["review", "bought", "when", "price", "colour"])
    a, b = train(table, "bought", tmp_path / "a"), train(other, "bought", tmp_path / "b")
    assert a.predict(table).equals(b.predict(table))


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path):
    table = numeric(300)
    runs = [
        train(table, "label", tmp_path / str(i), features={"y": "off"}, training={"seed": seed})
        for i, seed in enumerate((0, 0, 1))
    ]
    a, b, c = (r.predict(table) for r in runs)
    assert a.equals(b) and not a.equals(c)


def test_folds_answer_as_one(tmp_path):
    run = train(numeric(300), "label", tmp_path / "run", features={"y": "off"}, model={"copies": 3})
    assert run.figures["model"]["copies"] == 3 and len(run.figures["model"]["epochs"]) == 3
    assert len({json.loads(x)["copy"] for x in (run.path / "metrics.jsonl").read_text().splitlines()}) == 3


def test_balanced_weights_find_more_of_a_rare_class_and_stay_calibrated(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=4000)
    y = np.where(x + random.normal(0, 1, 4000) > 2.2, "rare", "common")
    run = train(pa.table({"x": x, "y": y}), "y", tmp_path / "run", training={"class_weight": "balanced", "epochs": 8})
    rare = run.predict(pa.table({"x": x})).column("probability of rare").to_numpy()
    assert rare.mean() == pytest.approx((y == "rare").mean(), abs=0.02)


def test_without_test_rows_nothing_is_judged_on_rows_it_learnt(tmp_path):
    table = mixed(800)
    shuffled = np.random.default_rng(0).permutation(table.column("bought").to_numpy())
    table = table.set_column(4, "bought", pa.array(shuffled))
    run = train(table, "bought", tmp_path / "run", model={"copies": 3}, data={"split": {"test": 0, "valid": 0.3}})
    assert run.figures["model"]["copies"] == 3 and "never saw" not in run.figures["headline"]
    for model in run.figures["models"]:
        assert model["metrics"]["accuracy"]["value"] < 0.65, model["key"]
    assert run.evaluate(table)["part"] == "valid rows of the training data"


def test_a_class_that_only_validation_rows_hold_is_not_learnt_from(tmp_path):
    table = numeric(300)
    parts = np.array(["train"] * 180 + ["valid"] * 60 + ["test"] * 60)
    labels = table["label"].to_numpy().copy()
    labels[200:230] = "new"
    table = table.set_column(4, "label", pa.array(labels)).append_column("part", pa.array(parts))
    run = train(table, "label", tmp_path / "run", features={"y": "off"}, data={"split": {"column": "part"}})
    assert run.figures["target"]["classes"] == ["high", "low"] and run.figures["model"]["temperature"] < 3


class TestStoppedAndResumed:
    SETTINGS: ClassVar = {
        **FAST,
        "target": "label",
        "features": {"y": "off"},
        "training": {"epochs": 4, "batch_rows": 16},
    }

    def test_gives_the_same_weights(self, tmp_path):
        table = numeric(300)
        whole = weft.Pipeline(self.SETTINGS).run(table, tmp_path / "whole", quiet=True)
        with killed(at=31, saved=20):
            weft.Pipeline(self.SETTINGS).run(table, tmp_path / "killed", quiet=True)
        with pytest.raises(RunError, match="--resume"):
            weft.Pipeline(self.SETTINGS).run(table, tmp_path / "killed", quiet=True)
        again = weft.Pipeline(self.SETTINGS).run(table, tmp_path / "killed", resume=True, quiet=True)
        for name in ("model.safetensors", "metrics.jsonl", "columns.json"):
            assert (whole.path / name).read_bytes() == (again.path / name).read_bytes(), name

    def test_in_the_middle_of_several_copies(self, tmp_path):
        settings = {
            **self.SETTINGS,
            "model": {**FAST["model"], "copies": 3},
            "results": {"baselines": False, "explain": "off"},
        }
        table = numeric(300)
        whole = weft.Pipeline(settings).run(table, tmp_path / "whole", quiet=True)
        with killed(at=75, saved=70):  # the second copy is at work
            weft.Pipeline(settings).run(table, tmp_path / "killed", quiet=True)
        again = weft.Pipeline(settings).run(table, tmp_path / "killed", resume=True, quiet=True)
        for name in ("model.safetensors", "metrics.jsonl"):
            assert (whole.path / name).read_bytes() == (again.path / name).read_bytes(), name

    def test_refuses_other_settings_or_data_and_a_finished_run(self, tmp_path):
        table, out = numeric(300), tmp_path / "run"
        with pytest.raises(RunError, match="must hold a run to resume"):
            weft.Pipeline(self.SETTINGS).run(table, out, resume=True, quiet=True)
        weft.Pipeline(self.SETTINGS).run(table, out, quiet=True)
        with pytest.raises(RunError, match="finished"):
            weft.Pipeline(self.SETTINGS).run(table, out, resume=True, quiet=True)
        with pytest.raises(RunError, match="must be new or empty"):
            weft.Pipeline(self.SETTINGS).run(table, out, quiet=True)
        (out / "manifest.json").unlink()
        with pytest.raises(RunError, match="began with"):
            weft.Pipeline(self.SETTINGS).run(numeric(301), out, resume=True, quiet=True)

    def test_a_run_without_a_checkpoint_gives_way_and_one_at_work_does_not(self, tmp_path):
        table, out = numeric(300), tmp_path / "run"
        wrong = {**self.SETTINGS, "target": {"column": "label", "positive": "nobody"}}
        with pytest.raises(SettingsError, match="positive"):
            weft.Pipeline(wrong).run(table, out, quiet=True)
        (out / "mine.txt").write_text("no run's")
        with pytest.raises(RunError, match="must be new or empty"):
            weft.Pipeline(self.SETTINGS).run(table, out, quiet=True)
        (out / "mine.txt").unlink()
        own = tmp_path / "own"
        (own / "work").mkdir(parents=True)
        (own / "weft.yaml").write_text("target: label\n")
        with pytest.raises(RunError, match="must be new or empty"):
            weft.Pipeline(self.SETTINGS).run(table, own, quiet=True)
        assert (own / "weft.yaml").read_text() == "target: label\n"
        with held(out), pytest.raises(RunError, match="Another process is writing"):
            weft.Pipeline(self.SETTINGS).run(table, out, quiet=True)
        run = weft.Pipeline(self.SETTINGS).run(table, out, quiet=True)
        assert weft.load(out).predict(table).equals(run.predict(table))


class TestBadInput:
    def test_a_single_class(self, tmp_path):
        table = numeric(60).set_column(4, "label", pa.array(["high"] * 60))
        with pytest.raises(DataError, match=r"at least two classes.*only 'high'"):
            train(table, "label", tmp_path / "run")

    def test_a_target_that_is_missing_everywhere(self, tmp_path):
        table = numeric(60).set_column(4, "label", pa.nulls(60, pa.string()))
        with pytest.raises(DataError, match="the target 'label' is missing"):
            train(table, "label", tmp_path / "run")

    def test_a_constant_number_target(self, tmp_path):
        table = numeric(60).set_column(3, "y", pa.array([2.0] * 60))
        with pytest.raises(DataError, match="must vary"):
            train(table, {"column": "y", "type": "number"}, tmp_path / "run")

    def test_rows_without_a_target_are_set_aside_and_do_not_count_as_bad(self, tmp_path):
        table = numeric(200)
        labels = [None if i % 4 == 0 else v for i, v in enumerate(table["label"].to_pylist())]
        run = train(table.set_column(4, "label", pa.array(labels)), "label", tmp_path / "run")
        data = run.figures["data"]
        assert (data["rows"], data["used"], data["rejected"]) == (200, 150, 50)
        aside = pq.read_table(run.path / "rejected.parquet")
        assert aside["row"].to_pylist() == list(range(0, 200, 4))

    def test_too_many_bad_rows_name_the_first_ten(self, tmp_path):
        table = numeric(100)
        values = [str(v) if i % 3 else "junk" for i, v in enumerate(table["a"].to_pylist())]
        bad = table.set_column(0, "a", pa.array(values))
        with pytest.raises(TooManyBadRows, match=r"(?s)at most 1.0%.*34 of 100.*row 0, column 'a'.*row 27, column 'a'"):
            train(bad, "label", tmp_path / "run", features={"a": "number"})
        assert pq.read_table(tmp_path / "run" / "rejected.parquet").num_rows == 34

    def test_infinity_is_set_aside_and_nan_is_missing(self, tmp_path):
        values = numeric(300)["a"].to_numpy().copy()
        values[5], values[6] = np.inf, np.nan
        run = train(numeric(300).set_column(0, "a", pa.array(values)), "label", tmp_path / "run")
        assert run.figures["data"]["rejected"] == 1
        assert list(run.figures["data"]["reasons"]) == ["a: must be a finite number"]

    def test_no_such_column_tells_the_nearest(self, tmp_path):
        with pytest.raises(SettingsError) as raised:
            train(numeric(50), "lable", tmp_path / "run", features={"aa": "number"})
        assert len(raised.value.problems) == 2 and "Did you mean 'label'?" in raised.value.problems[0]

    def test_a_positive_class_that_is_none(self, tmp_path):
        with pytest.raises(SettingsError, match=r"target\.positive"):
            train(numeric(100), {"column": "label", "positive": "hihg"}, tmp_path / "run", features={"y": "off"})

    def test_a_leak_is_warned_about(self, tmp_path):
        table = mixed(200)
        run = train(table.append_column("copy", table["bought"]), "bought", tmp_path / "run")
        assert "'copy' equals the target" in run.figures["warnings"][0]

    def test_numbers_too_large_for_the_model_do_not_break_it(self, tmp_path):
        values = numeric(200)["a"].to_numpy() * 1e300
        run = train(numeric(200).set_column(0, "a", pa.array(values)), "label", tmp_path / "run")
        assert np.isfinite(run.predict(numeric(200))["probability"].to_numpy()).all()

    def test_a_learning_rate_that_explodes_is_an_error_not_a_bad_model(self, tmp_path):
        table = numeric(200)
        try:
            run = train(table, "label", tmp_path / "run", training={"learning_rate": 1.0, "epochs": 30})
        except TrainingError as error:
            assert "learning_rate" in str(error)
        else:
            assert np.isfinite(run.predict(table)["probability"].to_numpy()).all()

    def test_a_path_that_is_no_run(self, tmp_path):
        with pytest.raises(RunError, match="no such folder"):
            weft.load(tmp_path / "nothing")
        with pytest.raises(CheckpointError, match="was not finished"):
            weft.load(tmp_path)

    def test_bad_rows_are_named_even_when_they_leave_a_part_of_the_split_empty(self, tmp_path):
        table = numeric(100)
        values = [str(v) if i < 4 else "junk" for i, v in enumerate(table["a"].to_pylist())]
        with pytest.raises(TooManyBadRows, match="96 of 100"):
            train(table.set_column(0, "a", pa.array(values)), "label", tmp_path / "run", features={"a": "number"})

    def test_a_kept_cell_that_is_not_utf8_is_shown_not_fatal(self, run, tmp_path):
        pacsv.write_csv(mixed(6).append_column("note", pa.array(["x"] * 6)), tmp_path / "in.csv")
        data = (tmp_path / "in.csv").read_bytes().replace(b'"x"\n', b'"\xff"\n', 1)
        (tmp_path / "in.csv").write_bytes(data)
        run.predict_file(str(tmp_path / "in.csv"), tmp_path / "out.parquet", keep=("note",))
        assert pq.read_table(tmp_path / "out.parquet")["note"].to_pylist() == ["\ufffd", *["x"] * 5]
