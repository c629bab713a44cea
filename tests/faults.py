"""A disk that is full, or a machine that loses its power, at the k-th write, flush or rename.

It stands where Python meets the system; what Arrow's and safetensors' own code writes goes through Python here too, or
is counted as one write.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch


class PowerCut(BaseException):
    """The machine stops here; nothing after it is done."""


class Disk:
    """Counts what is asked of it; number ``at`` fails: half of a write is done, of a flush or a rename nothing."""

    def __init__(self, at: int, power: bool):
        self.at, self.power, self.count, self.dead = at, power, 0, False
        self.unflushed: set[int] = set()
        """Files (inodes) whose last bytes may not be on the disk, and folders whose names may not."""
        self.safe: dict[int, int] = {}
        """Bytes of files that are."""

    @property
    def failed(self) -> bool:
        return self.count >= self.at

    def ask(self, do: Callable[[], Any], half: Callable[[], Any] = lambda: None) -> Any:
        if self.dead:
            raise PowerCut
        self.count += 1
        if self.count != self.at:
            return do()
        half()
        self.dead = self.power
        raise PowerCut if self.power else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose(self, folder: Path) -> None:
        """What was not flushed is half gone."""
        for path in folder.rglob("*"):
            facts = path.stat()
            if path.is_file() and facts.st_ino in self.unflushed:
                os.truncate(path, (self.safe.get(facts.st_ino, 0) + facts.st_size) // 2)


class _Stream:
    """An open file whose writes are asked of the disk."""

    def __init__(self, stream: Any, disk: Disk):
        self._stream, self._disk = stream, disk
        facts = os.fstat(stream.fileno())
        disk.unflushed.add(facts.st_ino)
        disk.safe[facts.st_ino] = min(facts.st_size, disk.safe.get(facts.st_ino, facts.st_size))

    def write(self, data: Any) -> int:
        half = data if isinstance(data, str) else memoryview(data).cast("B")
        half = half[: len(half) // 2]
        found = self._disk.ask(lambda: self._stream.write(data), lambda: (self._stream.write(half), self.flush()))
        self._disk.unflushed.add(os.fstat(self._stream.fileno()).st_ino)
        return found

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stream.close()


@contextlib.contextmanager
def failing(at: int, power: bool = False) -> Iterator[Disk]:
    """While open, the disk fails once, at what it is asked ``at``-th (from 1); with ``power`` for good."""
    disk = Disk(at, power)
    opened, flushed, serialized = io.open, os.fsync, safetensors.torch.serialize_file

    def open_(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        stream = opened(file, mode, *more, **named)
        writes = set(mode) & set("wax+") and not isinstance(file, int) and "tfevents" not in str(file)
        return _Stream(stream, disk) if writes else stream

    def fsync(handle: int) -> None:
        disk.ask(lambda: flushed(handle))
        facts = os.fstat(handle)
        disk.unflushed.discard(facts.st_ino)
        disk.safe[facts.st_ino] = facts.st_size

    def moving(plain: Callable[..., None]) -> Callable[..., None]:
        def move(source: Any, target: Any, **named: Any) -> None:
            disk.ask(lambda: plain(source, target, **named))
            disk.unflushed.add(Path(target).absolute().parent.stat().st_ino)

        return move

    def serialize(tensors: Any, file: Any, metadata: Any = None) -> None:
        def half() -> None:
            serialized(tensors, file, metadata)
            os.truncate(file, Path(file).stat().st_size // 2)

        disk.ask(lambda: serialized(tensors, file, metadata), half)
        disk.unflushed.add(Path(file).stat().st_ino)

    def dying(plain: Callable[..., Any]) -> Callable[..., Any]:
        def do(*given: Any, **named: Any) -> Any:
            if disk.dead:
                raise PowerCut
            return plain(*given, **named)

        return do

    patches = {
        (io, "open"): open_, (os, "fsync"): fsync, (safetensors.torch, "serialize_file"): serialize,
        (os, "replace"): moving(os.replace), (os, "rename"): moving(os.rename), (os, "unlink"): dying(os.unlink),
        (os, "rmdir"): dying(os.rmdir), (shutil, "rmtree"): dying(shutil.rmtree),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for (owner, name), fake in patches.items():
            stack.enter_context(mock.patch.object(owner, name, fake))
        yield disk


def tried(act: Callable[[], Any], at: int, power: bool, folder: Path) -> bool:
    """Whether ``act`` met the fault; in a power cut what was not flushed is then lost."""
    with failing(at, power) as disk:
        try:
            act()
        except (OSError, PowerCut) as error:
            assert disk.failed, error
    if disk.failed and power:
        disk.lose(folder)
    if not disk.failed:
        assert not disk.unflushed & _named(folder), "what has its name must be on the disk, and the name too"
    return disk.failed


def _named(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in [folder, *folder.rglob("*")] if not path.name.startswith("events.out")}
