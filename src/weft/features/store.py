"""Encoded rows on disk: one file a field, memory-mapped, so that any rows can be taken at any time.

The codes of a column and field are fixed-width (``array[row]``, a number or a row of them) or ragged
(``values[offsets[row]:...]``).
The target is stored like a column, under the name ``TARGET``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft import memory
from weft.features.codecs import Codes
from weft.features.ragged import Ragged, take

TARGET = ""  # no column of a table has an empty name
RowCodes = dict[str, Codes]


class StoreWriter:
    """Appends encoded batches. ``close`` writes the index, without which the folder is not a store."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[tuple[str, str], Any] = {}
        self._index: dict[tuple[str, str], dict[str, Any]] = {}
        self._ends: dict[tuple[str, str], int] = {}
        self.rows = 0

    def append(self, codes: RowCodes, rows: int) -> None:
        for column, fields in codes.items():
            for name, array in fields.items():
                key = (column, name)
                if key not in self._index:
                    self._open(key, array)
                if isinstance(array, Ragged):
                    array.values.tofile(self._files[key][0])
                    (array.offsets[1:] + self._ends[key]).astype(np.int64).tofile(self._files[key][1])
                    self._ends[key] += int(array.offsets[-1])
                else:
                    np.ascontiguousarray(array).tofile(self._files[key][0])
        self.rows += rows

    def _open(self, key: tuple[str, str], array: np.ndarray | Ragged) -> None:
        stem = f"{len(self._index):04d}"
        ragged = isinstance(array, Ragged)
        dtype = array.values.dtype if isinstance(array, Ragged) else array.dtype
        shape = [] if isinstance(array, Ragged) else list(array.shape[1:])
        self._index[key] = {"file": stem, "dtype": dtype.str, "ragged": ragged, "shape": shape}
        files = [(self.folder / f"{stem}.bin").open("wb")]
        if ragged:
            files.append((self.folder / f"{stem}.offsets").open("wb"))
            np.zeros(1, np.int64).tofile(files[1])
            self._ends[key] = 0
        self._files[key] = files

    def close(self) -> Store:
        for files in self._files.values():
            for stream in files:
                stream.close()
        index = {
            "rows": self.rows,
            "fields": [{"column": c, "field": f, **entry} for (c, f), entry in self._index.items()],
        }
        (self.folder / "index.json").write_text(json.dumps(index))
        return Store(self.folder)


class Store:
    """Takes any rows of an encoded table without reading the others."""

    def __init__(self, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        self.rows: int = index["rows"]
        self._fields: RowCodes = {}
        for entry in index["fields"]:
            array: np.ndarray | Ragged = memory.as_array(folder / f"{entry['file']}.bin", np.dtype(entry["dtype"]))
            assert isinstance(array, np.ndarray)
            array = array.reshape(-1, *entry["shape"])
            if entry["ragged"]:
                array = Ragged(array, memory.as_array(folder / f"{entry['file']}.offsets", np.dtype(np.int64)))
            self._fields.setdefault(entry["column"], {})[entry["field"]] = array

    def take(self, rows: np.ndarray) -> RowCodes:
        """Codes of the rows, in the order asked."""
        memory.release()
        return {
            column: {name: take(array, rows) for name, array in fields.items()}
            for column, fields in self._fields.items()
        }

    def target(self, rows: np.ndarray) -> np.ndarray:
        memory.release()
        values = self._fields[TARGET]["value"]
        assert isinstance(values, np.ndarray)
        return np.asarray(values[rows])

    def field(self, column: str, name: str) -> np.ndarray | Ragged:
        """The codes of all rows, mapped and not read."""
        return self._fields[column][name]

    def lengths(self) -> Lengths | None:
        """Tokens of each row beyond one a column; None where every row is of one length."""
        texts = [a for fields in self._fields.values() for n, a in fields.items() if n == "tokens"]
        return Lengths([a for a in texts if isinstance(a, Ragged)]) if texts else None


class Lengths:
    """Tokens that the texts of some rows have, counted when asked for."""

    def __init__(self, texts: Sequence[Ragged]):
        self._texts = texts

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        memory.release()
        return np.sum([t.offsets[rows + 1] - t.offsets[rows] for t in self._texts], axis=0)


def lengths(codes: RowCodes) -> np.ndarray | None:
    """Tokens of each row that its texts add, over all columns; None where there is no text."""
    ragged = [
        a.lengths() for fields in codes.values() for n, a in fields.items() if n == "tokens" and isinstance(a, Ragged)
    ]
    return np.sum(ragged, axis=0) if ragged else None
