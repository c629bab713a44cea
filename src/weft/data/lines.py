"""The formats of lines: CSV, JSON Lines, SQuAD's JSON and plain text to raw record batches with row numbers.

All cells come as text.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from weft import memory
from weft.data.parts import Part, RawBatch, Rejected, check_utf8, count, raw_batch, readable, strings, text_of
from weft.data.squad import looks_like_squad, squad_rows
from weft.errors import DataError, listing

TEXT_COLUMNS = {"text": pa.string(), "file": pa.string(), "place": pa.int64()}
"""What a plain text file is as a table: pieces of it, the file's name, and the piece's place among all."""
_PIECE = 1 << 14  # letters of a piece of plain text, at most twice as many; fewer where a file has few
_CELL_LIMIT = 1 << 24  # letters of one CSV cell; a quotation mark left open ends here at the latest


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


def csv_rows(stream: IO[str], path: str) -> Iterator[list[str]]:
    """Fields of each row, the header first; a line that is no CSV comes as a ``_NoRow``.

    A quotation mark that is never closed costs its line, not the rest of the file.
    """
    csv.field_size_limit(_CELL_LIMIT)
    first = stream.readline(1 << 20)
    check_utf8(first, path, "the header must be UTF-8 text")
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


def read_csv(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    with text_of(part) as stream:
        lines = csv_rows(stream, part.path)
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
            yield raw_batch(ids, keep, (strings(cells[i]) for i in places), bad)


def _chunks(lines: Iterator[Any], rows: int) -> Iterator[list[Any]]:
    """At most ``rows`` lines (texts, or lists of them) at once; of long ones fewer, by the length of those before."""
    size = min(rows, 64)
    while chunk := list(itertools.islice(lines, size)):
        yield chunk
        letters = sum(len(line) if isinstance(line, str) else sum(map(len, line)) for line in chunk)
        size = min(rows, 8 * size, max(1, memory.PIECE * len(chunk) // max(letters, 1)))


def jsonl_names(stream: IO[str], path: str) -> list[str]:
    start = stream.read(1 << 12)
    check_utf8(start[:2], path)
    if start.lstrip().startswith("["):
        raise DataError(
            f"{path}: must be JSON Lines, one object a line. Got a JSON array. "
            f"Convert it: jq -c '.[]' {Path(path).name} > table.jsonl"
        )
    stream.seek(0)
    rows = [row for row in map(_json, itertools.islice(stream, 2_000)) if isinstance(row, dict)]
    if not any(rows):
        raise DataError(f"{path}: must be JSON Lines, one object a line. Got no object in its first lines.")
    return list(dict.fromkeys(name for row in rows for name in row))


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def read_jsonl(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    known = set(columns)
    with text_of(part) as stream:
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
            yield raw_batch(ids, keep, (cells([value.get(name) for value in good]) for name in keep), bad)


def is_squad(part: Part) -> bool:
    """Whether a JSON file is nested as SQuAD's are."""
    with readable(part), text_of(part) as stream:
        return looks_like_squad(stream.read(1 << 14))


def read_squad(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    with text_of(part) as stream:
        numbered = enumerate(squad_rows(stream, part.path), start)
        while chunk := list(itertools.islice(numbered, rows)):
            good = [(number, row) for number, row in chunk if isinstance(row, dict)]
            bad = [Rejected(number, "", row, "") for number, row in chunk if isinstance(row, str)]
            yield raw_batch([n for n, _ in good], keep, (strings([row[name] for _, row in good]) for name in keep), bad)


def read_text(part: Part, keep: list[str], columns: Iterable[str], start: int, rows: int) -> Iterator[RawBatch]:
    """Pieces of a plain text, cut where a line ends if one does: joined they are the file."""
    with text_of(part) as stream:
        pieces = _pieces(stream, min(_PIECE, max(256, part.size // 64)))
        while chunk := list(itertools.islice(pieces, min(rows, 64))):
            ids = count(start, len(chunk))
            row = {"text": strings(chunk), "file": pa.array([part.path] * len(chunk)), "place": pa.array(ids)}
            yield raw_batch(ids, keep, (row[name] for name in keep))
            start += len(chunk)


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
    return strings([_cell(value) for value in values])


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)
