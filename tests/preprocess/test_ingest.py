"""The one pass: in = used + set aside, the parts of every row, and when too much is bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weft.config import from_mapping
from weft.data.plan import look
from weft.data.split import TEST, TRAIN, VALID
from weft.data.table import Table
from weft.errors import DataError, TooManyBadRows
from weft.preprocess.ingest import (
    NOT_USED,
    CleanRows,
    Ingested,
    check_limit,
    ingest,
    make_cleaner,
    split_in_words,
)
from weft.progress import Silent

Put = Callable[[str, "str | bytes"], Path]


def take_in(source: Any, path: Path, **settings: Any) -> tuple[CleanRows, np.ndarray, Ingested]:
    table = source if isinstance(source, Table) else Table.of(source)
    settings["data"] = {"max_rejected": 0.9, **settings.get("data", {})}
    chosen = from_mapping({"target": "y", **settings})
    plan = look(chosen, table)
    return ingest(
        chosen, plan, table, make_cleaner(chosen, plan), path / "clean.arrow", path / "rejected.parquet", Silent()
    )


def lines(rows: int, **odd: str) -> str:
    """A CSV of three columns; ``odd`` replaces lines by their row number (``r5="..."``)."""
    plain = [f"{i / 4},word {i % 3},{'yes' if i % 2 else 'no'}" for i in range(rows)]
    for key, text in odd.items():
        plain[int(key[1:])] = text
    return "x,w,y\n" + "\n".join(plain) + "\n"


def test_every_row_is_used_or_set_aside_and_keeps_its_number(put: Put, tmp_path: Path) -> None:
    path = put(
        "a.csv", lines(200, r5="x,w", r9="twelve,w,yes", r20="1,w,", r21="inf,w,no", r30='1,"w,no', r199=",,yes")
    )
    clean, parts, found = take_in(str(path), tmp_path, features={"x": "number"})
    assert found.read == 200 == len(clean) + found.rejected == len(parts)
    aside = {r["row"]: (r["column"], r["reason"]) for r in pq.read_table(tmp_path / "rejected.parquet").to_pylist()}
    assert set(aside) == {5, 9, 20, 21, 30} == set(np.flatnonzero(parts == NOT_USED).tolist())
    assert aside[9] == ("x", "must be a number, is 'twelve'") and aside[20] == ("y", "the target is missing")
    assert found.bad == 4 and [r.row for r in found.first] == [5, 9, 21, 30]
    assert found.reasons()["y: the target is missing"] == 1 and sum(found.reasons().values()) == 5
    assert clean.rows.tolist() == [i for i in range(200) if i not in aside]
    last = clean.take(np.array([len(clean.rows) - 1, 0]), ["x", "w"])
    assert last["x"].to_pylist() == [None, 0.0] and last["w"].to_pylist() == [None, "word 0"]
    assert clean.take(np.array([], np.int64), ["w"])["w"].to_pylist() == []
    assert [clean.count(p) for p in (TRAIN, VALID, TEST)] == np.bincount(parts[clean.rows]).tolist()
    rows = [row for batch in clean.batches() for row in batch.rows.tolist()]
    assert rows == clean.rows.tolist() and set(next(clean.batches()).columns) == {"x", "w", "y"}


def test_the_chunks_of_the_table_change_nothing(tmp_path: Path) -> None:
    data = pa.table({"x": [i / 7 for i in range(300)], "y": ["a", "b", "b"] * 100})
    chunks = pa.concat_tables([data.slice(i, 7) for i in range(0, 300, 7)])
    (tmp_path / "2").mkdir()
    one, two = take_in(data, tmp_path), take_in(chunks, tmp_path / "2")
    assert (one[1] == two[1]).all() and (one[0].rows == two[0].rows).all()


def test_a_column_may_be_read_and_split_by(tmp_path: Path) -> None:
    data = {"c": [i % 30 for i in range(300)], "x": [i / 7 for i in range(300)], "y": ["a", "b", "b"] * 100}
    clean, parts, _ = take_in(data, tmp_path, data={"split": {"by": "c", "valid": 0.3, "test": 0.3}})
    assert next(clean.batches()).columns["c"].type == pa.float64()  # still the number it is read as
    assert clean.take(np.arange(300), ["c"])["c"].to_pylist() == [float(v) for v in data["c"]]
    for group in range(30):
        assert len(set(parts[group::30].tolist())) == 1


def test_a_row_whose_split_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    days = [f"2026-01-{i % 28 + 1:02d}" for i in range(100)]
    days[40] = "someday"
    data = {"d": days, "x": [i / 7 for i in range(100)], "y": ["a", "b"] * 50}
    clean, parts, found = take_in(data, tmp_path, data={"split": {"time": "d"}}, features={"d": "off"})
    assert found.read == 100 and [(r.row, r.column) for r in found.first] == [(40, "d")] and parts[40] == NOT_USED
    assert len(clean.rows) == 99 == len(parts) - 1
    late = [i for i in clean.rows.tolist() if parts[i] == TEST]
    assert min(days[i] for i in late) >= max(days[i] for i in clean.rows.tolist() if parts[i] == TRAIN)


def test_too_many_bad_rows_name_the_first_ten(put: Put, tmp_path: Path) -> None:
    odd = {f"r{i}": f"bad {i},w,yes" for i in range(0, 24, 2)}
    _, _, found = take_in(str(put("a.csv", lines(1_000, **odd))), tmp_path, features={"x": "number"})
    check_limit(found, 0.012, "a.csv", tmp_path / "rejected.parquet")
    with pytest.raises(TooManyBadRows) as caught:
        check_limit(found, 0.011, "a.csv", tmp_path / "rejected.parquet")
    text = str(caught.value)
    assert "Got 12 of 1,000" in text and "at most 1.1%" in text and "rejected.parquet" in text
    assert text.count("must be a number") == 10 and "row 18, column 'x': must be a number, is 'bad 18'" in text
    assert "row 20" not in text


def test_rows_without_a_target_do_not_count_as_bad(put: Put, tmp_path: Path) -> None:
    odd = {f"r{i}": "1,w," for i in range(0, 100, 2)}
    _, _, found = take_in(str(put("a.csv", lines(200, **odd))), tmp_path)
    assert found.rejected == 50 and found.bad == 0
    check_limit(found, 0.0, "a.csv", tmp_path / "rejected.parquet")


def test_nothing_to_use(put: Put, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Got none of 3; row 0, column 'x': must be a number"):
        take_in({"x": ["a", "b", "c"], "y": ["u", "v", "v"]}, tmp_path, features={"x": "number"})
    with pytest.raises(DataError, match="the target 'y' is missing in every row"):
        take_in({"x": [1, 2, 3], "y": [None] * 3}, tmp_path)
    with pytest.raises(DataError, match=r"must hold rows\. Got a header and none"):
        take_in(str(put("a.csv", "x,y\n\n\n")), tmp_path)
    with pytest.raises(DataError, match="every part must hold rows"):
        take_in({"x": [1, 2, 3], "y": ["u", "v", "v"]}, tmp_path)


def test_the_split_in_words(tmp_path: Path) -> None:
    data = {"c": [f"c{i % 50}" for i in range(400)], "x": [i / 7 for i in range(400)], "y": [i % 2 for i in range(400)]}
    for split, words in [
        ({}, "at random"), ({"by": "c"}, "rows of one 'c' together"), ({"time": "x"}, "the latest by 'x' last"),
    ]:  # fmt: skip
        clean, _, _ = take_in(data, tmp_path, data={"split": split})
        found = split_in_words(from_mapping({"target": "y", "data": {"split": split}}), clean)
        assert words in found and f"{clean.count(TEST)} test" in found
