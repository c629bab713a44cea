"""Output files: three formats."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weft.errors import UsageError
from weft.inference.output import check, writing

TABLE = pa.table({"row": [0, 1], "word": ['a,"b"\n中', None], "p": [0.5, None], "nan": [float("nan"), 1.0]})


def write(path: Path, *tables: pa.Table) -> None:
    with writing(path, tables[0].schema) as writer:
        for table in tables:
            writer.write(table)


def test_every_format_holds_every_row(tmp_path: Path) -> None:
    for ending in (".parquet", ".csv", ".JSONL"):
        write(tmp_path / f"out{ending}", TABLE, TABLE)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 4
    lines = (tmp_path / "out.JSONL").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[2]) == {"row": 0, "word": 'a,"b"\n中', "p": 0.5, "nan": None}
    assert "NaN" not in lines[0] and len(lines) == 4
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["row", "word", "p", "nan"] and rows[1][:3] == ["0", 'a,"b"\n中', "0.5"] and rows[4][1] == ""


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_columns_that_were_kept_may_be_of_any_type(tmp_path: Path, ending: str) -> None:
    moment = datetime.datetime(2026, 11, 21, 8, 30, tzinfo=datetime.UTC)
    columns = {
        "t": pa.array([moment, None]), "d": pa.array([moment.date(), None]), "l": [[1.5, float("nan")], None],
        "s": [{"k": "中"}, None], "b": [b"\xff", None], "u": pa.array([datetime.timedelta(seconds=1), None]),
    }  # fmt: skip
    write(tmp_path / f"out{ending}", pa.table(columns))
    text = (tmp_path / f"out{ending}").read_text(encoding="utf-8")
    assert "2026-11-21T08:30:00+00:00" in text and "[1.5, null]" in text and "中" in text and "0:00:01" in text
    assert len(text.splitlines()) == (3 if ending == ".csv" else 2)


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path, what in [
        (tmp_path / "out.xlsx", "the output must end in '.parquet', '.csv', '.jsonl'"),
        (tmp_path / "out", "must end in"),
        (tmp_path / "none" / "out.csv", "must exist. Create it"),
        (tmp_path / "folder.csv", "It is a folder"),
    ]:
        with pytest.raises(UsageError, match=what):
            check(path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.csv"]


def test_no_rows_are_a_file_with_a_header(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", TABLE.slice(0, 0))
    write(tmp_path / "a.csv", TABLE.slice(0, 0))
    assert pq.read_table(tmp_path / "a.parquet").schema.names == TABLE.schema.names
    assert (tmp_path / "a.csv").read_text().startswith('"row","word"')
