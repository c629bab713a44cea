"""Dialogues by the six steps: answers learnt, kept with their template, answered."""

import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.killed import killed
from tests.writers import byte_level, memorised
from transformers import AutoTokenizer

import weft
from weft.cli import call
from weft.errors import DataError, SettingsError
from weft.models.checkpoints import save_hf
from weft.models.tokenizer_files import load_words

COLOURS = ["red", "blue", "green"]


def talks(rows=400):
    random = np.random.default_rng(0)
    found = []
    for row in range(rows):
        talk = [{"role": "system", "content": "Be short."}] if row % 2 else []
        for colour in random.choice(COLOURS, random.integers(1, 3)):
            talk += [{"role": "user", "content": f"The {colour} cat?"}, {"role": "assistant", "content": str(colour)}]
        found.append(talk)
    return found


def learn(out, table, **model):
    return weft.train(
        table, {"column": "talk", "type": "dialogue"}, out, quiet=True,
        model=model or {"width": 48, "layers": 2, "dropout": 0.0},
        training={"epochs": 8, "batch_rows": 32, "precision": "float32", "learning_rate": 0.005},
    )  # fmt: skip


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("run") / "run", pa.table({"talk": [json.dumps(t) for t in talks()]}))


def test_it_answers(answering):
    assert answering.figures["models"][0]["metrics"]["perplexity"]["value"] < 1.2
    for colour in COLOURS:
        found = answering.answer([{"role": "user", "content": f"The {colour} cat?"}])
        assert (found.text, found.stopped) == (colour, "end")
    two = [{"role": "user", "content": "The red cat?"}, {"role": "assistant", "content": "red"},
           {"role": "user", "content": "The blue cat?"}]  # fmt: skip
    assert answering.answer(two).text == "blue"


def test_the_folder_gives_transformers_the_same_ids(answering):
    theirs = AutoTokenizer.from_pretrained(answering.path)
    assert (theirs.bos_token, theirs.eos_token) == ("<end>", "<end>")
    for talk in talks(6):
        assert answering.chat.ids(talk) == theirs.apply_chat_template(talk, return_dict=False)
        prompt = theirs.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=False)
        assert answering.chat.prompt(talk[:-1]) == prompt


def test_lists_of_structs_are_dialogues_too_and_bad_ones_are_set_aside(answering, tmp_path):
    rows = talks(40)
    found = answering.evaluate(pa.table({"talk": rows}))
    assert found["rows"] == 40
    as_text = answering.evaluate(pa.table({"talk": [json.dumps(t) for t in rows]}))
    assert found["metrics"] == as_text["metrics"]
    bad = answering.evaluate(pa.table({"talk": [json.dumps(rows[0]), "[1]", '[{"role": "user", "content": "a"}]']}))
    assert (bad["rows"], bad["rejected"]) == (1, 2)


def test_dialogues_that_are_too_long_have_no_figures(answering):
    cells = [json.dumps([{"role": "user", "content": "a " * 5_000}, {"role": "assistant", "content": "b"}])]
    with pytest.raises(DataError, match=r"to be judged\. Got 1 of which nothing can be asked"):
        answering.evaluate({answering.settings.target.column: cells})


