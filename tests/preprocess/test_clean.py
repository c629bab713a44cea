"""Cells to typed values: missing is missing, bad costs the row with a reason, and every format reads alike."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from weft.data.table import RawBatch, Rejected
from weft.errors import DataError
from weft.preprocess.clean import MISSING_TARGET, CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.letters import Letters


def clean(
    kind: str, cells: Any, normalize: str = "nfkc", format: str | None = None, target: bool = False
) -> CleanBatch:
    """One column, whose rows are numbered from 100."""
    array = cells if isinstance(cells, pa.Array) else pa.array(cells)
    cleaner = Cleaner({"c": ColumnPlan(kind, format)}, Letters(normalize), "c" if target else None)
    done = cleaner(RawBatch(np.arange(100, 100 + len(array)), pa.RecordBatch.from_arrays([array], names=["c"])))
    assert len(done.rows) + len(done.rejected) == len(array)
    assert sorted([*done.rows.tolist(), *(r.row for r in done.rejected)]) == list(range(100, 100 + len(array)))
    return done


def values(kind: str, cells: Any, **how: Any) -> list:
    done = clean(kind, cells, **how)
    assert not done.rejected, done.rejected
    assert done.columns["c"].type == (pa.float64() if kind in ("number", "time") else pa.string())
    return done.columns["c"].to_pylist()


def reasons(kind: str, cells: Any, **how: Any) -> dict[int, str]:
    return {r.row - 100: r.reason for r in clean(kind, cells, **how).rejected}


class TestNumbers:
    @pytest.mark.parametrize(
        "cells",
        [
            ["1.5", "-2", None], [" 1.5 ", "-2", ""], ["$1.50", "-$2", "NA"], ["1.5", "−2", "?"],
            ["１.５", "-2", "nan"],
            [1.5, -2.0, float("nan")], pa.array([1.5, -2, None], pa.float16()), ["1.5", "-2", " N/A "],
        ],
    )  # fmt: skip
    def test_every_way_of_writing_is_one_number(self, cells: Any) -> None:
        assert values("number", cells) == [1.5, -2.0, None]

    def test_other_types(self) -> None:
        assert values("number", [True, False, None]) == [1.0, 0.0, None]
        assert values("number", pa.array([1, None], pa.uint64())) == [1.0, None]
        assert values("number", pa.array([1_500_000_001, None], pa.duration("ns"))) == [1.5, None]
        assert values("number", pa.array([1_500, None], pa.time32("ms"))) == [1.5, None]
        assert values("number", pa.nulls(2)) == [None, None]
        assert values("number", [datetime.date(1970, 1, 2)]) == [86_400.0]

    @pytest.mark.parametrize("cells", [[1.0, np.inf, -np.inf], ["1", "inf", "-Infinity"], ["$1", "1e999", "-1e999"]])
    def test_infinity_is_bad_and_nan_is_missing(self, cells: list) -> None:
        found = reasons("number", cells)
        assert list(found) == [1, 2] and all("must be a finite number" in r for r in found.values())

    def test_a_word_is_named(self) -> None:
        done = clean("number", ["1", "twelve", "2"])
        assert done.rejected == [Rejected(101, "c", "must be a number, is 'twelve'", "twelve")]
        assert done.rows.tolist() == [100, 102] and done.columns["c"].to_pylist() == [1.0, 2.0]


class TestWords:
    def test_chinese_full_width_digits_and_letters(self) -> None:
        cells = ["ＡＢＣ１２３", "ﬁne", "e\u0301", "　中文　"]
        assert values("text", cells) == ["ABC123", "fine", "é", "中文"]
        assert values("text", cells, normalize="nfc") == ["ＡＢＣ１２３", "ﬁne", "é", "中文"]
        assert values("category", cells[:3], normalize="off") == ["ＡＢＣ１２３", "ﬁne", "e\u0301"]

    def test_control_characters(self) -> None:
        assert values("text", ["a\x00b\x07c\x7fd\x85e\x9ff", "one\ntwo\tthree", "\x00"]) == [
            "abcdef",
            "one\ntwo\tthree",
            None,
        ]
        assert values("text", ["a\x07b"], normalize="off") == ["a\x07b"]

    def test_space_is_missing_and_words_for_missing_are_words(self) -> None:
        assert values("category", ["", "  ", None, "NA", "none"]) == [None, None, None, "NA", "none"]

    def test_a_category_is_the_same_from_csv_and_from_parquet(self) -> None:
        for from_csv, from_parquet in [
            (["True", "false", "FALSE", ""], [True, False, False, None]),
            (["1", "0", ""], [1, 0, None]),
            (["1.0", "-2.0", "2.5", ""], [1.0, -2.0, 2.5, None]),
            (["1", "-2", "2.5", "nan"], [1.0, -2.0, 2.5]),
            (["x", "y"], [b"x", b"y"]),
        ]:
            assert values("category", from_csv)[: len(from_parquet)] == values("category", from_parquet)
        assert values("category", ["1.0.0", "v1.0", "01.0", "10.00"]) == ["1.0.0", "v1.0", "01", "10"]
        assert values("text", ["1.0", "True"]) == ["1.0", "True"]

    def test_bytes_that_are_not_utf8_cost_their_row(self) -> None:
        broken = pa.Array.from_buffers(
            pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 5], np.int32)), pa.py_buffer(b"okab\xff")]
        )
        for cells in (pa.array([b"ok", b"ab\xff"]), broken):
            for kind in ("text", "category", "number"):
                if kind == "number":
                    cells = pa.array([b"1", b"ab\xff"])
                done = clean(kind, cells)
                assert done.rejected == [Rejected(101, "c", "must be UTF-8, has byte 0xff at 2", "ab\\xff")]
                assert len(done.columns["c"]) == 1


class TestTimes:
    def test_one_moment_in_every_type(self) -> None:
        moment = datetime.datetime(2026, 11, 21, 8, 30, tzinfo=datetime.UTC)
        zone = datetime.timezone(datetime.timedelta(hours=8))
        naive = moment.replace(tzinfo=None)
        seconds = moment.timestamp()
        for unit in ("s", "ms", "us", "ns"):
            assert values("time", pa.array([naive, None], pa.timestamp(unit))) == [seconds, None]
        assert values("time", pa.array([moment.astimezone(zone)], pa.timestamp("us", "+08:00"))) == [seconds]
        assert values("time", [int(seconds), None]) == [seconds, None]
        assert values("time", ["2026-11-21T16:30:00+08:00", "2026-11-21 08:30", "", "NA"], format="iso") == [
            seconds, seconds, None, None,
        ]  # fmt: skip
        assert values("time", ["21.11.2026 08:30"], format="%d.%m.%Y %H:%M") == [seconds]
        assert values("time", [naive.date()]) == [seconds - 8.5 * 3600]
        assert values("time", pa.array([1_500_000_001], pa.time64("ns"))) == [1.500000]

    def test_another_format_is_bad(self) -> None:
        assert reasons("time", ["2026-11-21", "21/11/2026"], format="iso") == {
            1: "must be a time like the others (iso), is '21/11/2026'"
        }

    def test_no_format(self) -> None:
        with pytest.raises(DataError, match="c: a time column must hold timestamps"):
            clean("time", ["soon"])


class TestRows:
    def test_a_missing_target_sets_its_row_aside(self) -> None:
        done = clean("category", ["a", None, "", "b"], target=True)
        assert done.rows.tolist() == [100, 103] and [r.reason for r in done.rejected] == [MISSING_TARGET] * 2
        assert reasons("number", [1.0, float("nan"), float("inf")], target=True) == {
            1: MISSING_TARGET, 2: "must be a finite number",
        }  # fmt: skip

    def test_the_first_reason_counts_and_earlier_ones_stay(self) -> None:
        cleaner = Cleaner({"a": ColumnPlan("number"), "b": ColumnPlan("number"), "c": ColumnPlan("text")})
        cells = {"c": ["p", "q", "r"], "b": ["y", "1", "2"], "a": ["x", "1", None]}
        before = Rejected(7, "", "not a CSV line", "")
        done = cleaner(RawBatch(np.array([8, 9, 10]), pa.RecordBatch.from_pydict(cells), [before]))
        assert done.rejected == [before, Rejected(8, "a", "must be a number, is 'x'", "x")]
        assert {n: a.to_pylist() for n, a in done.columns.items()} == {"a": [1, None], "b": [1, 2], "c": ["q", "r"]}
        assert done.rows.tolist() == [9, 10]

    def test_no_rows(self) -> None:
        for kind in ("number", "text", "category", "time"):
            assert values(kind, pa.array([], pa.string()), format="iso") == []

    def test_a_long_cell_is_kept_short(self) -> None:
        done = clean("number", ["x" * 5_000])
        assert len(done.rejected[0].text) == 1_000 and len(done.rejected[0].reason) < 100

    def test_a_cleaner_comes_back_from_json(self) -> None:
        cleaner = Cleaner({"a": ColumnPlan("time", "%d.%m.%Y"), "b": ColumnPlan("text")}, Letters("nfc"), "b")
        again = Cleaner.from_dict(json.loads(json.dumps(cleaner.to_dict())))
        assert (again.plans, again.letters.normalize, again.target) == (cleaner.plans, "nfc", "b")
