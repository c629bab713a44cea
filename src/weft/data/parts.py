"""The parts of a table and the raw rows that come of them: what all formats share."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from weft import memory
from weft.errors import DataError, listing

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


@contextmanager
def readable(part: Part) -> Iterator[None]:
    """Whatever the libraries raise on a damaged file, in Weft's words."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
        what = f"{part.path}: must be a readable {part.format} file. Got: {said(error)}. Write it again."
        raise DataError(what) from None


def said(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def check_names(names: Sequence[str], where: str) -> None:
    if not names:
        raise DataError(f"{where}: a table must have at least one column. Got none.")
    if any(not_utf8(name) for name in names):
        raise DataError(f"{where}: column names must be UTF-8 text without NUL. {_ICONV.format(path=where)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: column names must differ. Got {listing(twice)} more than once. Rename them.")
    if any(not name.strip() for name in names):
        place = [i + 1 for i, name in enumerate(names) if not name.strip()]
        raise DataError(f"{where}: every column must have a name. Column {place[0]} has none. Name it.")


def not_utf8(text: str) -> bool:
    return "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)


def check_utf8(beginning: str, path: str, what: str = "must be UTF-8 text") -> None:
    if not_utf8(beginning):
        raise DataError(f"{path}: {what}. {_ICONV.format(path=path)}")


def is_local(filesystem: Any) -> bool:
    """Whether its files are on this machine."""
    return getattr(filesystem, "protocol", None) in ("file", ("file", "local"))


def binary(part: Part) -> Any:
    if is_local(part.filesystem):
        return pa.BufferReader(pa.py_buffer(memory.mapped(part.path)))
    return part.filesystem.open(part.path, "rb")


def text_of(part: Part) -> IO[str]:
    """Text of a file; bytes that are not UTF-8 become lone surrogates and are found by the cleaner."""
    return part.filesystem.open(
        part.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="", compression="infer"
    )


def strings(cells: Sequence[str | None]) -> pa.Array:
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


def raw_batch(
    ids: np.ndarray | Sequence[int], names: list[str], arrays: Iterable[pa.Array], bad: Sequence[Rejected] = ()
) -> RawBatch:
    batch = pa.RecordBatch.from_arrays(list(arrays), names=names)
    return RawBatch(np.asarray(ids, dtype=np.int64), batch, list(bad))


def count(start: int, rows: int) -> np.ndarray:
    return np.arange(start, start + rows, dtype=np.int64)
