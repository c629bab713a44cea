"""``weft generate`` as a newcomer types it."""

import json
import re

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from tests.writers import TEXTS, byte_level, memorised, original

from weft.cli import call
from weft.models.checkpoints import save_hf

CAT, FLOWERS = TEXTS[0], TEXTS[2]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A checkpoint that knows TEXTS by heart."""
    folder = tmp_path_factory.mktemp("runs") / "learnt"
    tokenizer = byte_level(begin=True)
    save_hf(memorised(TEXTS, tokenizer), folder, tokenizer)
    return str(folder)


def told(capsys, *arguments):
    """Exit code, stdout, stderr."""
    code = call(["generate", *arguments])
    return code, *capsys.readouterr()


def test_the_text_goes_to_stdout_and_the_rest_to_stderr(learnt, capsys):
    for start, text in (("The cat", CAT), (FLOWERS[:4], FLOWERS)):
        code, out, err = told(capsys, learnt, start, "--temperature", "0")
        assert code == 0 and out == text[len(start) :] + "\n"
        assert err.startswith(start) and "the model ended it" in err and "next:" in err.splitlines()[-1]


def test_it_is_written_piece_by_piece(learnt, capsys, monkeypatch):
    pieces = []
    monkeypatch.setattr("builtins.print", lambda *a, **k: pieces.append((a, k)))
    assert call(["generate", learnt, "The cat", "--temperature", "0"]) == 0
    streamed = [a[0] for a, k in pieces if a and k.get("flush")]
    assert len(streamed) > 5 and "".join(streamed) == CAT[7:]


def test_settings_reach_the_text(learnt, capsys):
    for more, rest, why in (
        (["--temperature", "0", "--tokens", "2"], " sat on", "--tokens"),
        (["--temperature", "0", "--stop", "zebra", "--stop", " on"], " sat", "stop string"),
        (["--beams", "3"], CAT[7:], "ended"),
        (["--top-k", "1"], CAT[7:], "ended"),
        (["--top-p", "0.01"], CAT[7:], "ended"),
        (["--min-p", "1"], CAT[7:], "ended"),
    ):
        code, out, err = told(capsys, learnt, "The cat", *more)
        assert (code, out.rstrip("\n")) == (0, rest) and why in err, more
    penalised = told(capsys, learnt, "The cat", "--temperature", "0", "--repetition-penalty", "50")[1]
    assert penalised.rstrip("\n") != CAT[7:]
    hot = ["--temperature", "9", "--tokens", "12"]
    first = told(capsys, learnt, "The", *hot, "--seed", "1")[1]
    assert told(capsys, learnt, "The", *hot, "--seed", "1")[1] == first
    assert told(capsys, learnt, "The", *hot, "--seed", "2")[1] != first


def test_several_samples(learnt, capsys):
    code, out, _ = told(capsys, learnt, "The", "--samples", "3", "--temperature", "9", "--tokens", "8")
    assert code == 0 and len(re.findall(r"^--- \d: 8 tokens", out, re.M)) == 3
    found = json.loads(told(capsys, learnt, "The", "--samples", "3", "--temperature", "9", "--json")[1])
    assert len({t["text"] for t in found["texts"]}) == 3


def test_the_next_token(learnt, capsys):
    code, out, err = told(capsys, learnt, FLOWERS[:4], "--next", "6")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 7 and not err
    assert lines[-1].startswith("all others")
    assert lines[0].startswith("\\xe5") and "█" * 30 in lines[0]  # the first byte of 天
    shares = [float(re.search(r"([\d.]+)%", line)[1]) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=0.01) and shares[:6] == sorted(shares[:6], reverse=True)
    ends = {cell_len(line[: line.index("%")]) for line in lines}
    assert len(ends) == 1  # aligned, wide letters or not
    assert told(capsys, learnt, "The cat", "--next", "1")[1].startswith("␣sat")
    found = json.loads(told(capsys, learnt, "The cat", "--next", "4", "--json")[1])
    assert found["next"][0]["text"] == " sat" and len(found["next"]) == 4
    assert sum(t["probability"] for t in found["next"]) + found["rest"] == pytest.approx(1)
    warm = json.loads(told(capsys, learnt, "The cat", "--next", "4", "--temperature", "5", "--json")[1])
    assert warm["next"][0]["probability"] < found["next"][0]["probability"]


def test_json_is_one_object(learnt, capsys):
    code, out, _ = told(capsys, learnt, "The cat", "--temperature", "0", "--json")
    found = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert found["texts"][0]["text"] == CAT[7:] and found["texts"][0]["stopped"] == "end"
    assert len(found["texts"][0]["ids"]) == len(found["texts"][0]["log_probabilities"])


def test_a_table_of_prompts(learnt, capsys, tmp_path):
    pacsv.write_csv(pa.table({"n": [1, 2, 3], "prompt": ["She sells", "The cat", FLOWERS[:4]]}), tmp_path / "in.csv")
    given = ["--data", str(tmp_path / "in.csv"), "--column", "prompt", "--temperature", "0"]
    code, out, _ = told(capsys, learnt, *given, "-o", str(tmp_path / "out.parquet"))
    assert code == 0 and "3 rows = 3 written" in out and "next:" in out.splitlines()[-1]
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found == {"row": [0, 1, 2], "text": [TEXTS[1][9:], CAT[7:], FLOWERS[4:]]}
    code, out, _ = told(capsys, learnt, *given, "-o", str(tmp_path / "out.csv"), "--json")
    assert code == 0 and json.loads(out)["written"] == 3
    assert (tmp_path / "out.csv").read_text().startswith('"row","text"\n0,')


def test_a_long_prompt_is_refused_or_its_beginning_left_out(learnt, capsys):
    code, _, err = told(capsys, learnt, "cat " * 200)
    assert code == 1 and "at most 128 tokens" in err and "--cut" in err
    code, _, err = told(capsys, learnt, "cat " * 200, "--cut", "--tokens", "5")
    assert code == 0 and "of the prompt were left out" in err


def test_wrong_use_says_what_to_do(learnt, capsys, tmp_path):
    original("gpt2").save_pretrained(tmp_path / "bare")
    table = ["--data", "t.csv", "--column", "prompt"]
    for arguments, code, words in [
        ([learnt], 2, "there must be a PROMPT"),
        ([learnt, "a", *table, "-o", "o.csv"], 2, "not both"),
        ([learnt, *table], 2, "--data needs"),
        ([learnt, *table, "-o", "o.csv", "--samples", "2"], 2, "--data needs"),
        ([learnt, "a", "-o", "o.csv"], 2, "for a table"),
        ([learnt, "a", "--next", "5", "--samples", "2"], 2, "--next shows one distribution"),
        ([learnt, "a", "--next", "0"], 2, "above 0"),
        ([learnt, "a", "--temperature", "-1"], 2, "temperature must be 0"),
        ([learnt, "a", "--top-p", "1.5"], 2, "top_p must be above 0 and at most 1"),
        ([learnt, "a", "--beams", "2", "--top-k", "3"], 2, "nothing is drawn by top_k"),
        ([learnt, "a", "--samples", "2", "--temperature", "0"], 2, "need a temperature"),
        ([str(tmp_path / "bare"), "a"], 1, "must hold tokenizer.json"),
        ([str(tmp_path / "nothing"), "a"], 1, "no such folder"),
        ([learnt, *table, "-o", str(tmp_path / "o.csv")], 1, "no such file"),
    ]:
        found, _, err = told(capsys, *arguments)
        assert (found, words in err, "Traceback" in err) == (code, True, False), (arguments, err)


def test_a_constraint_holds_in_every_way(learnt, capsys, tmp_path):
    schema = {
        "type": "object",
        "properties": {"n": {"enum": ["花", 1]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    (tmp_path / "s.json").write_text(json.dumps(schema))
    for more, pattern in (
        (["--choices", "春天, 花"], "春天|花"),
        (["--choice", " sat", "--choice", " a,b"], " sat| a,b"),
        (["--choices", "x", "--choice", " y"], "x| y"),
        (["--regex", r"\d{2}花"], r"\d{2}花"),
        (["--json-schema", str(tmp_path / "s.json")], r'\{ ?"n" ?: ?("花"|1) ?\}'),
    ):
        for way in (["--temperature", "0"], ["--temperature", "9"], ["--beams", "2"]):
            code, out, err = told(capsys, learnt, "The cat", *more, *way)
            assert code == 0 and re.fullmatch(pattern, out[:-1]) and "the constraint allows nothing more" in err, more
        found = json.loads(told(capsys, learnt, "The", *more, "--samples", "2", "--json")[1])["texts"]
        assert all(re.fullmatch(pattern, t["text"]) and t["valid"] and t["stopped"] == "complete" for t in found)
    code, out, err = told(capsys, learnt, "The cat", "--json-schema", str(tmp_path / "s.json"), "--tokens", "3")
    assert code == 0 and "broke off before it fulfilled" in err and "cut off at --tokens" in err
    cut = json.loads(told(capsys, learnt, "The", "--regex", "a{9}", "--tokens", "3", "--json")[1])["texts"][0]
    assert (cut["text"], cut["valid"], cut["stopped"]) == ("aaa", False, "length")
    only = json.loads(told(capsys, learnt, "The cat", "--next", "9", "--regex", " on| s[a]t", "--json")[1])["next"]
    assert {t["text"] for t in only if t["probability"]} <= {" ", " s", " sat", " on"} and only[0]["text"] == " sat"


def test_a_constrained_table_says_which_texts_are_whole(learnt, capsys, tmp_path):
    pacsv.write_csv(pa.table({"prompt": ["She sells", "The cat"]}), tmp_path / "in.csv")
    given = ["--data", str(tmp_path / "in.csv"), "--column", "prompt", "--regex", "a{3}|b{40}", "--tokens", "9"]
    code, out, _ = told(capsys, learnt, *given, "--temperature", "50", "-o", str(tmp_path / "out.parquet"))
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert code == 0 and [r["valid"] for r in rows] == [r["text"] == "aaa" for r in rows]
    broken = sum(not r["valid"] for r in rows)
    assert (f"before they fulfilled the constraint: {broken}" in out) == bool(broken)


def test_how_probable_the_choices_are(learnt, capsys):
    given = [learnt, "The cat", "--choice", " sat on", "--choice", " on the", "--choice", "花"]
    code, out, err = told(capsys, *given, "--next", "2")
    lines = out.splitlines()
    assert code == 0 and not err and lines[0].startswith("␣sat␣on") and "█" * 30 in lines[0]
    assert len(lines) == 4 and lines[2].startswith("all others") and "would write one of them" in lines[3]
    found = json.loads(told(capsys, *given, "--next", "2", "--json")[1])
    assert found["choices"][0]["text"] == " sat on" and 0.9 < found["any"] <= 1
    assert sum(c["probability"] for c in found["choices"]) + found["rest"] == pytest.approx(1)


def test_a_constraint_that_cannot_be_says_so(learnt, capsys, tmp_path):
    (tmp_path / "s.json").write_text('{"not": {}}')
    for more, code, words in [
        (["--choices", "a,,b"], 2, "none of them empty"),
        (["--choices", ""], 2, "at least one text"),
        (["--regex", "("], 2, "unclosed group"),
        (["--json-schema", str(tmp_path / "s.json")], 2, "s.json: 'not' is a keyword"),
        (["--json-schema", str(tmp_path / "none.json")], 1, "must be a JSON file"),
        (["--choices", "a", "--regex", "a"], 2, "one constraint"),
        (["--choices", "a", "--stop", "b"], 2, "a stop string would break it"),
        (["--choices", "a,b", "--next", "2", "--top-k", "1"], 2, "without settings of drawing"),
        (["--choices", "a,b", "--next", "0"], 2, "above 0"),
        (["--choices", "y" * 200 + ",b", "--next", "1"], 1, "must fit the model's 128 tokens"),
        (["--stop", "a\udcff"], 2, "a stop string must be letters"),
    ]:
        found, _, err = told(capsys, learnt, "The", *more)
        assert (found, words in err, "Traceback" in err) == (code, True, False), (more, err)
    assert "surrogate" in told(capsys, learnt, "a\udcff")[2]


def test_a_terminal_does_not_obey_what_a_model_writes(learnt, capsys, monkeypatch):
    for terminal, shown in ((True, "\\x1b[2J\n"), (False, "\x1b[2J\n")):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        code, out, err = told(capsys, learnt, "\x1b[2JThe", "--choice", "\x1b[2J")
        assert code == 0 and out == shown and "\x1b" not in err
