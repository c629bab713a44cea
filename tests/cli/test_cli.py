"""The commands as a newcomer types them: what they print, what they leave, how they end."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import mixed, numeric

from weft.cli import app, call, main, memory_full

SMALL = ["--set", "model.width=16", "--set", "model.layers=1", "--set", "model.copies=1", "--set", "training.epochs=2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_csv_to_predictions(here, capsys):
    pacsv.write_csv(mixed(300), "shop.csv")
    assert call(["init", "shop.csv", "--target", "bought"]) == 0
    text = (here / "weft.yaml").read_text()
    assert "review:" in text and "text" in text and "# holds" in text
    assert call(["check", "weft.yaml"]) == 0
    assert "is valid" in capsys.readouterr().out
    assert call(["run", "weft.yaml", "-o", "model", *SMALL]) == 0
    told = capsys.readouterr()
    assert "model/report.html" in told.out
    steps = ["data", "preprocess", "features", "model", "inference", "results"]
    said = [line.split()[0] for line in told.err.splitlines() if line and line[0] != " "]
    assert [s for s in said if s in steps] == steps
    assert call(["predict", "model", "shop.csv", "-o", "out.csv", "--keep", "colour"]) == 0
    header, first, *_ = (here / "out.csv").read_text().splitlines()
    assert header.replace('"', "").startswith("row,colour,prediction,probability") and first.startswith("0,")
    wrong = pa.table({"price": ["dear", "1.5"], "colour": ["red", "red"]})
    pacsv.write_csv(wrong, "wrong.csv")
    capsys.readouterr()
    assert call(["predict", "model", "wrong.csv", "-o", "aside.csv"]) == 0
    assert "aside.rejected.parquet; the first: row 0, column 'price': " in capsys.readouterr().out
    assert call(["evaluate", "model", "shop.csv"]) == 0
    assert "Accuracy" in capsys.readouterr().out
    (here / "model" / "report.html").unlink()
    assert call(["report", "model"]) == 0
    assert (here / "model" / "report.html").exists()


def test_json_is_one_object_on_stdout(here, capsys):
    pq.write_table(numeric(200), "t.parquet")
    for arguments in (
        ["init", "t.parquet", "--target", "label", "--json"],
        ["check", "weft.yaml", "--json", "--set", "features.y=off"],
        ["run", "weft.yaml", "-o", "model", "--json", "--set", "features.y=off", *SMALL],
        ["predict", "model", "t.parquet", "-o", "out.jsonl", "--json"],
        ["evaluate", "model", "t.parquet", "--json"],
        ["report", "model", "--json"],
    ):
        assert call(arguments) == 0, arguments
        out = capsys.readouterr().out
        assert isinstance(json.loads(out), dict) and out.count("\n") == 1, arguments


def test_check_foretells_what_the_run_builds(here, capsys):
    pq.write_table(mixed(300), "t.parquet")
    assert call(["init", "t.parquet", "--target", "bought"]) == 0
    capsys.readouterr()
    assert call(["check", "weft.yaml", "--json", *SMALL]) == 0
    told = json.loads(capsys.readouterr().out)
    assert call(["run", "weft.yaml", "-o", "model", "--json", *SMALL]) == 0
    done = json.loads(capsys.readouterr().out)
    assert told["rows"] == done["data"]["rows"] == 300
    assert {n: c["type"] for n, c in told["plan"]["columns"].items()} == {c["name"]: c["type"] for c in done["columns"]}
    # the vocabulary is learnt from all 300 rows here and from the training rows there
    assert told["parameters"] == pytest.approx(done["model"]["parameters"], rel=0.05)
    assert told["seconds_at_most"] > 0 and told["memory_bytes"] > 4 * told["parameters"]


def test_rows_of_a_small_csv_are_counted_and_commands_can_be_typed(here, capsys):
    table = mixed(150).select(["price", "bought"])
    notes = [f'it said "{number}", and more' * (1 + 3 * (number > 100)) for number in range(150)]
    pacsv.write_csv(table.append_column("note", [notes]), "my table.csv")
    assert call(["init", "my table.csv", "--target", "bought", "-o", "my weft.yaml"]) == 0
    assert "weft check 'my weft.yaml'" in capsys.readouterr().out
    assert call(["check", "my weft.yaml", "--set", "training.minutes=1"]) == 0
    told = capsys.readouterr().out
    assert "rows      150 of" in told and "weft run 'my weft.yaml'" in told


def test_the_schema_is_written_to_stdout_or_a_file(here, capsys):
    assert call(["schema"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert call(["schema", "-o", "weft.schema.json"]) == 0
    assert json.loads((here / "weft.schema.json").read_text()) == told and "features" in told["properties"]


def test_wrong_use_ends_with_2_and_says_what_to_do(here, capsys):
    pq.write_table(numeric(60), "t.parquet")
    cases = {
        ("runn",): "run",
        ("run",): "FILE",
        ("run", "nothing.yaml"): "there is no such file",
        ("init", "t.parquet", "--target", "lable"): "Did you mean 'label'?",
        ("predict", "model"): "DATA",
        ("init", "t.xyz"): "no such file",
    }
    for arguments, word in cases.items():
        code = call(list(arguments))
        told = capsys.readouterr()
        assert code in (1, 2) and word in told.err and "Traceback" not in told.err, (arguments, told.err)
    assert call(["run", "--nonsense", "--json"]) == 2
    assert "nonsense" in json.loads(capsys.readouterr().out)["error"]
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: label\ntraning: {}\nmodel: {width: wide}\n")
    assert call(["run", "weft.yaml"]) == 2
    told = capsys.readouterr().err
    assert "weft.yaml:3:1" in told and "'training'" in told and "weft.yaml:4:16" in told


def test_failures_end_with_1(here, capsys):
    assert call(["predict", "nothing", "t.parquet", "-o", "x.csv"]) == 1
    assert "no such folder" in capsys.readouterr().err
    pq.write_table(numeric(60).set_column(4, "label", pa.array(["a"] * 60)), "one.parquet")
    (here / "weft.yaml").write_text("data: {source: one.parquet}\ntarget: label\n")
    assert call(["run", "weft.yaml", "--json"]) == 1
    told = capsys.readouterr()
    assert "at least two classes" in told.err and "at least two classes" in json.loads(told.out)["error"]


def test_a_step_that_does_not_fit_into_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 58)
    assert memory_full(full.value) and memory_full(MemoryError())
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not memory_full(other.value)


def test_init_does_not_write_over_a_file(here, capsys):
    pq.write_table(numeric(60), "t.parquet")
    (here / "weft.yaml").write_text("mine")
    assert call(["init", "t.parquet"]) == 2 and (here / "weft.yaml").read_text() == "mine"
    assert call(["init", "t.parquet", "--force"]) == 0 and (here / "weft.yaml").read_text() != "mine"


@pytest.mark.parametrize("name", ["a: b", "on", "1st", "naïve 'quoted' \"double\"", "#no", "名前", "a\tb", "null"])
def test_init_quotes_any_column_name(here, name):
    from weft import config

    pq.write_table(pa.table({name: [float(i) for i in range(60)], "y": ["a", "b"] * 30}), "t.parquet")
    assert call(["init", "t.parquet", "--target", "y"]) == 0
    assert config.load("weft.yaml").features[name].type == "number"


def test_every_command_explains_itself(capsys):
    for name in app:
        if not name.startswith("-"):
            assert call([name, "--help"]) == 0
            assert f"weft {name}" in capsys.readouterr().out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_goes_on_later(here, how):
    pq.write_table(numeric(4000), "t.parquet")
    (here / "weft.yaml").write_text(
        "data: {source: t.parquet}\ntarget: label\nfeatures: {y: off}\nmodel: {copies: 1}\n"
        "training: {epochs: 2, patience: 9, batch_rows: 8}\nresults: {baselines: false}\n"
    )
    command = [sys.executable, "-m", "weft", "run", "weft.yaml", "-o", "model"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    metrics = here / "model" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size > 2_000):
        time.sleep(0.05)
    process.send_signal(how)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 128 + how and "interrupted" in told, told
    assert "--resume" in told and list((here / "model" / "checkpoints").rglob("step-*"))
    code = call(["run", "weft.yaml", "-o", "model", "--resume"])
    assert code == 0 and (here / "model" / "manifest.json").exists()


def test_a_prediction_that_is_told_to_end_says_how_to_go_on(here, capsys, monkeypatch):
    from weft.inference import parts, predict

    pq.write_table(numeric(400), "t.parquet", row_group_size=50)
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: label\nfeatures: {y: off}\n")
    assert call(["run", "weft.yaml", "-o", "model", *SMALL]) == 0
    plain, seen = predict.predict_codes, []

    def ending(*given):
        seen.append(1)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*given)

    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)
    monkeypatch.setattr(predict, "predict_codes", ending)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="143"):
            main(["predict", "model", "t.parquet", "-o", "out.csv"])
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capsys.readouterr().err
    assert "stopped after row 150; the same command goes on from there" in told and "interrupted" in told
    assert not (here / "out.csv").exists()
    assert call(["predict", "model", "t.parquet", "-o", "out.csv", "--columns", "row", "--columns", "prediction"]) == 0
    assert "going on after row" not in capsys.readouterr().err  # other columns: another job
    lines = (here / "out.csv").read_text().splitlines()
    assert lines[0] == '"row","prediction"' and [line.split(",")[0] for line in lines[1:]] == [
        str(i) for i in range(400)
    ]
    assert call(["predict", "model", "t.parquet", "-o", "out.csv", "--columns", "predicton"]) == 2
    assert "Did you mean 'prediction'?" in capsys.readouterr().err


def test_a_command_has_large_tensors_in_large_pages_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    for said in (None, "0"):
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
        if said is None:
            monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
        with pytest.raises(SystemExit):
            main(["--version"])
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == (said or "1")