def test_what_is_judged_says_what_was_cut_and_sets_aside_what_the_template_refuses(answering, tmp_path, capsys):
    folder = tmp_path / "strict"
    shutil.copytree(answering.path, folder)
    words = json.loads((folder / "tokenizer_config.json").read_text())
    words["chat_template"] = (
        "{% if messages[0].content == 'No' %}{{ raise_exception('no No') }}{% endif %}" + words["chat_template"]
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    if (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").unlink()
    talk = [{"role": "user", "content": "The red cat?"}, {"role": "assistant", "content": "red"}]
    no = [{"role": "user", "content": "No"}, *talk[1:]]
    pq.write_table(pa.table({"talk": [json.dumps(t) for t in (talk, no, talk * 100)]}), tmp_path / "t.parquet")
    assert call(["evaluate", str(folder), str(tmp_path / "t.parquet"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["rejected"]) == (2, 1)
    assert any("no No" in s for s in found["said"]) and any("became several" in s for s in found["said"])
    assert call(["evaluate", str(folder), str(tmp_path / "t.parquet")]) == 0
    assert "no No" in capsys.readouterr().out
    with pytest.raises(DataError, match="no No"):
        weft.load(folder).evaluate(pa.table({"talk": [json.dumps(no)]}))


def test_a_conversation_on_the_command_line(answering, capsys, monkeypatch):
    run = str(answering.path)
    assert call(["generate", run, "The green cat?", "--chat", "--system", "Be short.", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.strip() == "green"
    monkeypatch.setattr("sys.stdin", io.StringIO("The red cat?\n\nThe blue cat?\n"))
    assert call(["generate", run, "--chat", "--temperature", "0"]) == 0
    assert capsys.readouterr().out == "red\nblue\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("The red cat?\n"))
    assert call(["generate", run, "--chat", "--temperature", "0", "--json"]) == 0
    talk = json.loads(capsys.readouterr().out)["messages"]
    assert [m["role"] for m in talk] == ["user", "assistant"] and talk[1]["content"] == "red"
    assert call(["generate", run, "--system", "x", "a"]) == 2 and call(["generate", run, "a", "--chat", "--cut"]) == 2


def test_a_conversation_forgets_its_oldest_turns_and_says_so(answering, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("The red cat?\n" * 40))
    assert call(["generate", str(answering.path), "--chat", "--temperature", "0", "--tokens", "8",
                 "--system", "Be short."]) == 0  # fmt: skip
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 40 and "no longer fit" in err
    assert call(["generate", str(answering.path), "x" * 3_000, "--chat"]) == 1
    assert "a turn must have at most 256 tokens" in capsys.readouterr().err


def test_a_checkpoint_with_a_template_keeps_it_and_learns_its_end(tmp_path, capsys):
    template = (
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<s>' }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer = byte_level()
    save_hf(memorised(["The red cat?"], tokenizer), tmp_path / "base", tokenizer)
    assert call(["generate", str(tmp_path / "base"), "Hi", "--chat"]) == 2
    assert "must have a chat template" in capsys.readouterr().err
    (tmp_path / "base" / "chat_template.jinja").write_text(template)
    run = learn(tmp_path / "run", pa.table({"talk": talks(200)}), **{"from": str(tmp_path / "base")})
    assert load_words(run.path)["chat_template"] == template and run.figures["model"]["family"] == "llama"
    theirs = AutoTokenizer.from_pretrained(run.path)
    assert theirs.apply_chat_template(talks(2)[1], return_dict=False) == run.chat.ids(talks(2)[1])
    assert json.loads((run.path / "config.json").read_text())["eos_token_id"] == [1, 0]  # the text's end, the turn's
    assert run.answer([{"role": "user", "content": "The blue cat?"}]).stopped == "end"
    assert call(["import", str(run.path), "-o", str(tmp_path / "again")]) == 0
    assert load_words(tmp_path / "again")["chat_template"] == template


def test_a_model_that_writes_from_sources_holds_no_dialogue(tmp_path):
    words = [f"a{i % 7} b{i % 5} c" for i in range(300)]
    base = weft.train(
        pa.table({"s": words, "t": words}), {"column": "t", "type": "text"}, tmp_path / "base", quiet=True,
        features={"s": "text"}, model={"width": 16, "layers": 1}, training={"epochs": 1}, results={"baselines": False},
    )  # fmt: skip
    with pytest.raises(SettingsError, match="needs a model that writes on"):
        learn(tmp_path / "run", pa.table({"talk": talks(50)}), **{"from": str(base.path)})


@pytest.mark.parametrize("kind", ["dialogue", "text"])
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path, kind):
    if kind == "dialogue":
        table, more = pa.table({"talk": [json.dumps(t) for t in talks(200)]}), {}
        target = {"column": "talk", "type": kind}
    else:
        words = [f"a{i % 7} b{i % 5} c" for i in range(200)]
        table, more = pa.table({"s": words, "t": words}), {"features": {"s": "text"}}
        target = {"column": "t", "type": kind}
    pipe = weft.Pipeline({"target": target, "model": {"width": 24, "layers": 1, "dropout": 0.2}, **more,
                          "training": {"epochs": 2, "batch_rows": 16}})  # fmt: skip
    whole = pipe.run(table, tmp_path / "whole", quiet=True)
    with killed(at=7):
        pipe.run(table, tmp_path / "again", quiet=True)
    if kind == "dialogue":  # it is another day now than when the run began
        (tmp_path / "again" / "work" / "today.txt").write_text("2020-02-02T02:02:02")
    again = pipe.run(table, tmp_path / "again", resume=True, quiet=True)
    assert (whole.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()
    assert kind == "text" or again.figures["today"] == "2020-02-02T02:02:02"
    for key in ("headline", "samples", "curves", "rows_judged"):
        assert whole.figures[key] == again.figures[key], key
