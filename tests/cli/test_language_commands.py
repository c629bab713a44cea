"""The commands with texts: from a plain text file to a model that writes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tables import numeric
from tests.texts import novel, sentences
from tokenizers import Tokenizer

from weft.cli import call

SMALL = ["--set", "model.width=24", "--set", "model.layers=1", "--set", "features.text.type=text",
         "--set", "features.text.vocabulary=320", "--set", "features.text.max_tokens=24"]  # fmt: skip
SHORT = ["--set", "training.minutes=0.03"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_text_file_to_a_model_that_writes(here, capsys):
    (here / "novel.txt").write_text(novel(60_000))
    assert call(["init", "novel.txt"]) == 0
    assert "{next_token: text}" in (here / "weft.yaml").read_text()
    assert call(["check", "weft.yaml", *SMALL]) == 0
    told = capsys.readouterr().out
    assert "is valid" in told and "tokens a second" in told and "next:     weft run" in told
    assert call(["run", "weft.yaml", "-o", "model", *SMALL, *SHORT]) == 0
    told = capsys.readouterr()
    assert "weft generate model" in told.out and "weft predict" not in told.out
    assert "tokens a second" in told.err and "at most 0.03 minutes" in told.err
    said = [line.split()[0] for line in told.err.splitlines() if line and line[0] != " "]
    assert [s for s in said if s != "done"] == ["data", "preprocess", "features", "model", "inference", "results"]
    assert call(["generate", "model", "the cat", "--tokens", "5"]) == 0
    assert call(["generate", "model", "the cat", "--next", "3"]) == 0
    assert "all others" in capsys.readouterr().out
    assert call(["evaluate", "model", "novel.txt"]) == 0
    assert "Bits per byte" in capsys.readouterr().out
    assert call(["report", "model"]) == 0
    assert call(["report", "model", "--language", "zh"]) == 2  # its page is in English only
    assert "bits for a byte" in capsys.readouterr().out
    assert call(["predict", "model", "novel.txt", "-o", "out.csv"]) == 2
    told = capsys.readouterr().err
    assert "must be a run that predicts a column" in told and "weft generate model" in told
    assert not (here / "out.csv").exists()


def test_json_is_one_object_on_stdout(here, capsys):
    (here / "novel.txt").write_text(novel(60_000))
    for arguments in (
        ["init", "novel.txt", "--json"],
        ["check", "weft.yaml", "--json", *SMALL],
        ["run", "weft.yaml", "-o", "model", "--json", *SMALL, *SHORT],
        ["evaluate", "model", "novel.txt", "--json"],
        ["report", "model", "--json"],
    ):
        assert call(arguments) == 0, arguments
        out = capsys.readouterr().out
        assert isinstance(json.loads(out), dict) and out.count("\n") == 1, arguments


@pytest.mark.parametrize("task", ["next_token", "masked_token"])
@pytest.mark.parametrize("backbone", ["transformer", "rnn"])
def test_check_foretells_what_the_run_builds(here, capsys, task, backbone):
    pq.write_table(pa.table({"text": sentences(1_500)}), "t.parquet")
    (here / "weft.yaml").write_text(
        f"data: {{source: t.parquet}}\ntarget: {{{task}: text}}\n"
        f"model: {{backbone: {backbone}, width: 24, layers: 1}}\n"
        "features: {text: {type: text, vocabulary: 320, max_tokens: 24}}\ntraining: {epochs: 2, batch_rows: 64}\n"
    )
    assert call(["check", "weft.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert call(["run", "weft.yaml", "-o", "model", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert told["rows"] == done["data"]["rows"] == 1_500 and told["rows_exact"]
    assert told["parameters"] == done["model"]["parameters"]
    steps = max(json.loads(line)["step"] for line in (here / "model" / "metrics.jsonl").read_text().splitlines())
    assert told["steps"] == pytest.approx(steps, rel=0.03)
    tokenizer = Tokenizer.from_file("model/tokenizer.json")
    assert told["tokens"] == pytest.approx(sum(len(tokenizer.encode(s)) for s in sentences(1_500)), rel=0.03)
    assert told["seconds_at_most"] > 0 and told["memory_bytes"] > 4 * told["parameters"]


def test_check_says_what_the_run_would(here, capsys):
    pq.write_table(pa.table({"text": [1, 2, 3]}), "t.parquet")
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: {next_token: text}\n")
    assert call(["check", "weft.yaml"]) == 2
    assert "must hold texts" in capsys.readouterr().err


def test_a_target_is_set_on_the_command_line(here, capsys):
    pq.write_table(pa.table({"text": sentences(300)}), "t.parquet")
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: {next_token: other}\n")
    assert call(["check", "weft.yaml", "--set", "target.next_token=text"]) == 0
    assert "every next token is predicted" in capsys.readouterr().out
    assert call(["check", "weft.yaml", "--set", "target.masked_token=text"]) == 2
    assert "one thing is learnt" in capsys.readouterr().err
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: text\n")
    assert call(["check", "weft.yaml", "--set", "target.next_token=text"]) == 2
    assert "one thing is learnt" in capsys.readouterr().err


def test_init_of_a_table_of_texts_still_looks_for_a_target(here, capsys):
    pq.write_table(numeric(60), "t.parquet")
    assert call(["init", "t.parquet"]) == 0
    assert "next_token" not in (here / "weft.yaml").read_text()


def test_a_run_that_reads_says_to_embed(here, capsys):
    pq.write_table(pa.table({"text": sentences(600)}), "t.parquet")
    (here / "weft.yaml").write_text("data: {source: t.parquet}\ntarget: {masked_token: text}\n")
    assert call(["run", "weft.yaml", "-o", "model", *SMALL, *SHORT]) == 0
    assert "weft embed model" in capsys.readouterr().out
    assert call(["predict", "model", "t.parquet", "-o", "out.csv"]) == 2
    assert "weft embed model" in capsys.readouterr().err
    assert call(["embed", "model", "t.parquet", "-o", "v.parquet"]) == 0
