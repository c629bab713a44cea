"""Sources: every format and every way a file can be wrong; a bad row costs the row, a bad file says why."""

from __future__ import annotations

import decimal
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from weft.data.table import Rejected, Table
from weft.errors import DataError, UsageError

Put = Callable[[str, "str | bytes"], Path]


def rows_of(table: Table, rows: int = 3) -> dict[int, tuple]:
    """All rows by their number, read in small batches."""
    found = {}
    for raw in table.batches(rows=rows):
        assert raw.batch.num_rows == len(raw.rows)
        for number, row in zip(raw.rows.tolist(), raw.batch.to_pylist(), strict=True):
            found[number] = tuple(row.values())
    return found


def rejected_of(table: Table, rows: int = 3) -> list[Rejected]:
    return [bad for raw in table.batches(rows=rows) for bad in raw.rejected]


def broken_strings(*cells: bytes) -> pa.Array:
    """A string column whose bytes Arrow did not check."""
    offsets = np.cumsum([0, *map(len, cells)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(cells), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(cells))])


class TestCsv:
    @pytest.mark.parametrize("mark", [",", "\t", ";", "|"])
    def test_delimiters(self, put: Put, mark: str) -> None:
        table = Table.open(put("a.csv", f"a{mark}b\n1{mark}x,y\n".replace("x,y", "x" if mark == "," else "x,y")))
        assert list(table.columns) == ["a", "b"]
        assert rows_of(table) == {0: ("1", "x" if mark == "," else "x,y")}

    def test_a_delimiter_inside_quotes_of_the_header_is_none(self, put: Put) -> None:
        assert list(Table.open(put("a.csv", '"last, first, middle";age\nx;1\n')).columns) == [
            "last, first, middle",
            "age",
        ]

    def test_quotes_lines_and_missing_cells(self, put: Put) -> None:
        table = Table.open(put("a.csv", 'a,b\n"x, ""y""","one\ntwo"\n,\n5" pipe,é中\n'))
        assert rows_of(table) == {0: ('x, "y"', "one\ntwo"), 1: (None, None), 2: ('5" pipe', "é中")}
        assert table.row_count() is None

    @pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
    def test_byte_order_mark_windows_lines_and_gz(self, put: Put, name: str) -> None:
        content = b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4"
        table = Table.open(put(name, gzip.compress(content) if name.endswith("gz") else content))
        assert list(table.columns) == ["a", "b"]
        assert rows_of(table) == {0: ("1", "2"), 1: ("3", "4")}  # a blank line is no row

    def test_ragged_lines_cost_their_row(self, put: Put) -> None:
        table = Table.open(put("a.csv", "a,b\n1,2\n3\n4,5,6\n7,8\n"))
        assert rows_of(table) == {0: ("1", "2"), 3: ("7", "8")}
        assert [(r.row, r.reason, r.text) for r in rejected_of(table)] == [
            (1, "must have 2 fields like the header, has 1", "3"),
            (2, "must have 2 fields like the header, has 3", "4,5,6"),
        ]

    @pytest.mark.parametrize("rows", [1, 2, 100])
    def test_an_open_quote_costs_its_line_not_the_rest(self, put: Put, rows: int) -> None:
        table = Table.open(put("a.csv", 'a,b\n1,2\n3,"open\n4,5\n6,"q"x\n7,"two\nlines"\n8,"end\n'))
        assert rows_of(table, rows) == {0: ("1", "2"), 2: ("4", "5"), 4: ("7", "two\nlines")}
        bad = rejected_of(table, rows)
        assert [r.row for r in bad] == [1, 3, 5] and all("not a CSV line" in r.reason for r in bad)
        assert [r.text for r in bad] == ['3,"open', '6,"q"x', '8,"end']
        assert "never closed" in bad[2].reason

    def test_an_open_quote_in_a_table_of_one_column(self, put: Put) -> None:
        table = Table.open(put("a.csv", 'a\nx\n"open\ny\n'))
        assert rows_of(table) == {0: ("x",), 2: ("y",)} and [r.row for r in rejected_of(table)] == [1]

    def test_bytes_that_are_not_utf8_stay_in_their_cell(self, put: Put) -> None:
        table = Table.open(put("a.csv", b"a,b\n1,caf\xe9\n2,ok\n"))
        assert rows_of(table) == {0: ("1", b"caf\xe9"), 1: ("2", b"ok")}
        assert table.head(9).column("b").to_pylist() == ["caf\ufffd", "ok"]

    def test_nul_bytes_in_a_cell_are_only_a_cell(self, put: Put) -> None:
        assert rows_of(Table.open(put("a.csv", "a,b\n\0,x\0y\n1,2\n"))) == {0: ("\0", "x\0y"), 1: ("1", "2")}

    def test_blank_lines_before_the_header(self, put: Put) -> None:
        assert rows_of(Table.open(put("a.csv", "\n\na;b\n1;2\n"))) == {0: ("1", "2")}

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ("a,b\n1,2\n".encode("utf-16"), "header must be UTF-8 text.*iconv -f UTF-16"),
            ("a,b\n1,2\n".encode("utf-16-le"), "header must be UTF-8 text"),
            (b"a,caf\xe9\n1,2\n", "header must be UTF-8 text"),
            (b"a,b,a\n1,2,3\n", "column names must differ. Got 'a' more than once"),
            (b"a,,c\n1,2,3\n", "every column must have a name. Column 2 has none"),
            (b"a, ,c\n1,2,3\n", "Column 2 has none"),
            (b'a,"b\n1,2\n', "header must be a CSV line"),
            (b"", "the file is empty"),
            (b"\n\n", "at least one column"),
        ],
    )
    def test_files_that_are_no_table(self, put: Put, content: bytes, what: str) -> None:
        path = put("a.csv", content)
        with pytest.raises(DataError, match=what) as caught:
            Table.open(path)
        assert str(path) in str(caught.value)

    def test_the_index_that_pandas_writes_has_its_name(self, put: Put) -> None:
        text = pd.DataFrame({"a": [1, 2]}).to_csv()
        assert rows_of(Table.open(put("a.csv", text))) == {0: ("0", "1"), 1: ("1", "2")}
        assert list(Table.open(put("a.csv", text)).columns) == list(pd.read_csv(io.StringIO(text)).columns)

    def test_header_only_and_one_column(self, put: Put) -> None:
        empty = Table.open(put("a.csv", "a,b\n"))
        assert rows_of(empty) == {} and empty.head(5).num_rows == 0 and empty.head(5).schema.names == ["a", "b"]
        assert rows_of(Table.open(put("b.csv", "only\nx\ny\n"))) == {0: ("x",), 1: ("y",)}

    def test_a_damaged_gz(self, put: Put) -> None:
        whole = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(20_000)))
        table = Table.open(put("a.csv.gz", whole[: len(whole) // 2]))
        with pytest.raises(DataError, match=r"a\.csv\.gz: must be a readable csv file"):
            rows_of(table, 5_000)
        with pytest.raises(DataError, match="must be a readable csv file"):
            Table.open(put("b.csv.gz", b"no gzip at all"))


class TestJsonLines:
    def test_bad_lines_nested_values_missing_keys_and_mixed_types(self, put: Put) -> None:
        lines = [
            '{"a": 1, "b": "x"}',
            "no json",
            "",
            '{"b": {"k": [1, "é"]}}',
            "[1]",
            '{"a": true, "b": 1.5}',
            '{"a": NaN}',
        ]
        table = Table.open(put("a.jsonl", "\n".join(lines)))
        assert rows_of(table) == {
            0: ("1", "x"), 2: (None, '{"k": [1, "é"]}'), 4: ("true", "1.5"), 5: ("NaN", None),
        }  # fmt: skip
        assert [(r.row, r.reason) for r in rejected_of(table)] == [(1, "not a JSON object"), (3, "not a JSON object")]

    def test_a_key_that_comes_late_costs_its_row(self, put: Put) -> None:
        lines = [json.dumps({"a": i}) for i in range(2_000)] + ['{"a": 1, "late": 2}']
        table = Table.open(put("a.jsonl", "\n".join(lines)))
        assert list(table.columns) == ["a"]
        assert [(r.row, "'late'" in r.reason) for r in rejected_of(table, 900)] == [(2_000, True)]

    @pytest.mark.parametrize("start", ["[", "\n  ["])
    def test_a_json_array_is_told_from_lines(self, put: Put, start: str) -> None:
        with pytest.raises(DataError, match=r"Got a JSON array. Convert it: jq"):
            Table.open(put("a.json", start + '{"a": 1}]'))

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ("text\nmore\n", "Got no object"),
            ('{"a": 1}\n'.encode("utf-16"), "must be UTF-8"),
            ('{"": 1}\n', "must have a name"),
            ('{"\\ud800": 1}\n', "column names must be UTF-8"),
        ],
    )
    def test_files_that_are_no_table(self, put: Put, content: str | bytes, what: str) -> None:
        with pytest.raises(DataError, match=what):
            Table.open(put("a.jsonl", content))

    def test_a_byte_order_mark(self, put: Put) -> None:
        assert rows_of(Table.open(put("a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}'))) == {0: ("1",), 1: ("2",)}

    def test_half_of_a_pair_and_bad_bytes_stay_in_their_cell(self, put: Put) -> None:
        table = Table.open(put("a.jsonl", b'{"a": "\\ud800"}\n{"a": "\xff"}\n{"a": "ok"}\n'))
        assert rows_of(table) == {0: (b"\xed\xa0\x80",), 1: (b"\xff",), 2: (b"ok",)}

    def test_files_may_leave_out_keys_of_one_another(self, put: Put, tmp_path: Path) -> None:
        put("t/a.jsonl", '{"a": 1}\n')
        put("t/b.jsonl", '{"b": 2, "a": 3}\n')
        assert rows_of(Table.open(tmp_path / "t")) == {0: ("1", None), 1: ("3", "2")}


class TestParquetAndArrow:
    def test_row_groups_and_row_count(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": range(10), "b": list("abcdefghij")}), tmp_path / "a.parquet", row_group_size=3)
        table = Table.open(tmp_path / "a.parquet")
        assert table.row_count() == 10 and rows_of(table, 4) == {i: (i, "abcdefghij"[i]) for i in range(10)}
        only = next(table.batches(["b"], rows=2))
        assert only.batch.to_pydict() == {"b": ["a", "b"]} and only.rows.tolist() == [0, 1]

    def test_types_are_unfolded(self, tmp_path: Path) -> None:
        words = pa.array(["x", None, "y"])
        columns = {
            "dictionary": words.dictionary_encode(), "large": words.cast(pa.large_string()),
            "view": words.cast(pa.string_view()),
            "decimal": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]),
            "bytes": pa.array([b"x", None, b"y"], pa.large_binary()),
        }  # fmt: skip
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        memory = pa.table(
            {**columns, "ree": pa.compute.run_end_encode(words), "uuid": pa.array([b"0" * 16] * 3, pa.uuid())}
        )
        for table in (Table.open(tmp_path / "a.parquet"), Table.of(memory)):
            assert table.columns["dictionary"] == table.columns["large"] == table.columns["view"] == pa.string()
            assert (table.columns["decimal"], table.columns["bytes"]) == (pa.float64(), pa.binary())
            assert [row[:5] for row in rows_of(table).values()] == [
                ("x", "x", "x", 1.5, b"x"), (None,) * 5, ("y", "y", "y", -2.25, b"y"),
            ]  # fmt: skip
        assert rows_of(Table.of(memory))[2][5:] == ("y", b"0" * 16)

    def test_strings_that_are_not_utf8(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": broken_strings(b"ok", b"\xff\xfe"), "b": [1, 2]}), tmp_path / "a.parquet")
        table = Table.open(tmp_path / "a.parquet")
        assert table.head(5).column("a").to_pylist() == ["ok", "\ufffd\ufffd"]

    @pytest.mark.parametrize("kind", ["file", "stream"])
    def test_arrow(self, tmp_path: Path, kind: str) -> None:
        data = pa.table({"a": range(7), "b": pa.array(list("abcdefg")).dictionary_encode()})
        new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with new(str(tmp_path / "a.arrow"), data.schema) as writer:
            writer.write_table(data, max_chunksize=4)
        table = Table.open(tmp_path / "a.arrow")
        assert rows_of(table) == {i: (i, "abcdefg"[i]) for i in range(7)}

    @pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
    def test_a_file_that_is_none(self, put: Put, name: str) -> None:
        with pytest.raises(DataError, match=rf"{name}: must be a readable \w+ file. Got"):
            Table.open(put(name, b"not a table at all" * 50))

    @pytest.mark.parametrize("checksums", [True, False])
    def test_a_damaged_row_group_costs_its_rows_and_no_others(self, tmp_path: Path, checksums: bool) -> None:
        path = tmp_path / "a.parquet"
        draw = np.random.default_rng(0).normal(size=5_000)
        pq.write_table(
            pa.table({"a": draw, "b": np.arange(5_000)}), path, row_group_size=1_000, compression="zstd",
            write_page_checksum=checksums, use_dictionary=False,
        )  # fmt: skip
        column = pq.ParquetFile(path).metadata.row_group(2).column(0)
        whole = bytearray(path.read_bytes())
        if checksums:
            whole[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
        else:  # one bit may then pass unseen, no page at all cannot
            whole[column.data_page_offset : column.data_page_offset + 400] = bytes(400)
        path.write_bytes(whole)
        table, seen, lost = Table.open(path), [], []
        for raw in table.batches(rows=300):
            seen += raw.rows.tolist()
            lost += raw.rejected
            np.testing.assert_array_equal(raw.batch.column(0).to_numpy(), draw[raw.rows])
            assert raw.batch.column(1).to_pylist() == raw.rows.tolist()
        gone = [r.row for r in lost]
        assert sorted(seen + gone) == list(range(5_000)) == seen[:2_000] + gone + seen[2_000:]
        assert gone == list(range(2_000, 3_000)) and "row group 2 of the file is damaged: " in lost[0].reason
        assert table.place(2_500) == (str(path), 2_500)
        assert next(table.after(3_300).batches(["b"], rows=300)).rows[0] == 3_300

    def test_the_nameless_index_of_pandas_is_no_column(self, tmp_path: Path) -> None:
        frame = pd.DataFrame({"a": [1, 2, 3]}).iloc[[2, 0]]
        frame.to_parquet(tmp_path / "a.parquet")
        for table in (Table.of(frame), Table.open(tmp_path / "a.parquet")):
            assert list(table.columns) == ["a"] and rows_of(table) == {0: (3,), 1: (1,)}


class TestFinding:
    def test_globs_folders_and_lists_number_rows_on(self, put: Put, tmp_path: Path) -> None:
        put("t/b.csv", "b,a\n3,4\n5\n")
        put("t/a.csv", "a,b\n1\n1,2\n")
        put("t/sub/c.csv.gz", gzip.compress(b"a,b\n6,7\n"))
        put("t/README.md", "no data")
        put("t/_SUCCESS", "")
        put("t/.hidden.csv", "x\n1\n")
        expected = {1: ("1", "2"), 2: ("4", "3"), 4: ("6", "7")}  # by name, whatever the order of the columns
        folder = Table.open(tmp_path / "t")
        assert rows_of(folder) == expected and [r.row for r in rejected_of(folder)] == [0, 3]
        assert rows_of(Table.open(f"{tmp_path}/t/*.csv")) == {k: v for k, v in expected.items() if k < 3}
        files = [tmp_path / "t" / n for n in ("a.csv", "b.csv", "sub/c.csv.gz")]
        assert rows_of(Table.open(files), 1) == expected
        assert [raw.rows.tolist() for raw in folder.batches(["b"], rows=1)] == [[], [1], [2], [], [4]]

    def test_signs_of_a_glob_in_a_real_name(self, put: Put) -> None:
        assert rows_of(Table.open(put("data [1].csv", "a\nx\n"))) == {0: ("x",)}

    def test_files_whose_columns_differ(self, put: Put, tmp_path: Path) -> None:
        put("t/a.csv", "a,b\n1,2\n")
        put("t/b.csv", "a,c\n1,2\n")
        with pytest.raises(DataError, match=r"b\.csv: every file.*same columns as .*a\.csv.*'b', 'c'"):
            Table.open(tmp_path / "t")

    def test_files_whose_types_differ(self, tmp_path: Path) -> None:
        columns = {"a": [1, None], "b": [0.5, 2.0], "c": pa.nulls(2), "d": ["x", "y"]}
        for name, column in columns.items():
            pq.write_table(pa.table({"v": column}), tmp_path / f"{name}.parquet")
        files = [tmp_path / f"{n}.parquet" for n in "acb"]
        table = Table.open(files)
        assert table.head(9).column("v").to_pylist() == [1.0, None, None, None, 0.5, 2.0]
        with pytest.raises(DataError, match=r"d\.parquet: column 'v' must be of one type.*string.*int64"):
            Table.open([tmp_path / "a.parquet", tmp_path / "d.parquet"])

    def test_memory_addresses(self) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe_file("/weft-test/a.csv", b"a,b\n1,2\n")
        memory.pipe_file("/weft-test/b.csv.gz", gzip.compress(b"a,b\n3,4\n"))
        sink = io.BytesIO()
        pq.write_table(pa.table({"a": [5]}), sink)
        memory.pipe_file("/weft-test-2/c.parquet", sink.getvalue())
        assert rows_of(Table.open("memory://weft-test")) == {0: ("1", "2"), 1: ("3", "4")}
        assert rows_of(Table.open("memory://weft-test-2/*.parquet")) == {0: (5,)}

    @pytest.mark.parametrize(
        ("name", "error", "what"),
        [
            ("none.csv", DataError, "there is no such file"),
            ("*.csv", DataError, "there is no such file"),
            ("empty", DataError, "the folder must hold files that end in"),
            ("words", DataError, r"must hold files that end in .*Got none among 1 \('a.md'\)"),
            ("words/a.md", UsageError, "the ending must be one of.*data.format"),
        ],
    )
    def test_nothing_to_read(self, put: Put, tmp_path: Path, name: str, error: type, what: str) -> None:
        (tmp_path / "empty").mkdir()
        put("words/a.md", "a\n1\n")
        with pytest.raises(error, match=what):
            Table.open(tmp_path / name)

    def test_an_address_of_an_unknown_kind(self) -> None:
        with pytest.raises(DataError, match="must be a file, glob, folder or fsspec address"):
            Table.open("nowhere://a.csv")

    def test_the_format_can_be_said(self, put: Put) -> None:
        assert rows_of(Table.open(put("a.dat", "a\nx\n"), "csv")) == {0: ("x",)}


class TestMemory:
    DATA = {"a": [1, 2, None], "b": ["x", None, "z"]}  # noqa: RUF012

    @pytest.mark.parametrize(
        "make",
        [
            pa.table, pd.DataFrame, pl.DataFrame, dict, Table.of, lambda d: pa.RecordBatch.from_pydict(d),
            lambda d: pa.table(d).to_reader(),
        ],
    )  # fmt: skip
    def test_every_kind(self, make: Callable) -> None:
        table = Table.of(make(self.DATA))
        assert rows_of(table, 2) == {0: (1, "x"), 1: (2, None), 2: (None, "z")} and table.row_count() == 3

    def test_a_lazy_frame_is_refused_with_advice(self) -> None:
        with pytest.raises(UsageError, match=r"Got LazyFrame\. Collect it first: frame\.collect\(\)"):
            Table.of(pl.LazyFrame(self.DATA))
        with pytest.raises(UsageError, match=r"Got list\.$"):
            Table.of([1, 2])

    @pytest.mark.parametrize(
        "data",
        [
            {"a": [1, 2], "b": [1]}, {"a": [1, "x"]}, {}, {"a": 5}, pd.DataFrame([[1, 2]], columns=["a", "a"]),
            pd.DataFrame({"a": [1, "x"]}), pa.table([[1], [2]], names=["a", "a"]), pa.table([[1]], names=[""]),
        ],
    )  # fmt: skip
    def test_what_is_no_table(self, data: object) -> None:
        with pytest.raises(DataError, match=r"^table: "):
            Table.of(data)

    def test_head_takes_as_many_as_asked(self) -> None:
        table = Table.of(pa.concat_tables([pa.table({"a": range(5)})] * 4))
        assert [table.head(n).num_rows for n in (0, 1, 7, 20, 99)] == [0, 1, 7, 20, 20]
        assert table.head(7).column("a").to_pylist() == [0, 1, 2, 3, 4, 0, 1]
        assert [table.head(20, size).num_rows for size in (1, 24, 100, 10**6)] == [1, 3, 12, 20]  # of 8 bytes each


class TestSample:
    """A table is often sorted: its first rows say nothing about the last."""

    @pytest.mark.parametrize("kind", ["csv", "parquet", "memory", "chunks"])
    def test_comes_from_everywhere_in_order(self, tmp_path: Path, kind: str) -> None:
        data = pa.table({"a": range(40_000), "b": ["x"] * 39_000 + ["y"] * 1_000})
        if kind == "csv":
            pacsv.write_csv(data, tmp_path / "a.csv")
        elif kind == "parquet":
            pq.write_table(data, tmp_path / "a.parquet")
        chunks = pa.concat_tables([data.slice(i, 999) for i in range(0, 40_000, 999)])
        source = {"memory": data, "chunks": chunks}.get(kind, tmp_path / f"a.{kind}")
        found = Table.of(source).sample(1_000)
        numbers = [int(v) for v in found.column("a").to_pylist()]
        assert len(numbers) == 1_000 and numbers == sorted(numbers)
        assert numbers[:250] == list(range(250)) and numbers[-1] > 39_500 and max(np.diff(numbers)) < 600
        assert 400 < sum(n % 2 for n in numbers) < 600  # no step that could fall in with the rows'
        assert numbers == [int(v) for v in Table.of(data).sample(1_000).column("a").to_pylist()]
        assert set(found.column("b").to_pylist()) == {"x", "y"}
        assert Table.of(source).sample(50_000).num_rows == 40_000

    def test_of_no_rows(self, put: Put) -> None:
        for source in (
            put("a.csv", "a,b\n"),
            pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.int64())}),
        ):
            found = Table.of(source).sample(9)
            assert found.num_rows == 0 and found.schema.names == ["a", "b"]

    def test_of_files_too_large_to_be_read_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for i in range(200):
            pq.write_table(pa.table({"a": [i] * 50}), tmp_path / f"{i:03d}.parquet")
        monkeypatch.setattr("weft.data.table._MOST_TO_SAMPLE", 0)
        found = Table.open(tmp_path).sample(100).column("a").to_pylist()
        assert len(found) == 100 and len(set(found)) == 50 and max(found) > 190


class TestFingerprint:
    def test_of_files_is_of_their_bytes(self, put: Put) -> None:
        one, two, three = put("a.csv", "a\n12\n"), put("b.csv", "a\n12\n"), put("c.csv", "a\n13\n")
        assert Table.open(one).fingerprint() == Table.open(two).fingerprint() != Table.open(three).fingerprint()

    def test_where_one_file_ends_and_the_next_begins_counts(self, put: Put) -> None:
        first = Table.open([put("a.csv", "a\n"), put("b.csv", "a\n1\na\n2\n")])
        second = Table.open([put("c.csv", "a\na\n1\n"), put("d.csv", "a\n2\n")])
        assert first.fingerprint() != second.fingerprint()

    def test_of_rows_in_memory_does_not_depend_on_their_chunks(self) -> None:
        columns = {
            "i": [1, None, 3, 4], "s": ["x", None, "", "zz"], "b": [True, None, False, True],
            "t": pa.array([1, None, 3, 4], pa.timestamp("us")), "l": [[1], None, [], [2, 3]],
            "f": [0.5, None, 1.5, 2.5], "y": [b"a", None, b"", b"c"],
        }  # fmt: skip
        whole = pa.table(columns)
        pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2), whole.slice(3)])
        offset = pa.concat_tables([whole, whole]).combine_chunks().slice(4)
        expected = Table.of(whole).fingerprint()
        assert Table.of(pieces).fingerprint() == Table.of(offset).fingerprint() == expected
        assert Table.of(whole.replace_schema_metadata({"k": "v"})).fingerprint() == expected

    @pytest.mark.parametrize("column", ["i", "s", "t", "l"])
    def test_a_changed_cell_changes_it(self, column: str) -> None:
        base = {"i": [1, None], "s": ["x", "yz"], "t": pa.array([1, None], pa.timestamp("us")), "l": [[1], [2]]}
        other = {"i": [1, 0], "s": ["xy", "z"], "t": pa.array([1, 0], pa.timestamp("us")), "l": [[1, 2], []]}
        words = {Table.of({**base, column: v}).fingerprint() for v in (base[column], other[column])}
        words.add(Table.of({"other" if k == column else k: v for k, v in base.items()}).fingerprint())
        assert len(words) == 3


def test_some_rows_are_found_by_their_numbers(put):
    table = Table.open(put("t.csv", "a,b\n" + "".join(f"{i},x{i}\n" for i in range(40_000))))
    some = table.rows([39_999, 3, 3])
    assert some.head(9).column("a").to_pylist() == ["39999", "3", "3"] and some.name == table.name
    with pytest.raises(DataError, match=r"there is no row 40000\. It has 40,000 rows"):
        table.rows([40_000])
    broken = Table.open(put("u.csv", "a,b\n1,2\n1,2,3\n"))
    with pytest.raises(DataError, match="row 1 "):
        broken.rows([1])
