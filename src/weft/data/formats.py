"""The formats: CSV, JSON Lines, SQuAD's JSON, Parquet, Arrow, plain text and folders of pictures to raw record batches
with row numbers.

CSV and JSON Lines come as text. What is no row at all comes as ``Rejected``; what is no file, as ``DataError``.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weft import memory
from weft.data.pictures import FOLDER_COLUMNS, folder_rows
from weft.data.plain import plain, plain_type
from weft.data.squad import COLUMNS as SQUAD_COLUMNS
from weft.data.squad import looks_like_squad, squad_rows
from weft.errors import DataError, listing

TEXT_COLUMNS = {"text": pa.string(), "file": pa.string(), "place": pa.int64()}
"""What a plain text file is as a table: pieces of it, the file's name, and the piece's place among all."""
_PIECE = 1 << 14  # letters of a piece of plain text, at most twice as many; fewer where a file has few
_CELL_LIMIT = 1 << 24  # letters of one CSV cell; a quotation mark left open ends here at the latest
PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_ICONV = "Got another encoding. Convert it, for example: iconv -f UTF-16 -t UTF-8 {path} > new_file"


@dataclass(frozen=True)
class Rejected:
    """A row set aside: ``row`` is its number in the table (from 0), ``text`` what came."""

    row: int
    column: str
    reason: str
    text: str


@dataclass
class RawBatch:
    """Rows ``rows`` (numbers in the table, ascending) of a table, as they came. ``folder``: where the paths in their
    cells begin; None where the table is not on this machine."""

    rows: np.ndarray
    batch: pa.RecordBatch
    rejected: list[Rejected] = field(default_factory=list)
    folder: Path | None = None

    def end(self, start: int) -> int:
        """The number after its last row, read or set aside; ``start`` where it holds none."""
        last = [int(self.rows[-1])] if len(self.rows) else []
        return max([start - 1, *last, *(r.row for r in self.rejected)]) + 1


@dataclass(frozen=True)
class Part:
    """One file of a table, or one row ``group`` of a file of Parquet, or the ``files`` of a folder of pictures."""

    path: str
    size: int
    format: str
    filesystem: Any
    files: tuple[str, ...] = ()
    group: int | None = None

    @property
    def folder(self) -> Path | None:
        """Where paths in its cells begin; None where it is not on this machine."""
        path = Path(self.path)
        return None if not is_local(self.filesystem) else path if self.files else path.parent


def batches_of(
    part: Part, keep: list[str], columns: Mapping[str, pa.DataType], start: int, rows: int
) -> Iterator[RawBatch]:
    """The rows of a file; ``keep`` names the columns, ``columns`` the types of the table, ``start`` its first row."""
    reader = {
        "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet, "arrow": _read_arrow, "text": _read_text,
        "squad": _read_squad, "pictures": _read_pictures,
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
    with readable(part), _binary(part) as stream:
        meta = pq.ParquetFile(stream).metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]


def row_count(part: Part) -> int | None:
    """Rows of a file that says so without being read."""
    if part.format != "parquet":
        return len(part.files) or None
    with readable(part), _binary(part) as stream:
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
            with _text(part) as stream:
                if _not_utf8(stream.read(2)):
                    raise DataError(f"{part.path}: must be UTF-8 text. {_ICONV.format(path=part.path)}")
            return dict(TEXT_COLUMNS)
        if part.format == "squad":
            return dict.fromkeys(SQUAD_COLUMNS, pa.string())
        if part.format == "parquet":
            with _binary(part) as stream:
                schema = pq.ParquetFile(stream).schema_arrow
        elif part.format == "arrow":
            with _binary(part) as stream:
                schema = _arrow_reader(stream).schema
        else:
            if part.format == "csv":
                with _text(part) as stream:
                    names = next(_csv_rows(stream, part.path), [])
            else:
                names = _jsonl_names(part)
            check_names(names, part.path)
            return dict.fromkeys(names, pa.string())
    names = [n for n in schema.names if not PANDAS_INDEX.fullmatch(n)]
    check_names(names, part.path)
    return {name: plain_type(schema.field(name).type) for name in names}


@contextmanager
def readable(part: Part) -> Iterator[None]:
    """Whatever the libraries raise on a damaged file, in Weft's words."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
        what = f"{part.path}: must be a readable {part.format} file. Got: {_said(error)}. Write it again."
        raise DataError(what) from None


