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
