"""A table without its personal data: rows, columns and types as they came, whole or not at all, stopped or not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weft.cli import call
from weft.data.personal import KINDS, masked
from weft.data.table import Table
from weft.inference import parts
from weft.inference.redact import redact_table
from weft.preprocess.letters import Redactor

TEXTS = ["mail me: ann@corp.example", None, "致电 13800138000，张伟先生", "nothing", "ＡＮＮ＠corp.example"]


def test_every_text_is_replaced_and_all_else_stays(tmp_path):
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("turn", pa.int8())]))
    said = [None if t is None else [{"role": "user", "content": t, "turn": 1}, None] for t in TEXTS]
    table = pa.table({
        "note": TEXTS, "said": pa.array(said, messages), "tags": pa.array([[t, "x"] for t in TEXTS]),
        "phone": [13800138000, 7, None, 13900139000, 1], "age": [1, 2, None, 4, 5], "price": [1.5, None, 2.0, 1e10, 0],
    })  # fmt: skip
    done = redact_table(Redactor(KINDS), table, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    safe = [None if t is None else masked(t) for t in TEXTS]
    assert safe[0] == "mail me: [EMAIL]" and safe[4] == "[EMAIL]"
    assert found["note"].to_pylist() == safe and found["tags"].to_pylist() == [[t, "x"] for t in safe]
    assert [c and c[0]["content"] for c in found["said"].to_pylist()] == safe
    assert found["phone"].to_pylist() == ["[PHONE]", "7", None, "[PHONE]", "1"]
    assert found.select(["age", "price"]).equals(table.select(["age", "price"]))
    same = ["note", "said", "tags", "age", "price"]
    assert [found.schema.field(n).type for n in same] == [table.schema.field(n).type for n in same]
    note = {"email": 2, "phone": 1, "name": 1}
    assert done["found"] == {"note": note, "said": note, "tags": note, "phone": {"phone": 2}}
    assert (done["rows"], done["written"], done["now_texts"]) == (5, 5, ["phone"])


def test_one_column_alone_may_be_looked_through(tmp_path):
    redact_table(Redactor(["email"]), {"a": TEXTS, "b": TEXTS}, tmp_path / "out.parquet", ["b"])
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["a"].to_pylist() == TEXTS and found["b"].to_pylist()[0] == "mail me: [EMAIL]"


def test_stopped_and_asked_again_it_is_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        lines = [json.dumps({"note": f"row {number} of ann{number}@corp.example"}), "{ann@corp.example"]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    key = b"0123456789abcdef"
    whole = redact_table(Redactor(["email"], key), Table.open(folder), tmp_path / "whole.csv")

    class Stopped(Redactor):
        def __call__(self, array, column, times=None):
            if "ann2" in str(array):
                raise KeyboardInterrupt
            return super().__call__(array, column, times)

    with pytest.raises(KeyboardInterrupt):
        redact_table(Stopped(["email"], key), Table.open(folder), tmp_path / "again.csv")
    assert not (tmp_path / "again.csv").exists() and (tmp_path / ".again.csv.parts" / "part-00000001").exists()
    again = redact_table(Redactor(["email"], key), Table.open(folder), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert again["found"] == whole["found"] == {"note": {"email": 3}} and again["rejected"] == 3
    aside = pq.read_table(whole["rejected_output"]).to_pylist()
    assert len(aside) == 3 and "corp.example" not in str(aside)


def test_the_command_says_what_was_replaced_and_what_is_wrong(tmp_path, capsys):
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    source.write_text("id,note\n1,ann@corp.example and 13800138000\n2,nothing\n")
    assert call(["redact", str(source), "-o", str(out), "--kinds", "email", "--key", str(tmp_path / "key")]) == 0
    assert "note: 1 email replaced" in capsys.readouterr().out
    first = out.read_text()
    assert "13800138000" in first and "corp" not in first and "[EMAIL " in first
    assert call(["redact", str(source), "-o", str(out), "--json", "--key", str(tmp_path / "key")]) == 0
    assert json.loads(capsys.readouterr().out)["found"] == {"note": {"email": 1, "phone": 1}}
    assert out.read_text().split("[EMAIL ")[1][:8] == first.split("[EMAIL ")[1][:8], "the same key, the same stand-in"
    assert call(["redact", str(source), "-o", str(out), "--kinds", "emial"]) == 2
    assert "Did you mean 'email'?" in capsys.readouterr().err
    assert call(["redact", str(source), "-o", str(source)]) == 2
    assert call(["redact", str(source), "-o", str(out), "--column", "nota"]) == 1
    assert "Did you mean 'note'?" in capsys.readouterr().err
