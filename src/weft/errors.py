"""Every error a user can meet, drawn as one tree.

A message says *where*, *what must hold*, *what came* and *what to do*:
``weft.yaml:7:10: 'numeric' is not a column type. Did you mean 'number'?``

    WeftError (a ValueError)
    ├── UsageError        a command or a call was made wrongly
    ├── SettingsError     the pipeline file; holds every problem at once
    ├── DataError         a table, a column or a value
    │   └── TooManyBadRows
    ├── RunError          a run folder: missing, damaged, of another version
    │   └── CheckpointError
    └── TrainingError     the optimisation itself, e.g. a loss that is not finite
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence


class WeftError(ValueError):
    """Base of every error that Weft raises on purpose."""


class UsageError(WeftError):
    """A command or a function was called in a way that cannot work."""


class SettingsError(WeftError):
    """The pipeline settings are wrong. ``problems`` lists all of them, in the order of the file."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)


class DataError(WeftError):
    """A table cannot be read, or a column does not hold what it must."""


class TooManyBadRows(DataError):
    """More rows were set aside than ``data.max_rejected`` allows."""


class RunError(WeftError):
    """A run folder is missing, damaged, or does not fit what is asked of it."""


class CheckpointError(RunError):
    """The weights or the training state in a folder cannot be used."""


class TrainingError(WeftError):
    """Training cannot go on."""


def in_words(error: OSError) -> str:
    """What the system refused, where, and what to do."""
    where = str(error.filename or "the disk")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = "must have room. It is full. Free some, or write elsewhere"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "must be allowed to be read and written. It is not. Change its permissions, or choose another place"
    elif error.errno == errno.ENOENT:
        what = "must stay where it is. It is gone. Put it back"
    else:
        return f"{where}: {error.strerror or error}."
    return f"{where}: {what}. What was whole before is as it was; the same command tries again."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest of ``known``, or an empty string."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def listing(words: Iterable[object], most: int = 8) -> str:
    """``'a', 'b' and 3 more``: a list short enough for an error message."""
    items = [f"'{w}'" for w in words]
    if len(items) > most:
        return ", ".join(items[:most]) + f" and {len(items) - most} more"
    return ", ".join(items) if items else "none"
