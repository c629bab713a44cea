"""Cells that hold histories: every form, what is missing, what cannot be read, and how much is kept."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from weft.data.columns import guess
from weft.data.histories import MOST_EVENTS, MOST_LETTERS, history_separator, parse_history
from weft.data.table import RawBatch
from weft.preprocess.clean import Cleaner, ColumnPlan


def clean(array, separator=None):
    cleaner = Cleaner({"h": ColumnPlan("sequence", separator=separator)})
    found = cleaner(RawBatch(np.arange(len(array)), pa.RecordBatch.from_arrays([array], ["h"])))
    return found.columns["h"].to_pylist(), [(r.row, r.reason) for r in found.rejected]


def ids(cells):
    return [None if cell is None else [event["item"] for event in cell] for cell in cells]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[7, 3], None, [], [5, None]]),
        pa.array([[7.0, 3.0], None, [], [5.0, None]]),
        pa.array([["7", " 3 "], None, [], ["5", ""]]),
        pa.array(["[7, 3]", "", "[]", '["5", null]']),
        pa.array([[{"item": 7}, {"item": 3}], None, [], [{"item": 5}, {"item": None}]]),
    ],
    ids=["numbers", "floats", "texts", "json", "structs"],
)
def test_an_id_is_the_same_whatever_it_is_written_as(array):
    cells, rejected = clean(array)
    assert ids(cells) == [["7", "3"], None, [], ["5"]] and not rejected


def test_text_cells_are_cut_at_the_separator_and_a_slice_is_read_as_itself():
    assert ids(clean(pa.array(["a, b,c", "a"]), ",")[0]) == [["a", "b", "c"], ["a"]]
    assert ids(clean(pa.array(["a  b"]), " ")[0]) == [["a", "b"]]
    assert ids(clean(pa.array([[1], [2, 3], [4]]).slice(1, 1))[0]) == [["2", "3"]]
    assert ids(clean(pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)).slice(1, 1))[0]) == [["3", "4"]]
    assert [history_separator(c) for c in (["a|b", "c,d|e"], ["[1]", "[2, 3]"], ["a b"])] == ["|", None, " "]


def test_events_that_say_when_they_were_are_put_in_order():
    cells, _ = clean(
        pa.array([[{"item": "b", "time": 20.0, "rating": 5}, {"item": "a", "time": 10.0, "rating": None}]])
    )
    assert cells == [[{"item": "a", "time": 10.0, "rating": None}, {"item": "b", "time": 20.0, "rating": 5.0}]]
    cells, _ = clean(pa.array(['[{"item": 1, "time": "2026-01-01T00:00"}, {"item": 2, "time": "2025-12-31"}]']))
    assert ids(cells) == [["2", "1"]] and cells[0][0]["time"] == 1_767_139_200.0


def test_what_is_no_history_costs_its_row_with_the_reason():
    cells, rejected = clean(pa.array(["[1, [2]]", '[{"thing": 1}]', "[1", '[{"item": 1, "rating": "good"}]', "[1]"]))
    assert [row for row, _ in rejected] == [0, 1, 2, 3] and ids(cells) == [["1"]]
    assert [reason[:24] for _, reason in rejected] == [
        "an item must be an id, i", "an event must have item ", "must be a JSON array of ", "rating: must be a number",
    ]  # fmt: skip


def test_a_history_of_ten_million_items_keeps_its_end_in_bounded_memory():
    many = 10_000_000
    cell = pa.ListArray.from_arrays(pa.array([0, many], pa.int32()), pa.array(np.arange(many), pa.int64()))
    text = ",".join(map(str, range(1_000_000)))
    tracemalloc.start()
    found = clean(cell)[0]
    assert len(found[0]) == MOST_EVENTS and found[0][-1]["item"] == str(many - 1)
    for form in (text, f"[{text}]"):
        events = parse_history(form, ",")
        assert len(events) == MOST_EVENTS and str(events[-1][0]) == "999999"
    assert tracemalloc.get_traced_memory()[1] < 120e6
    tracemalloc.stop()
    long = json.dumps([{"item": f"a, {i}", "time": i} for i in range(200_000)])
    assert len(long) > MOST_LETTERS and parse_history(long, None)[-1][0] == "a, 199999"


def test_lists_are_guessed_to_be_histories():
    assert guess("h", pa.array([[1, 2], [3]])).type == "sequence"
    assert guess("h", pa.array(['["a"]', "[]"])).type == "sequence"
    assert guess("h", pa.array([[{"role": "user", "content": "x"}]])).type == "off"
    assert guess("h", pa.array(["a b", "c"] * 20)).type != "sequence"
