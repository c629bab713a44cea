"""A planted value is nowhere in what a run leaves, and prediction replaces what training replaced."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.tables import FAST

import weft
from weft.cli import call
from weft.errors import SettingsError
from weft.features.columns import Columns

SECRETS = ["hildegard", "13800138", "张伟", "corp.example", "4111 1111"]


def table(rows=160):
    """Personal data in every kind of column, and in cells that cannot be read."""
    good = np.random.default_rng(0).random(rows) < 0.5
    number = [f"{i % 7}" for i in range(rows)]
    number[3] = "see hildegard@corp.example or " + "x" * 40 + " 13800138000"
    return pa.table(
        {
            "note": [
                f"{'lovely' if g else 'awful'}, mail hildegard{i}@corp.example, 我叫张伟，电话138001380{i % 90 + 10}"
                for i, g in enumerate(good)
            ],
            "owner": [f"hildegard{i % 3}@corp.example" for i in range(rows)],
            "card": ["4111 1111 1111 1111"] * rows,
            "number": number,
            "bought": [f"{'yes' if g else 'no'} hildegard@corp.example" for g in good],
        }
    )


def leaks(folder):
    """Files of a folder that hold a planted value, in their bytes or decoded."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False).encode()
            if content[:2] == b"\x1f\x8b":
                content += gzip.decompress(content)
            words = [s for s in SECRETS if s.encode() in content or json.dumps(s)[1:-1].encode() in content]
            found += [(path.name, words)] if words else []
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("redacted") / "run"
    settings = FAST | {
        "preprocess": {"redact": "all"}, "data": {"max_rejected": 0.1},
        "results": {"baselines": False, "explain": "off"},
    }  # fmt: skip
    return weft.train(table(), "bought", out, quiet=True, **settings)


def test_no_planted_value_is_in_a_run_of_rows(run, tmp_path, capsys) -> None:
    assert leaks(run.path) == []
    assert pq.read_table(run.path / "rejected.parquet")["text"].to_pylist() != []
    found = {(column, kind): n for column, kind, n in run.figures["redact"]["found"]}
    assert found["note", "email"] == found["note", "phone"] == found["note", "name"] == 160
    data, out = tmp_path / "t.parquet", tmp_path / "p.parquet"
    pq.write_table(table(), data)
    assert call(["predict", str(run.path), str(data), "-o", str(out)]) == 0
    assert leaks(tmp_path) == [("t.parquet", SECRETS)]
    said = capsys.readouterr()
    assert not [s for s in SECRETS if s in said.out + said.err]


def test_a_loaded_run_replaces_as_the_training_did(run) -> None:
    rows = table(20).set_column(3, "number", pa.array(["1"] * 20))
    other = pa.table(
        {n: [str(c).replace("hildegard", "other.one") for c in rows[n].to_pylist()] for n in rows.column_names}
    )
    one, two = (weft.load(run.path).predict(rows), weft.load(run.path).predict(other))
    assert one.equals(two)  # whoever it is, the model is not told
    assert Columns.load(run.path).cleaner.letters.to_dict()["redact"]["kinds"][0] == "email"


def test_a_log_and_what_is_left_after_a_stop_hold_nothing(tmp_path, capsys) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    (tmp_path / "w.yaml").write_text(
        f"data: {{source: {tmp_path / 't.parquet'}, max_rejected: 0}}\ntarget: bought\npreprocess: {{redact: all}}\n"
    )
    assert call(["run", str(tmp_path / "w.yaml"), "-o", str(tmp_path / "run")]) == 1  # the bad row stops it
    said = capsys.readouterr()
    assert "must be a number" in said.err and not [s for s in SECRETS if s in said.out + said.err]
    assert leaks(tmp_path / "run") == []


