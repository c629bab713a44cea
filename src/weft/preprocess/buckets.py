"""Records dealt by a key into files, so that those of one key are met together and few are held at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HELD = 1 << 26
"""Bytes of records that are held; more are dealt into files."""
FILES = 256


class Buckets:
    """Records with a field ``key`` of 64 bits that look random. Iterating gives all of them once, those of one key in
    one array, and removes the files."""

    def __init__(self, folder: Path, dtype: np.dtype):
        self.folder, self.dtype = folder, dtype
        self._held: list[np.ndarray] = []
        self._size = 0
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped

    def add(self, **fields: np.ndarray) -> None:
        """As many records as each field has values; one value stands for all."""
        records = np.empty(len(fields["key"]), self.dtype)
        for name, values in fields.items():
            records[name] = values
        self._held.append(records)
        self._size += records.nbytes
        if self._size > HELD:
            self._deal()

    def _deal(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        records = np.concatenate(self._held)
        self._held, self._size = [], 0
        bucket = (records["key"] >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        ends = np.cumsum(np.bincount(bucket, minlength=FILES)).tolist()
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            with (self.folder / f"{number:03d}").open("ab") as stream:
                stream.write(records[order[start:end]].tobytes())

    def __iter__(self) -> Iterator[np.ndarray]:
        if not self.folder.exists():
            if self._held:
                yield np.concatenate(self._held)
            return
        if self._held:
            self._deal()
        for number in range(FILES):
            yield np.fromfile(self.folder / f"{number:03d}", self.dtype)
            (self.folder / f"{number:03d}").unlink()
        self.folder.rmdir()
