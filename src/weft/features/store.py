"""Encoded rows on disk, memory-mapped, so that any rows can be taken at any time.

The codes of a column and field are fixed-width (a number a row, or a row of them) or ragged
(``values[offsets[row]:...]``). All that are fixed-width lie side by side in one record a row, so that a row is found at
one place of the disk; the values and offsets of each ragged field have files of their own. The target is stored like a
column, under the name ``TARGET``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from weft import memory
from weft.features.codecs import RAGGED, Codes
from weft.features.ragged import Ragged, joined

RECORDS = "records.bin"
AT_ONCE = 64
"""Rows of a large store: each may make as much of a mapped file resident as the kernel maps at once, up to 2 MB."""
TARGET = ""  # no column of a table has an empty name
RowCodes = dict[str, Codes]


class StoreWriter:
    """Appends encoded batches, all of the same fields. ``close`` writes the index, without which there is no store."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Any] = {}
        self._index: list[dict[str, Any]] = []
        self._record: np.dtype | None = None
        self._ends: dict[str, int] = {}
        self.rows = 0

    def append(self, codes: RowCodes, rows: int) -> None:
        """Raises OSError, with every file closed, where the disk takes no more."""
        try:
            self._append(codes, rows)
        except BaseException:
            for stream in self._files.values():
                with suppress(OSError):
                    stream.close()
            raise

    def _append(self, codes: RowCodes, rows: int) -> None:
        if self._record is None:
            self._record = self._open(codes)
        record = np.zeros(rows, self._record)
        for entry in self._index:
            array, name = codes[entry["column"]][entry["field"]], entry["file"]
            if isinstance(array, Ragged):
                self._files[f"{name}.bin"].write(np.ascontiguousarray(array.values))
                self._files[f"{name}.offsets"].write((array.offsets[1:] + self._ends[name]).astype(np.int64))
                self._ends[name] += int(array.offsets[-1])
            else:
                record[name] = array
        if record.dtype.itemsize:
            self._files[RECORDS].write(record.data.cast("B") if len(record) else b"")
        self.rows += rows

    def _open(self, codes: RowCodes) -> np.dtype:
        """Open the files for the fields; the type of a record."""
        fixed = []
        for column, fields in codes.items():
            for field, array in fields.items():
                name, ragged = f"{len(self._index):04d}", isinstance(array, Ragged)
                kind = array.values.dtype if isinstance(array, Ragged) else array.dtype
                shape = [] if isinstance(array, Ragged) else list(array.shape[1:])
                entry = {"file": name, "dtype": kind.str, "ragged": ragged, "shape": shape}
                self._index.append({"column": column, "field": field, **entry})
                if ragged:
                    for part in (f"{name}.bin", f"{name}.offsets"):
                        self._files[part] = (self.folder / part).open("wb")
                    self._files[f"{name}.offsets"].write(np.zeros(1, np.int64).data)
                    self._ends[name] = 0
                else:
                    fixed.append((name, kind.str, tuple(shape)))
        self._files[RECORDS] = (self.folder / RECORDS).open("wb")
        return np.dtype(fixed, align=True)

    def close(self) -> Store:
        for stream in self._files.values():
            stream.close()
        (self.folder / "index.json").write_text(json.dumps({"rows": self.rows, "fields": self._index}))
        return Store(self.folder)


class Store:
    """Takes any rows of an encoded table without reading the others."""

    def __init__(self, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        self.rows: int = index["rows"]
        self._fields: RowCodes = {}
        fixed = [(e["file"], e["dtype"], tuple(e["shape"])) for e in index["fields"] if not e["ragged"]]
        self._records = memory.as_array(folder / RECORDS, np.dtype(fixed, align=True)) if fixed else np.zeros(0)
        self._size = sum(file.stat().st_size for file in folder.iterdir())
        self._names = {(e["column"], e["field"]): e["file"] for e in index["fields"]}
        for entry in index["fields"]:
            name = entry["file"]
            array: np.ndarray | Ragged
            if entry["ragged"]:
                values = memory.as_array(folder / f"{name}.bin", np.dtype(entry["dtype"]))
                array = Ragged(values, memory.as_array(folder / f"{name}.offsets", np.dtype(np.int64)))
            else:
                array = self._records[name]
            self._fields.setdefault(entry["column"], {})[entry["field"]] = array

    def take(self, rows: np.ndarray) -> RowCodes:
        """Codes of the rows, in the order asked."""
        if self._size < memory.bound() // 8 or len(rows) <= AT_ONCE:
            return self._take(rows)
        pieces = [self._take(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
        return {c: {n: _joined([p[c][n] for p in pieces]) for n in fields} for c, fields in self._fields.items()}

    def _take(self, rows: np.ndarray) -> RowCodes:
        memory.release()
        record, found = self._records[rows] if len(self._records) else self._records, {}
        for column, fields in self._fields.items():
            found[column] = {
                n: _released(array).take(rows) if isinstance(array, Ragged) else record[self._names[column, n]]
                for n, array in fields.items()
            }
        return found

    def target(self, rows: np.ndarray) -> np.ndarray:
        values = self._fields[TARGET]["value"]
        found = np.empty((len(rows), *values.shape[1:]), values.dtype)
        step = 16 * AT_ONCE
        for start in range(0, len(rows), step):
            memory.release()
            found[start : start + step] = values[rows[start : start + step]]
        return found

    def field(self, column: str, name: str) -> Any:
        """The codes of all rows, mapped and not read."""
        return self._fields[column][name]

    def fixed_tokens(self) -> int:
        """What every row costs in tokens beside its texts."""
        return fixed_tokens(self._fields)

    def lengths(self) -> Lengths | None:
        """Tokens of each row beyond one a column; None where every row is of one length."""
        texts = _counted(self._fields)
        return Lengths(texts) if texts else None


def _released(mapped: Ragged) -> Ragged:
    """A mapped field, with room in memory for what is read of it."""
    memory.release()
    return mapped


def _joined(pieces: list[Any]) -> np.ndarray | Ragged:
    return joined(pieces) if isinstance(pieces[0], Ragged) else np.concatenate(pieces)


class Lengths:
    """Tokens that the texts and histories of some rows have, counted when asked for."""

    def __init__(self, texts: Sequence[Ragged]):
        self._texts = texts

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        memory.release()
        return np.sum([t.offsets[rows + 1] - t.offsets[rows] for t in self._texts], axis=0)


def lengths(codes: RowCodes) -> np.ndarray | None:
    """Tokens of each row that its texts and histories add, over all columns; None where there are none."""
    counted = [array.lengths() for array in _counted(codes)]
    return np.sum(counted, axis=0) if counted else None


def _counted(codes: RowCodes) -> list[Ragged]:
    """The fields that say how many tokens a row has."""
    return [array for fields in codes.values() for name, array in fields.items() if name in RAGGED.values()]


def fixed_tokens(codes: RowCodes) -> int:
    """What every row costs beside its texts, in tokens: one a column and one more; the stem of a picture costs as much
    as a token an eighth of its pixels."""
    pictures = [fields["pixels"] for fields in codes.values() if "pixels" in fields]
    return 1 + len(codes) + sum(int(np.prod(pixels.shape[2:])) // 8 for pixels in pictures)