def _said(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def check_names(names: Sequence[str], where: str) -> None:
    if not names:
        raise DataError(f"{where}: a table must have at least one column. Got none.")
    if any(_not_utf8(name) for name in names):
        raise DataError(f"{where}: column names must be UTF-8 text without NUL. {_ICONV.format(path=where)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: column names must differ. Got {listing(twice)} more than once. Rename them.")
    if any(not name.strip() for name in names):
        place = [i + 1 for i, name in enumerate(names) if not name.strip()]
        raise DataError(f"{where}: every column must have a name. Column {place[0]} has none. Name it.")


def is_local(filesystem: Any) -> bool:
    """Whether its files are on this machine."""
    return getattr(filesystem, "protocol", None) in ("file", ("file", "local"))


def _binary(part: Part) -> Any:
    if is_local(part.filesystem):
        return pa.BufferReader(pa.py_buffer(memory.mapped(part.path)))
    return part.filesystem.open(part.path, "rb")


def _text(part: Part) -> IO[str]:
    """Text of a file; bytes that are not UTF-8 become lone surrogates and are found by the cleaner."""
    return part.filesystem.open(
        part.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="", compression="infer"
    )


class _Lines:
    """Lines of a file that can be taken back: those of a CSV row that turns out to be none."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._again: list[str] = []
        self._row: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else self._stream.readline(_CELL_LIMIT)
        if not line:
            raise StopIteration
        self._row.append(line)
        return line

    def begin(self) -> None:
        """A row starts here."""
        self._row.clear()

    def give_back(self) -> str:
        """The first line since :meth:`begin`; the others will come again."""
        self._again += self._row[:0:-1]
        return self._row[0]


class _NoRow(list[str]):
    """Why a line is no CSV row, and the line."""


def _csv_rows(stream: IO[str], path: str) -> Iterator[list[str]]:
    """Fields of each row, the header first; a line that is no CSV comes as a ``_NoRow``.

    A quotation mark that is never closed costs its line, not the rest of the file.
    """
    csv.field_size_limit(_CELL_LIMIT)
    first = stream.readline(1 << 20)
    if _not_utf8(first):
        raise DataError(f"{path}: the header must be UTF-8 text. {_ICONV.format(path=path)}")
    while first and not first.strip():
        first = stream.readline(1 << 20)
    bare = re.sub(r'"[^"]*"', "", first)
    delimiter = "\t" if path.endswith((".tsv", ".tsv.gz")) else max([",", "\t", ";", "|"], key=bare.count)
    lines = _Lines(stream)
    stream.seek(0)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = True
    while True:
        lines.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = lines.give_back()
            if header:
                raise DataError(f"{path}: the header must be a CSV line. Got: {error}. Correct it.") from None
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            yield _NoRow(["a quotation mark is never closed" if "end of data" in str(error) else str(error), line])
            continue
        if fields and not (header and not "".join(fields).strip()):  # a blank line is no row
            if header and len(fields) > 1 and not fields[0].strip():
                fields[0] = "Unnamed: 0"  # the index that pandas writes, under the name it reads it back by
            header = False
            yield fields


def _not_utf8(text: str) -> bool:
    return "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)


def _read_csv(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    with _text(part) as stream:
        lines = _csv_rows(stream, part.path)
        names = next(lines)
        places = [names.index(name) for name in keep]
        number = itertools.count(start)
        for chunk in _chunks(lines, rows):
            good, ids, bad = [], [], []
            for fields in chunk:
                row = next(number)
                if isinstance(fields, _NoRow):
                    bad.append(Rejected(row, "", f"not a CSV line: {fields[0]}", fields[1][:1000].rstrip("\r\n")))
                elif len(fields) == len(names):
                    good.append(fields)
                    ids.append(row)
                else:
                    reason = f"must have {len(names)} fields like the header, has {len(fields)}"
                    bad.append(Rejected(row, "", reason, ",".join(fields)[:1000]))
            cells = list(zip(*good, strict=True)) if good else [()] * len(names)
            arrays = [_strings(cells[i]) for i in places]
            yield RawBatch(_ids(ids), pa.RecordBatch.from_arrays(arrays, names=keep), bad)


def _chunks(lines: Iterator[Any], rows: int) -> Iterator[list[Any]]:
    """At most ``rows`` lines (texts, or lists of them) at once; of long ones fewer, by the length of those before."""
    size = min(rows, 64)
    while chunk := list(itertools.islice(lines, size)):
        yield chunk
        letters = sum(len(line) if isinstance(line, str) else sum(map(len, line)) for line in chunk)
        size = min(rows, 8 * size, max(1, memory.PIECE * len(chunk) // max(letters, 1)))


def _strings(cells: Sequence[str | None]) -> pa.Array:
    """Text cells; an empty cell is missing, one with bytes that are not UTF-8 keeps them for the cleaner."""
    cells = [cell if cell else None for cell in cells]
    try:
        return pa.array(cells, pa.string())
    except (UnicodeEncodeError, pa.ArrowException):
        return pa.array([None if c is None else _bytes(c) for c in cells], pa.binary())


def _bytes(cell: str) -> bytes:
    try:
        return cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as JSON can write it
        return cell.encode("utf-8", "surrogatepass")


def _jsonl_names(part: Part) -> list[str]:
    names: dict[str, None] = {}
    with _text(part) as stream:
        start = stream.read(1 << 12)
        if _not_utf8(start[:2]):
            raise DataError(f"{part.path}: must be UTF-8 text. {_ICONV.format(path=part.path)}")
        if start.lstrip().startswith("["):
            raise DataError(
                f"{part.path}: must be JSON Lines, one object a line. Got a JSON array. "
                f"Convert it: jq -c '.[]' {Path(part.path).name} > table.jsonl"
            )
        stream.seek(0)
        for line in itertools.islice(stream, 2_000):
            row = _json(line)
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
    if not names:
        raise DataError(f"{part.path}: must be JSON Lines, one object a line. Got no object in its first lines.")
    return list(names)


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_jsonl(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    known = set(columns)
    with _text(part) as stream:
        number = itertools.count(start)
        for chunk in _chunks(stream, rows):
            good, ids, bad = [], [], []
            for line in chunk:
                if not line.strip():
                    continue
                row, value = next(number), _json(line)
                if isinstance(value, dict) and value.keys() <= known:
                    good.append(value)
                    ids.append(row)
                else:
                    odd = listing(sorted(value.keys() - known)) if isinstance(value, dict) else ""
                    reason = f"has columns that the first rows do not: {odd}" if odd else "not a JSON object"
                    bad.append(Rejected(row, "", reason, line[:1000].rstrip("\r\n")))
            arrays = [cells([value.get(name) for value in good]) for name in keep]
            yield RawBatch(_ids(ids), pa.RecordBatch.from_arrays(arrays, names=keep), bad)


def is_squad(part: Part) -> bool:
    """Whether a JSON file is nested as SQuAD's are."""
    with readable(part), _text(part) as stream:
        return looks_like_squad(stream.read(1 << 14))


def _read_squad(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    with _text(part) as stream:
        numbered = enumerate(squad_rows(stream, part.path), start)
        while chunk := list(itertools.islice(numbered, rows)):
            good = [(number, row) for number, row in chunk if isinstance(row, dict)]
            bad = [Rejected(number, "", row, "") for number, row in chunk if isinstance(row, str)]
            arrays = [_strings([row[name] for _, row in good]) for name in keep]
            yield RawBatch(_ids([n for n, _ in good]), pa.RecordBatch.from_arrays(arrays, names=keep), bad)


def _read_text(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    """Pieces of a plain text, cut where a line ends if one does: joined they are the file."""
    with _text(part) as stream:
        pieces = _pieces(stream, min(_PIECE, max(256, part.size // 64)))
        while chunk := list(itertools.islice(pieces, min(rows, 64))):
            ids = count(start, len(chunk))
            row = {"text": _strings(chunk), "file": pa.array([part.path] * len(chunk)), "place": pa.array(ids)}
            yield RawBatch(ids, pa.RecordBatch.from_arrays([row[n] for n in keep], names=keep))
            start += len(chunk)


def _read_pictures(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    numbered = folder_rows(part.path, part.files, start)
    while chunk := list(itertools.islice(numbered, rows)):
        ids, images, labels = zip(*chunk, strict=True)
        row = {"image": _strings(images), "label": _strings(labels)}
        yield RawBatch(_ids(list(ids)), pa.RecordBatch.from_arrays([row[n] for n in keep], names=keep))


def _pieces(stream: IO[str], least: int) -> Iterator[str]:
    rest = ""
    while rest := rest + stream.read(2 * least - len(rest)):
        cut = len(rest)
        if cut == 2 * least:
            cut = rest.rfind("\n", least) + 1 or cut
        yield rest[:cut]
        rest = rest[cut:]


def cells(values: Sequence[Any]) -> pa.Array:
    """Values of JSON as text cells, as those of a file of JSON Lines are read."""
    return _strings([_cell(value) for value in values])


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


def _read_parquet(
    part: Part, keep: list[str], columns: Mapping[str, pa.DataType], start: int, rows: int
) -> Iterator[RawBatch]:
    with _binary(part) as stream:
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
                reason = f"row group {group} of the file is damaged: {_said(error)}"
            for first in range(start, start + left, rows):
                lost = range(first, min(first + rows, start + left))
                nothing = pa.RecordBatch.from_arrays([pa.array([], columns[name]) for name in keep], names=keep)
                yield RawBatch(_ids([]), nothing, [Rejected(row, "", reason, "") for row in lost])
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
    with _binary(part) as stream:
        reader = _arrow_reader(stream)
        whole = (
            (reader.get_batch(i) for i in range(reader.num_record_batches))
            if isinstance(reader, pa.ipc.RecordBatchFileReader)
            else reader
        )
        for batch in whole:
            for offset in range(0, batch.num_rows, rows):
                piece = batch.slice(offset, rows)
                yield RawBatch(count(start, piece.num_rows), _ordered(piece, keep, columns))
                start += piece.num_rows


def _ordered(batch: pa.RecordBatch, keep: list[str], columns: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    arrays = []
    for name in keep:
        array = plain(batch.column(name))
        arrays.append(array if array.type == columns[name] else pc.cast(array, columns[name], safe=False))
    return pa.RecordBatch.from_arrays(arrays, names=keep)


def count(start: int, rows: int) -> np.ndarray:
    return np.arange(start, start + rows, dtype=np.int64)


def _ids(ids: list[int]) -> np.ndarray:
    return np.asarray(ids, dtype=np.int64)
