"""The formats: CSV, JSON Lines, SQuAD's JSON, Parquet, Arrow, plain text and folders of pictures to raw record batches
with row numbers.

CSV and JSON Lines come as text. What is no row at all comes as ``Rejected``; what is no file, as ``DataError``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weft import memory
from weft.data.lines import TEXT_COLUMNS, csv_rows, jsonl_names, read_csv, read_jsonl, read_squad, read_text
from weft.data.parts import (
    PANDAS_INDEX,
    Part,
    RawBatch,
    Rejected,
    binary,
    check_names,
    check_utf8,
    count,
    raw_batch,
    readable,
    said,
    strings,
    text_of,
)
from weft.data.pictures import FOLDER_COLUMNS, folder_rows
from weft.data.plain import plain, plain_type
from weft.data.squad import COLUMNS as SQUAD_COLUMNS
from weft.errors import DataError


def batches_of(
    part: Part, keep: list[str], columns: Mapping[str, pa.DataType], start: int, rows: int
) -> Iterator[RawBatch]:
    """The rows of a file; ``keep`` names the columns, ``columns`` the types of the table, ``start`` its first row."""
    reader = {
        "csv": read_csv, "jsonl": read_jsonl, "parquet": _read_parquet, "arrow": _read_arrow, "text": read_text,
        "squad": read_squad, "pictures": _read_pictures,
    }[part.format]  # fmt: skip
    batches = reader(part, keep, columns, start, rows)
    while True:
        with readable(part):
            raw = next(batches, None)
        if raw is None:
            return
        raw.folder = part.folder
        yield raw
        memory.release()


def group_sizes(part: Part) -> list[int]:
    """Rows of each row group of a file of Parquet; of other files nothing."""
    if part.format != "parquet":
        return []
    with readable(part), binary(part) as stream:
        meta = pq.ParquetFile(stream).metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]


def row_count(part: Part) -> int | None:
    """Rows of a file that says so without being read."""
    if part.format != "parquet":
        return len(part.files) or None
    with readable(part), binary(part) as stream:
        return pq.ParquetFile(stream).metadata.num_rows


def rows_about(part: Part) -> int | None:
    """Rows of a file of lines as its first million bytes let expect; None where they are no lines."""
    if part.format not in ("csv", "jsonl") or part.path.endswith((".gz", ".bz2", ".xz", ".zst")):
        return None
    with readable(part), part.filesystem.open(part.path, "rb") as stream:
        start = stream.read(1_000_000)
    return round(start.count(b"\n") * part.size / max(1, len(start)))


def columns_of(part: Part) -> dict[str, pa.DataType]:
    """Names and types of the columns of a file."""
    with readable(part):
        if part.format == "pictures":
            return dict(FOLDER_COLUMNS)
        if part.format == "text":
            with text_of(part) as stream:
                check_utf8(stream.read(2), part.path)
            return dict(TEXT_COLUMNS)
        if part.format == "squad":
            return dict.fromkeys(SQUAD_COLUMNS, pa.string())
        if part.format == "parquet":
            with binary(part) as stream:
                schema = pq.ParquetFile(stream).schema_arrow
        elif part.format == "arrow":
            with binary(part) as stream:
                schema = _arrow_reader(stream).schema
        else:
            with text_of(part) as stream:
                csv_names = part.format == "csv"
                names = next(csv_rows(stream, part.path), []) if csv_names else jsonl_names(stream, part.path)
            check_names(names, part.path)
            return dict.fromkeys(names, pa.string())
    names = [n for n in schema.names if not PANDAS_INDEX.fullmatch(n)]
    check_names(names, part.path)
    return {name: plain_type(schema.field(name).type) for name in names}


def _read_pictures(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    numbered = folder_rows(part.path, part.files, start)
    while chunk := list(itertools.islice(numbered, rows)):
        ids, images, labels = zip(*chunk, strict=True)
        row = {"image": strings(images), "label": strings(labels)}
        yield raw_batch(ids, keep, (row[name] for name in keep))


def _read_parquet(
    part: Part, keep: list[str], columns: Mapping[str, pa.DataType], start: int, rows: int
) -> Iterator[RawBatch]:
    with binary(part) as stream:
        file = pq.ParquetFile(stream, page_checksum_verification=True)
        meta = file.metadata
        groups = range(file.num_row_groups) if part.group is None else [part.group]
        sizes = [meta.row_group(group).num_rows for group in groups]
        if part.group is None and sum(sizes) != meta.num_rows:
            raise DataError(f"{part.path}: the rows of its row groups must add up. They do not. Write it again.")
        for group, left in zip(groups, sizes, strict=True):
            reason = f"row group {group} of the file holds fewer rows than it says"
            try:
                head = next(file.iter_batches(batch_size=64, row_groups=[group], columns=keep), None)
                # as they are once each is written out: a dictionary holds a long one once
                size = (
                    _ordered(head, keep, columns).nbytes // head.num_rows if head is not None and head.num_rows else 1
                )
                most = min(rows, max(1, memory.PIECE // max(size, 1)))  # of rows that are long fewer come at once
                for batch in file.iter_batches(batch_size=most, row_groups=[group], columns=keep):
                    yield RawBatch(count(start, batch.num_rows), _ordered(batch, keep, columns))
                    start, left = start + batch.num_rows, left - batch.num_rows
            except (pa.ArrowException, OSError, UnicodeError) as error:
                if getattr(error, "errno", None):
                    raise  # the disk or the network, not the bytes
                reason = f"row group {group} of the file is damaged: {said(error)}"
            for first in range(start, start + left, rows):
                lost = range(first, min(first + rows, start + left))
                aside = [Rejected(row, "", reason, "") for row in lost]
                yield raw_batch((), keep, (pa.array([], columns[name]) for name in keep), aside)
            start += left


def _arrow_reader(stream: Any) -> Any:
    try:
        return pa.ipc.open_file(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_stream(stream)


def _read_arrow(
    part: Part, keep: list[str], columns: Mapping[str, pa.DataType], start: int, rows: int
) -> Iterator[RawBatch]:
    with binary(part) as stream:
        reader = _arrow_reader(stream)
        in_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if in_file else reader:
            for offset in range(0, batch.num_rows, rows):
                piece = batch.slice(offset, rows)
                yield RawBatch(count(start, piece.num_rows), _ordered(piece, keep, columns))
                start += piece.num_rows


def _ordered(batch: pa.RecordBatch, keep: list[str], columns: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    arrays = (plain(batch.column(name)) for name in keep)
    cast = [
        a if a.type == columns[n] else pc.cast(a, columns[n], safe=False) for n, a in zip(keep, arrays, strict=True)
    ]
    return pa.RecordBatch.from_arrays(cast, names=keep)
