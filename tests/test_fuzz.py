"""Bytes and words that nobody meant: readers, settings and codecs answer, or say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weft import config
from weft.data.table import Table
from weft.errors import SettingsError, WeftError
from weft.features.codecs import CODECS
from weft.preprocess.clean import Cleaner, ColumnPlan

fuzz = settings(
    max_examples=60, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
SPICE = st.sampled_from([
    b'"', b",", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b":", b"[", b'{"a": 1}\n', b"a,b\n",
    b"1,2\n", "蓝".encode(), b"\\ud800", b"1e999", b"NaN", b" ", b"\t", b"\xff\xfe", b"'", b";", b"null",
])  # fmt: skip
BYTES = st.lists(SPICE | st.binary(max_size=6), max_size=40).map(b"".join)


def rows_of(table: Table, size: int = 7) -> tuple[list[int], list[int]]:
    """Numbers of the rows read, and of those set aside; cleaned and put into Arrow on the way."""
    seen: list[int] = []
    lost: list[int] = []
    cleaner = Cleaner({name: ColumnPlan("text") for name in table.columns})
    for raw in table.batches(rows=size):
        raw.batch.validate()
        clean = cleaner(raw)
        seen += clean.rows.tolist()
        lost += [r.row for r in clean.rejected]
        assert all(r.reason and table.place(r.row)[0] for r in clean.rejected)
    return seen, lost


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv", "a.json", "a.txt", "a.csv.gz", "a.arrow", "a.parquet"])
@fuzz
@given(data=BYTES)
def test_whatever_the_bytes_every_row_is_read_or_set_aside(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        seen, lost = rows_of(Table.open(path))
    except WeftError as error:
        assert len(str(error)) > 20
        return
    assert sorted(seen + lost) == list(range(len(seen) + len(lost)))
    assert rows_of(Table.open(path), size=1_000) == (seen, lost)  # however many at once


ROWS = 300
PLAIN = pa.table({
    "number": np.random.default_rng(0).normal(size=ROWS), "word": [f"w{i % 7}" for i in range(ROWS)],
    "text": [None if i % 9 == 0 else f"text {i} 蓝" for i in range(ROWS)], "whole": range(ROWS),
})  # fmt: skip


@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
@fuzz
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_flipped_byte_of_weft_s_parquet_is_never_read_as_data(
    tmp_path: Path, compression: str, flips: list[tuple[float, int]]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(PLAIN, path, row_group_size=50, compression=compression, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    pages = []
    meta = pq.ParquetFile(path).metadata
    for group in range(meta.num_row_groups):
        for number in range(meta.num_columns):
            column = meta.row_group(group).column(number)
            first = column.dictionary_page_offset or column.data_page_offset
            pages.append((first, first + column.total_compressed_size))
    for where, flip in flips:  # in the pages; the footer has no sums
        first, last = pages[int(where * len(pages))]
        data[first + int(where * 7919) % (last - first)] ^= flip
    path.write_bytes(bytes(data))
    table = Table.open(path)
    seen: list[int] = []
    lost: list[int] = []
    for raw in table.batches(rows=20):
        seen += raw.rows.tolist()
        lost += [r.row for r in raw.rejected]
        assert pa.Table.from_batches([raw.batch]).equals(PLAIN.take(pa.array(raw.rows)))
    assert sorted(seen + lost) == list(range(ROWS))


@fuzz
@given(data=st.data())
def test_a_parquet_cut_or_overwritten_anywhere_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(PLAIN, path, row_group_size=50, write_page_checksum=True)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(whole) - 1)))
        whole[place : place + 1] = data.draw(st.binary(max_size=3))
    path.write_bytes(bytes(whole))
    try:
        seen, lost = rows_of(Table.open(path))
    except WeftError:
        return
    assert sorted(seen + lost) == list(range(len(seen) + len(lost)))


LEAVES = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["text", "number", "class", "auto", "off", "a.csv", "transformer", "rnn", "0.1", "y", "nfkc", "adamw"]
)  # fmt: skip
KEYS = st.sampled_from([
    "data", "source", "split", "test", "valid", "by", "preprocess", "normalize", "features", "type", "max_tokens",
    "target", "column", "next_token", "coverage", "model", "backbone", "width", "from", "training", "epochs",
    "accumulate", "mixup", "augment", "delete", "results", "language", "version",
]) | st.text(max_size=5)  # fmt: skip
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)


@fuzz
@given(tree=st.dictionaries(KEYS, TREES, max_size=5), junk=st.text(max_size=6), place=st.floats(0, 1))
def test_a_pipeline_file_is_read_or_its_problems_are_said(tree: dict[str, Any], junk: str, place: float) -> None:
    text = json.dumps({"data": {"source": "a.csv"}, "target": "y", **tree}, ensure_ascii=False)
    cut = int(place * len(text))
    for written in (text, text[:cut] + junk + text[cut:], junk):
        try:
            found = config.loads(written, "weft.yaml")
        except SettingsError as error:
            assert error.problems and all(problem.strip() for problem in error.problems)
            continue
        assert config.loads(config.dumps(found), "weft.yaml") == found


VALUES = {
    "number": st.none() | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 0 < abs(x) < 1e-100),
    "time": st.none() | st.floats(-1e11, 1e11),
    "category": st.none() | st.text(max_size=4),
}


@pytest.mark.parametrize("kind", sorted(VALUES))
@fuzz
@given(data=st.data())
def test_a_codec_reads_what_it_was_not_shown_and_is_the_same_after_it_was_stored(
    kind: str, data: st.DataObject
) -> None:
    cells = VALUES[kind]
    shown, asked = (data.draw(st.lists(cells, min_size=1, max_size=30)) for _ in range(2))
    arrow = pa.string() if kind == "category" else pa.float64()
    codec = CODECS[kind]("c", None)
    codec.observe(np.arange(len(shown)), pa.array(shown, arrow))
    codec.finish()
    again = CODECS[kind]("c", None)
    again.restore(json.loads(json.dumps(codec.state(), allow_nan=False)))
    codes = codec.encode(pa.array(asked, arrow))
    for name, array in again.encode(pa.array(asked, arrow)).items():
        np.testing.assert_array_equal(array, codes[name])
        assert len(array) == len(asked)
    back = codec.decode(codec.encode(pa.array(shown, arrow)))
    assert [b is None for b in back] == [cell is None for cell in shown]
    if kind == "category":
        assert back == shown
    elif kind == "time":
        assert back == [None if cell is None else float(np.floor(cell)) for cell in shown]
    else:  # to float32, beyond 1e100 as 1e100
        meant = [np.clip(cell, -1e100, 1e100) for cell in shown if cell is not None]
        scale = max([1e-300, *(abs(m - codec.mean) for m in meant)])
        np.testing.assert_allclose([b for b in back if b is not None], meant, rtol=1e-6, atol=1e-6 * scale)
