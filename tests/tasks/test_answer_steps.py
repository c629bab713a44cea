"""Questions answered from a text, the whole way: learnt, told apart from silence, exact to the letter, resumed."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.killed import killed

import weft
from weft.cli import call
from weft.config import from_mapping
from weft.data.table import Table
from weft.data.task_plans import look_embedding, look_span
from weft.errors import DataError, SettingsError, TooManyBadRows, UsageError
from weft.runs.answers import AnswerRun

FEATURES = {"question": "text", "context": {"type": "text", "max_tokens": 40}}
FAST = {"model": {"width": 48, "layers": 2}, "training": {"epochs": 14, "learning_rate": 3e-3, "batch_rows": 32}}
TARGET = {"column": "answer", "type": "span"}


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    settings = {"features": FEATURES, "target": TARGET, "model": {"width": 16, "layers": 1},
                "training": {"privacy": {"epsilon": 8}, "epochs": 2}}  # fmt: skip
    return weft.Pipeline(settings).run(table(400), tmp_path_factory.mktemp("private") / "run", quiet=True)


def test_private_answers_promise_rows_however_many_windows_they_have(private_run):
    said = private_run.figures["privacy"]
    assert (said["rows"], said["unit"]) == (private_run.figures["data"]["split"]["train"], "rows")
    assert said["spent"] <= 8 and "train_loss" not in (private_run.path / "metrics.jsonl").read_text()
    assert [m["key"] for m in private_run.figures["models"]] == ["weft"]


def table(rows=500, seed=0, silent=0.3):
    """The answer is the word in capitals, or the Chinese one; in some contexts there is none."""
    random = np.random.default_rng(seed)
    words = ["sea", "cat", "🙂", "tree", "ｍ", "  ", "stone", "\t", "é"]
    found = []
    for _ in range(rows):
        before, after = (" ".join(random.choice(words, random.integers(2, 30))) for _ in range(2))
        answer = random.choice(["OAK", "FIR TREE", "花园", "海"]) if random.random() >= silent else None
        context = f"{before} {answer} {after}" if answer else f"{before} {after}"
        found.append(
            {"question": random.choice(["Which one?", "哪个?"]), "context": context, "answer": answer,
             "answer_start": None if answer is None else len(before) + 1}
        )  # fmt: skip
    return pa.Table.from_pylist(found)


def train(data, out, **settings):
    return weft.train(data, TARGET, out, quiet=True, **{"features": FEATURES, **FAST, **settings})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> AnswerRun:
    return train(table(), tmp_path_factory.mktemp("answers") / "run")


def test_it_learns_to_answer_and_to_be_silent(run):
    models = {m["key"]: m["metrics"] for m in run.figures["models"]}
    assert set(models) == {"weft", "trivial", "sentence", "window"}
    ours = models["weft"]
    assert ours["exact_match"]["value"] > 0.9 and ours["answer_f1_given"]["value"] > 0.9
    assert ours["no_answer"]["value"] > 0.8
    assert models["trivial"]["no_answer"]["value"] == 1 and models["trivial"]["answer_f1_given"]["value"] == 0
    assert run.figures["answers"]["threshold"] is not None
    assert "better than" in run.figures["verdict"]["lines"][0]


def test_the_folder_and_the_report(run):
    names = {p.name for p in run.path.iterdir()}
    assert names >= {"weft.yaml", "model.safetensors", "config.json", "tokenizer.json", "report.html", "manifest.json"}
    assert not names & {"work", "checkpoints"}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What it answers" in page and "<mark>" in page and run.figures["headline"] in page.replace("&#39;", "'")
    assert "letter for letter" in (run.path / "README.md").read_text(encoding="utf-8")
    json.dumps(run.figures, allow_nan=False)


def test_predictions_are_letters_of_the_context_at_their_place(run):
    rows = table(60, seed=5)
    found = run.predict(rows)
    assert found.column_names == ["prediction", "start", "probability"]
    for context, row in zip(rows["context"].to_pylist(), found.to_pylist(), strict=True):
        assert 0 <= row["probability"] <= 1
        if row["prediction"] is None:
            assert row["start"] is None
        else:
            assert context[row["start"] : row["start"] + len(row["prediction"])] == row["prediction"]
    right = [a == p for a, p in zip(rows["answer"].to_pylist(), found["prediction"].to_pylist(), strict=True)]
    assert np.mean(right) > 0.85
    one = run.answer("Which one?", "the sea cat OAK tree sea 🙂 stone")
    assert (one["prediction"], one["start"]) == ("OAK", 12)


def test_evaluate_gives_the_figures_of_the_report_on_its_own_data_and_of_other_rows(run):
    again = run.evaluate(table())
    ours = run.figures["models"][0]["metrics"]
    assert again["part"] == "test rows of the training data" and again["rows"] == run.figures["rows_judged"]
    assert again["metrics"] == ours
    with pytest.raises(DataError, match="no column 'answer'"):
        run.evaluate(table(10).drop(["answer"]))


def test_the_commands(run, tmp_path, capsys):
    data, out = tmp_path / "d.parquet", tmp_path / "o.jsonl"
    rows = table(20, seed=8).to_pylist()
    rows[3]["context"] = None
    pq.write_table(pa.Table.from_pylist(rows), data)
    assert call(["predict", str(run.path), str(data), "-o", str(out), "--keep", "answer"]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 19 and set(lines[0]) == {"row", "answer", "prediction", "start", "probability"}
    assert call(["evaluate", str(run.path), str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == 19 and found["rejected"] == 1
    assert call(["report", str(run.path)]) == 0
    assert isinstance(weft.load(run.path), AnswerRun)
    with pytest.raises(UsageError, match="question and its context"):
        run.predict_file(data, tmp_path / "x.csv", allow_missing=True)


def test_a_killed_run_ends_with_the_same_bits(run, tmp_path):
    settings = {"features": FEATURES, "target": TARGET, **FAST}
    with killed(at=30):
        weft.Pipeline(settings).run(table(), tmp_path / "r", quiet=True)
    done = weft.Pipeline(settings).run(table(), tmp_path / "r", resume=True, quiet=True)
    assert (done.path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    assert done.figures["answers"] == run.figures["answers"]


def test_from_a_run_that_was_pretrained_on_hidden_tokens(tmp_path):
    data = table(300)
    first = weft.train(
        data, {"masked_token": "context"}, tmp_path / "first", quiet=True, model={"width": 32, "layers": 1},
        training={"epochs": 1},
    )  # fmt: skip
    training = {"training": {"epochs": 2}}
    run = train(data, tmp_path / "run", model={"from": str(first.path)}, **training)
    assert (
        run.figures["model"]["vocabulary"]
        == json.loads((first.path / "report.json").read_text())["model"]["vocabulary"]
    )
    assert run.answer("Which one?", "sea OAK")["probability"] > 0
    lora = train(data, tmp_path / "lora", model={"from": str(first.path), "adapter": "lora", "rank": 2}, **training)
    assert lora.figures["model"]["trained"] < run.figures["model"]["trained"] < run.figures["model"]["parameters"]


def test_where_all_have_an_answer_all_are_answered(tmp_path):
    run = train(table(200, silent=0), tmp_path / "run", model={"backbone": "rnn", "width": 16, "layers": 1},
                training={"epochs": 1}, results={"baselines": False})  # fmt: skip
    assert run.figures["answers"]["threshold"] is None and run.figures["shown"] == ["answer_f1", "exact_match"]
    assert None not in run.predict(table(30, silent=1))["prediction"].to_pylist()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [({"features": {"question": "text"}}, SettingsError, "reads 2 text columns.*Got 'question'"),
     ({"features": {"question": "text", "context": "category"}}, SettingsError, "must be a text column.*Got category"),
     ({"preprocess": {"normalize": "nfkc"}}, SettingsError, "places in the text as it came"),
     ({"features": {"question": {"type": "text", "max_tokens": 9}, "context": "text"}}, SettingsError, "read together"),
     ({"features": {"context": "text", "question": "text"}}, TooManyBadRows, "must be in 'question'")],
)  # fmt: skip
def test_what_cannot_be_learnt_is_said_before_anything_is_spent(tmp_path, change, error, said):
    with pytest.raises(error, match=said):
        train(table(60), tmp_path / "run", **change)


def test_questions_of_one_context_are_to_stay_together(tmp_path, capsys):
    data = pa.concat_tables([table(60, silent=0)] * 2)
    said = "'context' holds the same text in several rows.*by: context"
    found = weft.train(data, TARGET, tmp_path / "a", features=FEATURES, model={"width": 16, "layers": 1},
                       training={"epochs": 1}, results={"baselines": False})  # fmt: skip
    assert re.search(said, found.figures["warnings"][0])
    assert "holds the same text" in capsys.readouterr().err
    assert "holds the same text" in (found.path / "report.html").read_text(encoding="utf-8")
    for split, rows in (({"by": "context"}, data), ({}, table(60, silent=0))):
        assert not look_span(
            from_mapping({"target": TARGET, "features": FEATURES, "data": {"split": split}}), Table.of(rows)
        ).warnings
    pairs = from_mapping({"target": {"column": "context", "type": "embedding"}, "features": {"question": "text"}})
    assert re.search(said, look_embedding(pairs, Table.of(data)).warnings[0])


def test_settings_of_spans(tmp_path):
    with pytest.raises(SettingsError, match="no column 'began'"):
        weft.train(table(60), {**TARGET, "start": "began"}, tmp_path / "a", quiet=True, features=FEATURES)
    with pytest.raises(SettingsError, match="start is for a target of type span"):
        weft.train(table(60), {"column": "answer", "start": "answer_start"}, tmp_path / "b", quiet=True)
    with pytest.raises(DataError, match="have an answer"):
        train(table(60, silent=1), tmp_path / "c")


def test_check_foretells_what_the_run_builds(run, tmp_path, capsys):
    pq.write_table(table(), tmp_path / "d.parquet")
    settings = {"data": {"source": str(tmp_path / "d.parquet")}, "target": TARGET, "features": FEATURES, **FAST}
    (tmp_path / "weft.yaml").write_text(json.dumps(settings), encoding="utf-8")
    assert call(["check", str(tmp_path / "weft.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parameters"] == pytest.approx(run.figures["model"]["parameters"], rel=0.05)
    steps = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert told["steps"] >= max(steps) > 0.5 * told["steps"] and told["recipe"]["epochs"] == 14
    assert told["seconds_at_most"] > 0 and told["memory_bytes"] > 4 * told["parameters"]


def test_check_says_what_will_be_read(tmp_path, capsys):
    pq.write_table(table(50), tmp_path / "d.parquet")
    file = tmp_path / "weft.yaml"
    data = f"data: {{source: {tmp_path / 'd.parquet'}}}\n"
    text = "target: {column: answer, type: span}\nfeatures: {question: text, context: text}\n"
    file.write_text(data + text, encoding="utf-8")
    assert call(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert "answers 'question'" in out and "where the answer begins" in out and "50, each" in out
    assert "at most about" in out and "of training on this machine" in out
    file.write_text(data + text.replace("context", "contexts"), encoding="utf-8")
    assert call(["check", str(file)]) == 2
    assert "no column 'contexts'" in capsys.readouterr().err
