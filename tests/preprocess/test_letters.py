"""Personal data is replaced while rows are cleaned, the same at training and at prediction."""

import json

import numpy as np
import pyarrow as pa
import pytest
from tests.personal_zh import WIDE

from weft.config import from_mapping
from weft.data.table import RawBatch, Rejected, Table
from weft.errors import SettingsError
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.letters import Letters, Redactor
from weft.preprocess.personal import survey

ALL = from_mapping({"target": "y", "preprocess": {"redact": "all"}}).preprocess.redact.kinds


def cleaned(letters, **columns):
    """Columns of cells, each read as the type in its name: text_a, category, ..."""
    cleaner = Cleaner({name: ColumnPlan(name.partition("_")[0]) for name in columns}, letters)
    batch = pa.RecordBatch.from_arrays([pa.array(cells) for cells in columns.values()], list(columns))
    return cleaner(RawBatch(np.arange(batch.num_rows), batch))


def test_every_type_that_holds_letters_is_redacted() -> None:
    said = [{"role": "user", "content": "I am at a@b.example"}, {"role": "assistant", "content": "call 13800138000"}]
    clean = cleaned(
        Letters("nfkc", Redactor(ALL)),
        text=["mail a@b.example", None, "１３８００１３８０００"], document=["a@b.example\n x", "", "y"],
        verbatim=["A a@b.example", "b", None], category=["a@b.example", "a@b.example", "red"],
        labels=[["a@b.example", "x"], [], ["13800138000"]], dialogue=[json.dumps(said), None, None],
        number=["1", "2", "3"],
    )  # fmt: skip
    assert not clean.rejected
    found = {name: array.to_pylist() for name, array in clean.columns.items()}
    assert found["text"] == ["mail [EMAIL]", None, "[PHONE]"]
    assert found["document"] == ["[EMAIL]\n x", None, "y"] and found["verbatim"] == ["A [EMAIL]", "b", None]
    assert found["category"] == ["[EMAIL]", "[EMAIL]", "red"] and found["labels"] == [["[EMAIL]", "x"], [], ["[PHONE]"]]
    assert [m["content"] for m in json.loads(found["dialogue"][0])] == ["I am at [EMAIL]", "call [PHONE]"]
    assert found["number"] == [1.0, 2.0, 3.0]


def test_values_are_counted_by_column_and_kind() -> None:
    letters = Letters("off", Redactor(["email", "phone"]))
    cleaned(letters, text=["a@b.example and c@d.example", "13800138000"], category=["a@b.example", "a@b.example"])
    assert letters.redact is not None
    assert letters.redact.found == {("text", "email"): 2, ("text", "phone"): 1, ("category", "email"): 2}


def test_only_the_kinds_that_were_asked_for() -> None:
    clean = cleaned(Letters("nfkc", Redactor(["phone"])), text=["a@b.example 13800138000"])
    assert clean.columns["text"].to_pylist() == ["a@b.example [PHONE]"]


@pytest.mark.parametrize("normalize", ["nfkc", "nfc", "off"])
def test_full_width_letters_hide_nothing_in_any_form(normalize: str) -> None:
    clean = cleaned(Letters(normalize, Redactor(ALL)), text=["卡" + "4111111111111111，bob@b.example".translate(WIDE)])
    said = clean.columns["text"][0].as_py()
    assert said.replace("，", ",") == "卡[BANK_CARD],[EMAIL]"


def test_what_is_set_aside_is_redacted_too() -> None:
    letters = Letters("nfkc", Redactor(ALL))
    clean = cleaned(letters, number=["x" * 50 + " mail bob@b.example now", "1"], labels=["bob@b.example", '["x"]'])
    cleaner = Cleaner({"text": ColumnPlan("text")}, letters)
    line = Rejected(3, "", "must have 2 fields, is 'bob@b.example,,,'", "bob@b.example,,,")
    again = cleaner(RawBatch(np.zeros(0, np.int64), pa.record_batch([pa.array([], pa.string())], ["text"]), [line]))
    for bad in (*clean.rejected, *again.rejected):
        assert "bob" not in bad.reason + bad.text and "EMAIL" in bad.text, bad


class TestStandIns:
    def test_the_same_value_has_the_same_one_however_it_is_written(self) -> None:
        redact = Redactor(ALL, b"k" * 16)
        one, other = redact.text("Bob@B.example"), redact.text("x bob@b.example")
        assert one.startswith("[EMAIL ") and other == f"x {one}"
        assert redact.text("138-0013-8000") == redact.text("+86 13800138000") == redact.text("１３８００１３８０００")
        assert redact.text("Bob@B.example") != redact.text("c@b.example")
        assert Redactor(ALL, b"l" * 16).text("bob@b.example") != one  # another key

    def test_a_key_is_made_kept_and_checked(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        settings = from_mapping({"target": "y", "preprocess": {"redact": {"kinds": ["email"], "key": "secret.key"}}})
        redact = Redactor.of(settings.preprocess.redact)
        file = tmp_path / "secret.key"
        assert redact is not None and file.stat().st_mode & 0o077 == 0
        stored = redact.to_dict()
        assert file.read_text().strip() not in json.dumps(stored)
        assert Redactor.from_dict(stored).text("a@b.example") == redact.text("a@b.example")
        key = file.read_text()
        file.write_text("another key of 16 bytes")
        with pytest.raises(SettingsError, match="the key that the run learnt with"):
            Redactor.from_dict(stored)
        file.unlink()
        with pytest.raises(SettingsError, match="Put it back"):
            Redactor.from_dict(stored)
        file.write_text(key[:8])
        with pytest.raises(SettingsError, match="16 bytes or more"):
            Redactor.of(settings.preprocess.redact)


@pytest.mark.parametrize(
    ("redact", "target", "message"),
    [
        (["mail"], "y", "'mail' is not known here. Did you mean 'email'"), ([], "y", "at least 1"),
        ({"kinds": "al"}, "y", "must be"), ({"key": "k"}, "y", "kinds"),
        ("all", {"column": "y", "type": "span"}, "places in the text as it came"),
        ("all", {"column": "y", "type": "ranking", "user": "u"}, "told apart by their names"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(redact, target, message) -> None:
    with pytest.raises(SettingsError, match=message):
        from_mapping({"target": target, "preprocess": {"redact": redact}})


def test_a_survey_counts_what_is_there() -> None:
    table = Table.of(
        {"note": ["a@b.example", "c@d.example 13800138000", None], "number": [13800138000, 1, None], "x": [0.5, 1, 2],
         "talk": [[{"content": "a@b.example"}], [], None]}
    )  # fmt: skip
    found = survey(table)
    assert found.rows == 3
    assert found.found == {"note": {"email": 2, "phone": 1}, "number": {"phone": 1}, "talk": {"email": 1}}
    assert sorted(found.in_words(["email"], ["note", "talk"])) == [
        "note: 2 email, 1 phone; phone NOT replaced", "number: 1 phone; left out", "talk: 1 email; replaced",
    ]  # fmt: skip
