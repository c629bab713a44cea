"""An audit says what personal data a table holds and what the run makes of it, without quoting it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.results.test_audit_groups import phrases_of
from tests.tables import FAST, mixed

import weft
from weft.cli import call
from weft.data.personal import KINDS
from weft.results.audit import personal
from weft.results.pages import chinese


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("personal")
    table = mixed(120)
    notes = [f"{text} mail anna{i}@corp.example or 13800138000" for i, text in enumerate(table["review"].to_pylist())]
    table = table.set_column(3, "review", pa.array(notes)).append_column("by", pa.array(["a@corp.example"] * 120))
    settings = FAST | {"preprocess": {"redact": ["email"]}, "results": {"baselines": False, "explain": "off"}}
    weft.train(table, "bought", folder / "run", quiet=True, **settings)
    pq.write_table(table, folder / "t.parquet")
    return folder


def test_each_column_is_told_with_what_becomes_of_it(told, capsys) -> None:
    page = told / "audit.html"
    assert call(["audit", str(told / "run"), str(told / "t.parquet"), "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "'review' holds 120 values that look like e-mail addresses, which the run replaces." in said
    assert "'review' holds 120 values that look like telephone numbers, which the run reads as they are; " in said
    assert "preprocess: {redact: [phone]} would replace them." in said
    assert "'by' holds 120 values that look like e-mail addresses, a column that the run does not read." in said
    for text in (said, page.read_text(encoding="utf-8")):
        assert "corp.example" not in text and "13800138000" not in text and "e-mail addresses" in text
    assert call(["audit", str(told / "run"), str(told / "t.parquet"), "--language", "zh"]) == 0
    assert "“review”里有 120 处像是电话号码，本次运行按原样读取" in capsys.readouterr().out


def test_a_table_without_any_is_told_too(told, capsys) -> None:
    pq.write_table(mixed(30), told / "clean.parquet")
    assert call(["audit", str(told / "run"), str(told / "clean.parquet"), "--json"]) == 0
    section = json.loads(capsys.readouterr().out)["sections"]["personal"]
    assert section["found"] == {} and section["rows"] == 30
    assert section["said"][0][0] == "Nothing that looks like personal data is in {rows:,} rows."


def test_every_phrase_is_known_in_chinese() -> None:
    assert set(personal.WORDS) == set(KINDS)
    said = phrases_of(personal) | set(personal.WORDS.values()) | {personal._NOTE, personal._REPLACED, personal._UNREAD}
    assert said <= set(chinese()), said - set(chinese())