@pytest.mark.parametrize("target", [{"next_token": "text"}, {"masked_token": "text"}])
def test_classes_without_training_do_not_depend_on_who_it_is(tmp_path, target) -> None:
    settings = {"model": {"width": 24, "layers": 1}, "training": {"epochs": 1}, "preprocess": {"redact": ["email"]}}
    texts = pa.table({"text": table(120)["note"]})
    weft.train(texts, target, tmp_path / "run", quiet=True, **settings)
    written = []
    for who in ("hildegard", "o.ther"):
        rows = pa.table({"text": [f"Write to {who}@corp.example, it is lovely"]})
        pq.write_table(rows, tmp_path / f"{who}.parquet")
        out = tmp_path / f"{who}.out.parquet"
        asked = ["predict", str(tmp_path / "run"), str(tmp_path / f"{who}.parquet"), "--labels", "good,bad"]
        assert call([*asked, "--column", "text", "-o", str(out)]) == 0
        written.append(pq.read_table(out))
    assert written[0].equals(written[1])


@pytest.mark.parametrize("target", [{"next_token": "text"}, {"column": "reply", "type": "text"}])
def test_no_planted_value_is_in_a_run_of_texts(tmp_path, target) -> None:
    rows = table(120)
    data = pa.table({"text": rows["note"], "reply": rows["owner"]})
    settings = {"model": {"width": 24, "layers": 1}, "training": {"epochs": 1}, "preprocess": {"redact": "all"}}
    done = weft.train(data, target, tmp_path / "run", quiet=True, **settings)
    assert leaks(tmp_path / "run") == []
    assert done.cleaned("I am at hildegard@corp.example") == "I am at [EMAIL]"


def test_stand_ins_of_a_run_need_their_key(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = pa.table(
        {"user": [f"hildegard{i % 9}@corp.example" for i in range(90)], "item": [f"i{i % 5}" for i in range(90)]}
    )
    settings = {
        "model": {"width": 16, "layers": 1}, "training": {"epochs": 1},
        "preprocess": {"redact": {"kinds": ["email"], "key": "secret.key"}},
    }  # fmt: skip
    target = {"column": "item", "type": "ranking", "user": "user"}
    run = weft.train(rows, target, tmp_path / "run", quiet=True, **settings)
    assert leaks(run.path) == [] and run.figures["ranking"]["users"] == 9
    assert len(run.recommend("hildegard3@corp.example", k=2)) == 2  # known by the stand-in
    (tmp_path / "secret.key").unlink()
    with pytest.raises(SettingsError, match="Put it back"):
        weft.load(run.path).predict(rows)


def test_check_says_what_is_in_each_column(tmp_path, capsys) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    (tmp_path / "w.yaml").write_text(
        f"data: {{source: {tmp_path / 't.parquet'}, max_rejected: 0.1}}\ntarget: bought\nfeatures: {{number: number}}\n"
        "preprocess: {redact: [email]}\n"
    )
    assert call(["check", str(tmp_path / "w.yaml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "personal note: 160 email, 160 name, 160 phone; name, phone NOT replaced" in said
    assert "personal owner: 160 email; replaced" in said and "personal card: 160 bank_card; left out" in said


@pytest.mark.parametrize("target", ["bought", "{column: owner, type: ranking, user: note}", "{next_token: note}"])
def test_check_makes_no_key(tmp_path, capsys, target) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    key = tmp_path / "secret.key"
    settings = (
        f"data: {{source: {tmp_path / 't.parquet'}, max_rejected: 0.1}}\ntarget: {target}\n"
        "preprocess: {redact: {kinds: [email], key: KEY}}\n"
    )
    (tmp_path / "w.yaml").write_text(settings.replace("KEY", str(key)))
    assert call(["check", str(tmp_path / "w.yaml")]) == 0, capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.parquet", "w.yaml"]
    (tmp_path / "w.yaml").write_text(settings.replace("KEY", str(tmp_path / "nowhere" / "key")))
    assert call(["check", str(tmp_path / "w.yaml")]) == 2
    assert "name one that can be made" in " ".join(capsys.readouterr().err.split())
    key.write_text("short")
    (tmp_path / "w.yaml").write_text(settings.replace("KEY", str(key)))
    assert call(["check", str(tmp_path / "w.yaml")]) == 2  # a key that is there is the run's
