"""Jobs over tables: each row once, in order, whole or not at all, stopped anywhere or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
import pytest

from weft.data.table import Rejected, Table
from weft.errors import DataError, RunError, UsageError
from weft.inference import parts
from weft.inference.parts import Done, Piece, write_job
from weft.progress import Silent

SCHEMA = pa.schema([("row", pa.int64()), ("double", pa.int64())])
Put = Callable[[str, str | bytes], Path]


class Killed(BaseException):
    """Not one that anybody catches."""


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)

    warn = line


def doubled(stop: int | None = None, seen: list[int] | None = None) -> Callable[[Table], Iterator[Piece]]:
    """Twice the number of each row, ten rows at a time; a row that holds none is set aside."""

    def work(table: Table) -> Iterator[Piece]:
        for raw in table.batches(["n"], rows=10):
            if stop is not None and raw.end(0) > stop:
                raise Killed
            if seen is not None:
                seen.extend(raw.rows.tolist())
            cells = dict(zip(raw.rows.tolist(), raw.batch.column(0).to_pylist(), strict=True))
            bad = [Rejected(row, "n", "no number", str(c)) for row, c in cells.items() if not str(c).isdigit()]
            good = {row: 2 * int(c) for row, c in cells.items() if str(c).isdigit()}
            found = pa.table({"row": list(good), "double": list(good.values())}, schema=SCHEMA)
            yield Piece(found, [*raw.rejected, *bad], raw.end(0), {"good": len(good)})

    return work


def job(out: Path, table: Table, work: Callable[[Table], Iterator[Piece]], say: Silent | None = None, **more: object
        ) -> Done:  # fmt: skip
    return write_job(out, SCHEMA, table, {"by": "doubling", **more}, work, "doubling", say or Silent())


@pytest.fixture
def table(put: Put) -> Callable[[], Table]:
    """Two files, 95 and 40 rows; two rows hold no number, one line is no row."""
    lines = [str(i) for i in range(95)]
    lines[17], lines[40] = "x", "1,2"
    put("in/a.csv", "\n".join(["n", *lines]) + "\n")
    path = put("in/b.csv", "\n".join(["n", *map(str, range(39)), "y"]) + "\n")
    return lambda: Table.open(path.parent)


@pytest.fixture(autouse=True)
def a_part_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)


READERS = {".parquet": pq.read_table, ".csv": pacsv.read_csv, ".jsonl": pajson.read_json}


@pytest.mark.parametrize("ending", READERS)
def test_every_row_is_in_the_output_or_set_aside_with_its_place(ending: str, table, tmp_path: Path) -> None:
    done = job(tmp_path / f"out{ending}", table(), doubled())
    found = READERS[ending](tmp_path / f"out{ending}")
    aside = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
    rows = found["row"].to_pylist()
    assert rows == [i for i in range(135) if i not in (17, 40, 134)]
    assert found["double"].to_pylist() == [2 * (row if row < 95 else row - 95) for row in rows]
    places = [(r["row"], Path(r["file"]).name, r["file_row"], r["column"], r["reason"], r["text"]) for r in aside]
    assert places == [
        (17, "a.csv", 17, "n", "no number", "x"),
        (40, "a.csv", 40, "", "must have 1 fields like the header, has 2", "1,2"),
        (134, "b.csv", 39, "n", "no number", "y"),
    ]  # fmt: skip
    assert done.counts == {"good": 132, "rejected": 3}
    assert done.rejected_output == str(tmp_path / "out.rejected.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", f"out{ending}", "out.rejected.parquet"]


@pytest.mark.parametrize("stop", [0, 10, 95, 96, 100, 134])
@pytest.mark.parametrize("ending", READERS)
def test_stopped_and_asked_again_it_goes_on_and_has_the_same_bits(
    ending: str, stop: int, table, tmp_path: Path
) -> None:
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    job(whole, table(), doubled())
    out.write_text("old")
    said = Heard()
    with pytest.raises(Killed):
        job(out, table(), doubled(stop=stop), said)
    assert out.read_text() == "old"
    begun = stop >= 10
    assert (tmp_path / f".{out.name}.parts").exists() == begun and any("goes on" in s for s in said.said) == begun
    seen: list[int] = []
    done = job(out, table(), doubled(seen=seen), said)
    assert out.read_bytes() == whole.read_bytes()
    assert (tmp_path / "out.rejected.parquet").read_bytes() == (tmp_path / "whole.rejected.parquet").read_bytes()
    assert done.counts == {"good": 132, "rejected": 3} and not (tmp_path / f".{out.name}.parts").exists()
    first = 95 if stop == 95 else stop // 10 * 10 if stop < 95 else 95 + (stop - 95) // 10 * 10
    assert seen[0] == first and (f"going on after row {first:,}" in said.said) == begun


def test_parts_of_another_job_are_of_no_use(table, tmp_path: Path) -> None:
    out, seen = tmp_path / "out.csv", []
    for change in ({"by": "something else"}, {}):
        with pytest.raises(Killed):
            job(out, table(), doubled(stop=50), **{"by": "doubling", **change})
    os.utime(tmp_path / "in" / "a.csv", ns=(1, 1))  # the rows may have changed
    job(out, table(), doubled(seen=seen))
    assert seen[0] == 0


def test_a_damaged_part_is_made_again_aloud(table, tmp_path: Path) -> None:
    out, whole, said, seen = tmp_path / "out.csv", tmp_path / "whole.csv", Heard(), []
    job(whole, table(), doubled())
    with pytest.raises(Killed):
        job(out, table(), doubled(stop=60))
    file = tmp_path / ".out.csv.parts" / "part-00000003" / "rows.arrow"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    job(out, table(), doubled(seen=seen), said)
    assert out.read_bytes() == whole.read_bytes() and seen[0] == 30
    assert "rows.arrow has changed" in said.said[0]


def test_a_second_writer_is_refused_and_a_dead_one_is_not_waited_for(table, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code = (
        "import sys, time; from pathlib import Path; from weft.files import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".out.csv.parts")], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=r"out\.csv: must be free"):
            job(out, table(), doubled())
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert job(out, table(), doubled()).counts["good"] == 132


def test_the_output_is_not_the_table(table, tmp_path: Path) -> None:
    one = Table.open(tmp_path / "in" / "a.csv")
    with pytest.raises(UsageError, match="must not be the table"):
        job(tmp_path / "in" / "a.csv", one, doubled())
    put = tmp_path / "in" / "a.rejected.parquet"
    pq.write_table(pa.table({"n": [1]}), put)
    with pytest.raises(UsageError, match="must not be the table"):
        job(tmp_path / "in" / "a.csv", Table.open(put), doubled())


def test_a_file_that_vanishes_in_the_middle_is_named_and_the_job_goes_on_when_it_is_back(table, tmp_path: Path) -> None:
    out, rows, away = tmp_path / "out.csv", table(), tmp_path / "away"

    def work(table: Table) -> Iterator[Piece]:
        for piece in doubled()(table):
            yield piece
            if piece.end == 50:
                (tmp_path / "in" / "b.csv").rename(away)

    with pytest.raises(DataError, match=r"b\.csv: must be a readable csv file.*No such file"):
        job(out, rows, work)
    assert not out.exists()
    away.rename(tmp_path / "in" / "b.csv")
    seen: list[int] = []
    assert job(out, table(), doubled(seen=seen)).counts["good"] == 132 and seen[0] == 95


def test_rows_that_are_gone_when_all_are_good_leave_no_file_of_them(table, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    job(out, table(), doubled())
    assert (tmp_path / "out.rejected.parquet").exists()
    done = job(out, Table.of({"n": ["1", "2"]}), doubled())
    assert done.rejected_output is None and not (tmp_path / "out.rejected.parquet").exists()
    assert out.read_text().splitlines()[1:] == ["0,2", "1,4"]


def test_no_rows_are_an_output_without_rows(put: Put, tmp_path: Path) -> None:
    path = put("empty.csv", "n\n")
    job(tmp_path / "out.parquet", Table.open(path), doubled())
    assert pq.read_table(tmp_path / "out.parquet").schema == SCHEMA
