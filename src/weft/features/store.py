"""Encoded rows on disk: one file a field, memory-mapped, so that any rows can be taken at any time.

The codes of a column and field are fixed-width (``array[row]``, a number or a row of them) or ragged
(``values[offsets[row]:...]``).
The target is stored like a column, under the name ``TARGET``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from weft.features.codecs import RAGGED, Codes, Ragged

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
                    self._files[key][0].write(np.ascontiguousarray(array.values))
                    self._files[key][1].write((array.offsets[1:] + self._ends[key]).astype(np.int64).data)
                    self._ends[key] += int(array.offsets[-1])
                else:
                    self._files[key][0].write(np.ascontiguousarray(array))
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
            files[1].write(np.zeros(1, np.int64).data)
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
            array: np.ndarray | Ragged = _mapped(folder / f"{entry['file']}.bin", np.dtype(entry["dtype"]))
            assert isinstance(array, np.ndarray)
            array = array.reshape(-1, *entry["shape"])
            if entry["ragged"]:
                array = Ragged(array, _mapped(folder / f"{entry['file']}.offsets", np.dtype(np.int64)))
            self._fields.setdefault(entry["column"], {})[entry["field"]] = array

    def take(self, rows: np.ndarray) -> RowCodes:
        """Codes of the rows, in the order asked."""
        return {
            column: {name: take(array, rows) for name, array in fields.items()}
            for column, fields in self._fields.items()
        }

    def target(self, rows: np.ndarray) -> np.ndarray:
        values = self._fields[TARGET]["value"]
        assert isinstance(values, np.ndarray)
        return np.asarray(values[rows])

    def field(self, column: str, name: str) -> np.ndarray | Ragged:
        """The codes of all rows, mapped and not read."""
        return self._fields[column][name]

    def fixed_tokens(self) -> int:
        """What every row costs in tokens beside its texts."""
        return fixed_tokens(self._fields)

    def lengths(self) -> np.ndarray | None:
        """Tokens of each row beyond one a column; None where every row is of one length."""
        return lengths(self._fields)


def lengths(codes: RowCodes) -> np.ndarray | None:
    """Tokens of each row that its texts and histories add, over all columns; None where there are none."""
    ragged = [
        a.lengths()
        for fields in codes.values()
        for n, a in fields.items()
        if n in RAGGED.values() and isinstance(a, Ragged)
    ]
    return np.sum(ragged, axis=0) if ragged else None


def fixed_tokens(codes: RowCodes) -> int:
    """What every row costs beside its texts, in tokens: one a column and one more; the stem of a picture costs as much
    as a token an eighth of its pixels."""
    pictures = [f["pixels"] for f in codes.values() if "pixels" in f]
    return 1 + len(codes) + sum(int(np.prod(a.shape[2:])) // 8 for a in pictures if isinstance(a, np.ndarray))


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def take(array: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """The codes of some rows, in the order asked; reads nothing else of a mapped file."""
    if not isinstance(array, Ragged):
        return np.asarray(array[rows])
    starts, lengths = array.offsets[rows], array.offsets[rows + 1] - array.offsets[rows]
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    places = np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])
    return Ragged(np.asarray(array.values[places]), bounds)
