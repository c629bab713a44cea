"""A question needs its context, an answer its place; a row that lacks them is set aside with the reason."""

import pyarrow as pa

from weft.data.table import Table
from weft.preprocess.clean import ColumnPlan
from weft.preprocess.letters import Letters
from weft.preprocess.paired import AnswerCleaner, PairCleaner, answer_starts


def cleaned(cleaner, **columns):
    (raw,) = Table.of(pa.table(columns)).batches(cleaner.plans)
    return cleaner(raw)


def test_answers_are_found_letter_for_letter():
    contexts = ["ＡＢＣ\r\n  ok ok ok ", "ＡＢＣ\r\n  ok ok ok ", "ABC", "甲乙丙🙂乙", "甲乙丙🙂乙", "ab", " \n"]
    cleaner = AnswerCleaner("q", "c", "a", "at")
    clean = cleaned(
        cleaner, q=["?"] * 7, c=contexts, a=["ok", " ok ", "ＡＢＣ", "乙", None, "", "x"],
        at=[None, "10", None, "4", None, None, None],
    )  # fmt: skip
    assert clean.columns["c"].to_pylist() == [contexts[i] for i in (0, 1, 3, 4, 5)]  # nothing is normalised or trimmed
    assert answer_starts(clean, "c", "a", "at").tolist() == [7, 10, 4, -1, -1]
    assert [(r.row, r.column) for r in clean.rejected] == [(6, "c"), (2, "a")]
    assert "letter for letter" in clean.rejected[1].reason and clean.rejected[1].text == "ＡＢＣ"


def test_a_wrong_place_leads_to_the_nearest_one_and_no_number_sets_the_row_aside():
    cleaner = AnswerCleaner("q", "c", "a", "at")
    clean = cleaned(cleaner, q=["?"] * 3, c=["x..x....x"] * 3, a=["x"] * 3, at=["4", "-50", "soon"])
    assert answer_starts(clean, "c", "a", "at").tolist() == [3, 0]
    assert [(r.row, r.column) for r in clean.rejected] == [(2, "at")]


def test_without_answers_only_the_texts_must_be_there():
    clean = cleaned(AnswerCleaner("q", "c"), q=["?", None, "?"], c=["x", "y", ""])
    assert clean.rows.tolist() == [0] and {r.row for r in clean.rejected} == {1, 2}


def test_pairs_need_both_texts():
    cleaner = PairCleaner({"a": ColumnPlan("text"), "b": ColumnPlan("text")}, Letters(), ("a", "b"))
    clean = cleaned(cleaner, a=["ｘ", None, "y"], b=["1", "2", " "])
    assert clean.columns["a"].to_pylist() == ["x"]
    assert sorted((r.row, r.column) for r in clean.rejected) == [(1, "a"), (2, "b")]
