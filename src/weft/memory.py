"""The bound on resident memory: what it is, how it is kept, what was used.

Every step works on pieces of a fixed size, so that a run has the same bits under any bound. What the bound decides is
whether the run can begin, and how many pages of mapped files stay resident: they count like any other memory, and are
let go of when they grow beyond their share (the file stays in the page cache, which the machine takes back when it
needs it).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from weft import processes
from weft.errors import SettingsError, UsageError

PIECE = 1 << 24
"""Bytes of a table that are read at once, or one row."""
GROWN = 1 << 28
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_STATUS = Path("/proc/self/status")
_mapped: weakref.WeakSet[_File] = weakref.WeakSet()
_bound: int | None = None
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
_OPTION = getattr(ctypes.CDLL(None), "mallopt", None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_kept = 0  # bytes of file pages that were resident after the last letting go
_own = 0  # bytes beside them that were held after the last giving back


class _File(mmap.mmap):
    """A mapped file that can be referred to weakly."""


def parse(text: str) -> int:
    """``2GB``, ``900MB`` or ``1.5GiB`` in bytes. Raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B)\s*", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise UsageError(f"--memory: must be a size such as 2GB or 900MB. Got {text!r}.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def limit(most: str | None) -> None:
    """Set the bound, in the words of --memory; None: by the machine."""
    global _bound
    _bound = None if most is None else parse(most)


def bound() -> int:
    """Bytes that may be resident: as set, or four fifths of what the machine or the container has left; of several
    processes on a machine each has its share."""
    here = processes.here()
    return _bound // here if _bound is not None else int(0.8 * (_available() / here + resident()))


def require(more: float, what: str) -> None:
    """Raises SettingsError where ``more`` bytes beside those held now are beyond the bound."""
    let_go()
    need = resident() + more
    if need > bound():
        raise SettingsError(
            [f"memory: {what} needs about {size_in_words(need)}, the bound is {size_in_words(bound())}. Give more "
             f"with --memory, or make the model smaller (model.width, model.layers, training.batch_rows)."]
        )  # fmt: skip


def mapped(path: str | Path) -> memoryview:
    """The bytes of a file, mapped and not read."""
    with Path(path).open("rb") as stream:
        file = _File(stream.fileno(), 0, access=mmap.ACCESS_READ)
    _mapped.add(file)
    return memoryview(file)


def release() -> None:
    """Let go of the pages of mapped files where more than their share of the bound is resident."""
    global _kept
    pages = _file_pages()
    _kept = min(_kept, pages)  # the machine may have taken some of the libraries' pages
    if pages - _kept > bound() // 8:
        let_go()


def let_go() -> None:
    """Let go of all pages of mapped files."""
    global _kept
    for file in list(_mapped):
        file.madvise(mmap.MADV_DONTNEED)
    _kept = _file_pages()


def give_back() -> None:
    """Return to the machine what is free but still held, so that the next step begins from what it needs."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


@cache
def keep_freed() -> None:
    """Let up to 64 MB that were freed stay with the process, as glibc does by itself once a piece of 32 MB was freed:
    what a batch was computed in is there for the next one, and not given back and zeroed again page by page."""
    if _OPTION is not None:
        _OPTION(_M_MMAP_THRESHOLD, 1 << 25)
        _OPTION(_M_TRIM_THRESHOLD, 1 << 26)


def give_back_grown() -> None:
    """:func:`give_back` where this process's own memory grew by ``GROWN`` since: batches of ever other lengths leave
    holes that nothing fills again."""
    global _own
    _own = min(_own, _status("RssAnon"))
    if _status("RssAnon") - _own > GROWN:
        give_back()
        _own = _status("RssAnon")


def resident() -> int:
    """Bytes of this process that are in memory now: its own and those of mapped files."""
    return _status("VmRSS")


@dataclass(frozen=True)
class Used:
    """What a step took: seconds, those of processors, the most that was resident (bytes, mapped files included), bytes
    written."""

    seconds: float
    cpu: float
    peak: int
    written: int

    def of(self, rows: int) -> dict[str, float]:
        """As ``report.json`` has it, for a step that saw so many rows."""
        return {
            "seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu, 2),
            "peak_memory": self.peak, "rows": rows,
            "rows_a_second": round(rows / max(self.seconds, 1e-9)), "written": self.written,
        }  # fmt: skip


def cpu_seconds() -> float:
    """Of processors, by this process and the children that it waited for."""
    return sum(os.times()[:4])


@contextmanager
def measured(found: list[Used]) -> Iterator[None]:
    """Append to ``found`` what the block used. Outside Linux the peak is that of the whole process."""
    started, cpu, before = time.monotonic(), cpu_seconds(), _written()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    yield
    found.append(Used(time.monotonic() - started, cpu_seconds() - cpu, _status("VmHWM"), _written() - before))


def used_in_words(used: dict[str, float]) -> str:
    """``12.0 s, 812 MB at most, 58,000 rows a second, 3.1 GB written``."""
    rows = [f"{used['rows_a_second']:,} rows a second"] if used["rows"] else []
    written = [f"{size_in_words(used['written'])} written"] if used["written"] > 10**6 else []
    return ", ".join([f"{used['seconds']:.1f} s", f"{size_in_words(used['peak_memory'])} at most", *rows, *written])


def size_in_words(count: float) -> str:
    """``1.5 GB``."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit != "GB" else f"{count:.1f} GB"
        count /= 1000
    return f"{count:.1f} TB"


def _available() -> int:
    free = _line(Path("/proc/meminfo"), "MemAvailable")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for most, now in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(most).read_text()) - int(Path(now).read_text()))
        except (OSError, ValueError):  # no container, or no limit ("max")
            continue
    return max(free, 0)


def _file_pages() -> int:
    return _status("RssFile")


def _status(name: str) -> int:
    return _line(_STATUS, name) or 0


def _line(path: Path, name: str) -> int | None:
    try:
        with path.open("rb") as stream:
            found = re.search(name.encode() + rb":\s+(\d+) kB", stream.read())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _written() -> int:
    """Bytes that the process wrote."""
    try:
        found = re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def as_array(path: Path, dtype: np.dtype) -> np.ndarray:
    """The numbers of a file, mapped and not read."""
    whole = path.stat().st_size // max(1, dtype.itemsize)
    return np.frombuffer(mapped(path), dtype) if whole else np.zeros(0, dtype)
