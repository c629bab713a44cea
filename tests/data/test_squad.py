"""SQuAD's nested JSON becomes a row a question, and nothing else is taken for it."""

import json

import pytest

from weft.data.table import Table
from weft.errors import DataError

ARTICLES = {
    "version": "v2.0",
    "data": [
        {"title": "河", "paragraphs": [{"context": "长江长6300公里。🙂", "qas": [
            {"id": "a", "question": "长江多长?", "answers": [{"text": "6300公里", "answer_start": 3},
                                                       {"text": "6300", "answer_start": 3}]},
            {"id": "b", "question": "多宽?", "is_impossible": True, "answers": [{"text": "长", "answer_start": 0}]},
        ]}]},
        {"paragraphs": [{"qas": [{"question": "Who?", "answers": []}, {"id": "d"}, {"question": "Why?", "answers": "x"},
                                 {"question": "Last?", "id": 7}], "context": "Nobody."}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("order", ["version first", "data first", "indented"])
def test_a_row_a_question_whatever_the_layout(put, order):
    content = ARTICLES if order == "version first" else {k: ARTICLES[k] for k in ("data", "version")}
    table = Table.open(
        put("q.json", json.dumps(content, ensure_ascii=False, indent=2 if order == "indented" else None))
    )
    assert list(table.columns) == ["id", "title", "context", "question", "answer", "answer_start"]
    (raw,) = table.batches()
    rows = raw.batch.to_pylist()
    assert rows[0] == {"id": "a", "title": "河", "context": "长江长6300公里。🙂", "question": "长江多长?",
                       "answer": "6300公里", "answer_start": "3"}  # fmt: skip
    assert rows[1]["answer"] is None and rows[1]["answer_start"] is None
    assert [r["question"] for r in rows[2:]] == ["Who?", "Last?"] and rows[3]["id"] == "7" and rows[3]["title"] is None
    assert raw.rows.tolist() == [0, 1, 2, 5]
    assert [(r.row, r.reason) for r in raw.rejected] == [
        (3, "must be an object with a question"), (4, "answers must be a list of objects")
    ]  # fmt: skip


def test_small_batches_keep_the_numbers_of_the_rows(put):
    table = Table.open(put("q.json", json.dumps(ARTICLES)))
    whole = [row for raw in table.batches(["question"], rows=1) for row in raw.rows.tolist()]
    assert whole == [0, 1, 2, 5]


def test_json_lines_stay_json_lines(put):
    file = put("rows.jsonl", '{"data": [{"x": 1}], "y": "a"}\n{"data": [], "y": "b"}\n')
    assert list(Table.open(file).columns) == ["data", "y"]


@pytest.mark.parametrize(
    ("content", "said"),
    [('{"data": [{"paragraphs": [{"context": "x", "qas": []', "Expecting"),
     ('{"data": [{"title": "t", "paragraphs": [{"qas": []}]}]}', "no 'context'"),
     ('{"data": [{"title": "t", "paragraphs": 3}]}', "not iterable")],
)  # fmt: skip
def test_a_damaged_file_is_an_error_in_words(put, content, said):
    with pytest.raises(DataError, match=r"q\.json: must be SQuAD's JSON.*" + said):
        list(Table.open(put("q.json", content)).batches())


def test_xquad_answers_stand_where_the_file_says(shared):
    for language in ("en", "zh", "de", "es"):
        rows = Table.open(shared(f"xquad.{language}.json")).head(10_000).to_pylist()
        assert len(rows) == 1_190
        for row in rows:
            start = int(row["answer_start"])
            assert row["context"][start : start + len(row["answer"])] == row["answer"]
