"""Cells to typed values, one record batch at a time; the same at training and at prediction.

    number    float64, null where missing
    category  string, null where missing
    text      string, null where missing
    dialogue  string, a JSON list of messages; their contents are as documents
    document  string with its spaces and line ends as they are, null where there is no letter
    verbatim  string as it came, letter for letter, null where there is none
    time      float64 seconds since 1970 UTC, null where missing
    labels    list of strings, null where missing (an empty list is a value: no label)
    image     pixels (weft.preprocess.pictures), null where there is no picture
    sequence  list of {item string, time float64, rating float64}, null where missing (an empty list is a value)

A cell that cannot be read sets its whole row aside with the reason; a missing value never does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.columns import parse_number, parse_time, says_missing
from weft.data.dialogues import Message, dump_dialogue, parse_dialogue
from weft.data.histories import HISTORY
from weft.data.labels import parse_labels
from weft.data.pictures import PicturePlan
from weft.data.table import BATCH_ROWS, RawBatch, Rejected
from weft.errors import DataError
from weft.preprocess import pictures
from weft.preprocess.histories import read_histories
from weft.preprocess.letters import Letters
from weft.preprocess.pictures import read_pictures

_BOOLEANS = pa.array(["True", "TRUE", "False", "FALSE"])
_TYPES = {
    "number": pa.float64(), "time": pa.float64(), "labels": pa.list_(pa.string()), "image": pictures.TYPE,
    "sequence": HISTORY,
}  # fmt: skip
PICTURES_AT_ONCE = 512
MISSING_TARGET = "the target is missing"


Noticed = tuple[Counter[str], Counter[tuple[str, str]]]


@dataclass(frozen=True)
class ColumnPlan:
    """How one column is read: its type; for times in text their format (``iso`` or strptime), for labels and histories
    in text what stands between them (None: they are lists or JSON arrays), for pictures their size and range."""

    type: str
    time_format: str | None = None
    separator: str | None = None
    picture: PicturePlan | None = None


@dataclass
class CleanBatch:
    """Rows (numbers in the table) with typed columns, and the rows set aside."""

    rows: np.ndarray
    columns: dict[str, pa.Array]
    rejected: list[Rejected]

    def chosen(self, mask: np.ndarray) -> CleanBatch:
        """Some of the rows."""
        columns = {name: array.filter(pa.array(mask)) for name, array in self.columns.items()}
        return CleanBatch(self.rows[mask], columns, self.rejected)

    def without(self, bad: Mapping[int, Rejected]) -> CleanBatch:
        """The rows but some, by their places, which are set aside too."""
        if not bad:
            return self
        keep = np.ones(len(self.rows), bool)
        keep[list(bad)] = False
        found = self.chosen(keep)
        return CleanBatch(found.rows, found.columns, [*self.rejected, *bad.values()])


class Cleaner:
    """Applies the plan of each column. ``target`` names a column whose missing values set the row aside."""

    def __init__(self, plans: Mapping[str, ColumnPlan], letters: Letters | None = None, target: str | None = None):
        self.plans = dict(plans)
        self.letters = letters or Letters()
        self.target = target
        self.noticed: Counter[str] = Counter()
        """What was read otherwise than it came, and how often."""

    def told(self) -> Noticed:
        """What was read otherwise than it came, and the personal data replaced, since the last call."""
        found = Counter() if self.letters.redact is None else self.letters.redact.found
        told = self.noticed.copy(), found.copy()
        self.noticed.clear()
        found.clear()
        return told

    def notice(self, told: Noticed) -> None:
        """Count what this or another cleaner told."""
        self.noticed.update(told[0])
        if self.letters.redact is not None:
            self.letters.redact.found.update(told[1])

    @property
    def batch_rows(self) -> int:
        """Rows to clean at once, so that what they become fits in memory."""
        return PICTURES_AT_ONCE if any(p.type == "image" for p in self.plans.values()) else BATCH_ROWS

    def __call__(self, raw: RawBatch) -> CleanBatch:
        columns: dict[str, pa.Array] = {}
        reasons: dict[int, Rejected] = {}
        for name, plan in self.plans.items():
            array = raw.batch.column(raw.batch.schema.get_field_index(name))
            columns[name], bad = self._read(name, array, plan, raw.folder)
            for place, (reason, text) in bad.items():
                if place not in reasons:
                    reasons[place] = Rejected(int(raw.rows[place]), name, *self.letters.quoted(reason, text))
        if self.target is not None:
            for row in np.flatnonzero(columns[self.target].is_null().to_numpy(zero_copy_only=False)).tolist():
                reasons.setdefault(row, Rejected(int(raw.rows[row]), self.target, MISSING_TARGET, ""))
        lines = []
        for bad_line in raw.rejected:
            reason, text = self.letters.quoted(bad_line.reason, bad_line.text)
            lines.append(replace(bad_line, reason=reason, text=text))
        return CleanBatch(raw.rows, columns, lines).without(reasons)

    def _read(
        self, name: str, array: pa.Array, plan: ColumnPlan, folder: Path | None
    ) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
        if pa.types.is_null(array.type):
            return pa.nulls(len(array), _TYPES.get(plan.type, pa.string())), {}
        if plan.type == "image":
            seen: Counter[str] = Counter()
            found = read_pictures(array, plan.picture or PicturePlan(), folder, seen)
            self.noticed.update({f"{name}: {what}": count for what, count in seen.items()})
            return found
        array, bad = _decoded(array)
        if plan.type == "labels":
            values, wrong = self._labels(name, array, plan.separator)
        elif plan.type == "sequence":
            values, wrong = read_histories(
                array, plan.separator, lambda ids: _one_word(self._strings(name, ids)), _moments, _numbers
            )
        elif plan.type == "number":
            values, wrong = _numbers(array)
        elif plan.type == "time":
            values, wrong = _times(name, array, plan.time_format)
        elif plan.type == "dialogue":
            values, wrong = self._dialogues(name, array)
        elif plan.type == "document":
            lines = pc.replace_substring(array, pattern="\r\n", replacement="\n")
            values, wrong = _null_where_empty(self.letters(lines, name)), {}
        elif plan.type == "verbatim":
            values, wrong = _null_where_empty(self.letters(array, name)), {}
        elif plan.type == "category":  # each different word once
            words = array.dictionary_encode()
            times = Counter(words.indices.to_pylist()) if self.letters.redact else None
            values, wrong = _one_word(self._strings(name, words.dictionary, times)).take(words.indices), {}
        else:
            values, wrong = self._strings(name, array), {}
        return values, bad | wrong

    def _labels(self, name: str, array: pa.Array, separator: str | None) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
        cells: list[list[str] | None] = []
        bad: dict[int, tuple[str, str]] = {}
        for place, cell in enumerate(array.to_pylist()):
            missing = cell is None or (isinstance(cell, str) and not cell.strip())
            labels = None if missing else parse_labels(cell, separator)
            if labels is None and not missing:
                bad[place] = (f"must be a list of labels, is {str(cell)[:60]!r}", str(cell))
            cells.append(labels)
        flat = pa.array([label for labels in cells for label in labels or ()], pa.string())
        words = iter(_one_word(self._strings(name, flat)).to_pylist())
        found = [None if c is None else [w for w in itertools.islice(words, len(c)) if w is not None] for c in cells]
        return pa.array([None if c is None else list(dict.fromkeys(c)) for c in found], _TYPES["labels"]), bad

    def _strings(self, name: str, array: pa.Array, times: Mapping[int, int] | None = None) -> pa.Array:
        if pa.types.is_boolean(array.type):
            array = pc.if_else(array, "true", "false")
        elif pa.types.is_floating(array.type):
            array = pa.array([_plain_number(v) for v in array.to_pylist()], pa.string())
        elif not pa.types.is_string(array.type):
            array = pc.cast(array, pa.string())
        array = pc.utf8_trim_whitespace(self.letters(array, name, times))
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)

    def _dialogues(self, name: str, array: pa.Array) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
        cells: list[list[Message] | None] = []
        bad: dict[int, tuple[str, str]] = {}
        for place, cell in enumerate(array.to_pylist()):
            missing = not cell or (isinstance(cell, str) and not cell.strip())
            try:
                cells.append(None if missing else parse_dialogue(cell))
            except ValueError as error:
                cells.append(None)
                bad[place] = (str(error), cell if isinstance(cell, str) else repr(cell))
        flat = pa.array([m["content"] for messages in cells for m in messages or ()], pa.string())
        flat = pc.replace_substring(flat, pattern="\r\n", replacement="\n")
        said = iter(self.letters(flat, name).to_pylist())
        clean = [None if c is None else dump_dialogue([{**m, "content": next(said)} for m in c]) for c in cells]
        return pa.array(clean, pa.string()), bad

    def to_dict(self) -> dict:
        return {
            "plans": {name: asdict(plan) for name, plan in self.plans.items()},
            **self.letters.to_dict(),
            "target": self.target,
        }

    @classmethod
    def from_dict(cls, stored: Mapping) -> Cleaner:
        plans = {name: ColumnPlan(**plan) for name, plan in stored["plans"].items()}
        for name, plan in plans.items():
            if isinstance(plan.picture, dict):  # as it comes back from JSON
                plans[name] = replace(plan, picture=PicturePlan(**plan.picture))
        return cls(plans, Letters.from_dict(stored), stored["target"])


def _null_where_empty(array: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(array), ""), pa.scalar(None, pa.string()), array)


def _one_word(values: pa.Array) -> pa.Array:
    """A category as it is written in every format: true is True and TRUE, 1 is 1.0."""
    values = pc.if_else(pc.is_in(values, _BOOLEANS), pc.utf8_lower(values), values)
    return pc.replace_substring_regex(values, pattern=r"^(-?\d{1,15})\.0+$", replacement=r"\1")


def _plain_number(value: float | None) -> str | None:
    """1.0 and 1 are one category."""
    if value is None or value != value:
        return None
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _decoded(array: pa.Array) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    """Strings that are valid UTF-8; cells that are not become missing and are named."""
    if pa.types.is_string(array.type):
        try:
            array.validate(full=True)
            return array, {}
        except pa.ArrowInvalid:
            array = array.cast(pa.binary())
    if not pa.types.is_binary(array.type):
        return array, {}
    values: list[str | None] = []
    bad: dict[int, tuple[str, str]] = {}
    for place, cell in enumerate(array.to_pylist()):
        try:
            values.append(None if cell is None else cell.decode("utf-8"))
        except UnicodeDecodeError as error:
            values.append(None)
            reason = f"must be UTF-8, has byte 0x{cell[error.start]:02x} at {error.start}"
            bad[place] = (reason, cell.decode("utf-8", "backslashreplace"))
    return pa.array(values, pa.string()), bad


def _numbers(array: pa.Array) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    bad: dict[int, tuple[str, str]] = {}
    if pa.types.is_string(array.type):
        try:
            values = pc.cast(pc.utf8_trim_whitespace(array), pa.float64())
        except pa.ArrowInvalid:
            values, bad = _parsed(array, parse_number, "must be a number")
    elif pa.types.is_duration(array.type):
        values = pc.divide(pc.cast(pc.cast(array, pa.duration("us"), safe=False), pa.int64()).cast(pa.float64()), 1e6)
    elif pa.types.is_temporal(array.type):
        values, bad = _times("", array, None)
    else:
        values = pc.cast(array, pa.float64(), safe=False)
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    for place in np.flatnonzero(np.isinf(numbers)):
        bad[int(place)] = ("must be a finite number", str(numbers[place]))
    return pa.array(numbers, from_pandas=True, type=pa.float64()), bad


def _moments(array: pa.Array) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    """Times of events: as they are stored, or texts that are numbers or ISO."""
    if pa.types.is_string(array.type):
        try:
            return pc.cast(array, pa.float64()), {}
        except pa.ArrowInvalid:
            return _times("", array, "iso")
    return _times("", array, None)


def _times(name: str, array: pa.Array, pattern: str | None) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = pc.cast(pc.cast(array, pa.timestamp("us", getattr(kind, "tz", None)), safe=False), pa.int64())
        return pc.divide(micro.cast(pa.float64(), safe=False), 1e6), {}
    if pa.types.is_time(kind):
        return pc.divide(pc.cast(pc.cast(array, pa.time64("us"), safe=False), pa.int64()).cast(pa.float64()), 1e6), {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers(array)  # seconds since 1970
    if pattern is None:
        raise DataError(
            f"{name}: a time column must hold timestamps, dates or texts in one known format such as "
            f"2026-11-21 or 2026-11-21T08:30. Got {kind} in none. Use type text or category."
        )
    return _parsed(array, lambda text: parse_time(text, pattern), f"must be a time like the others ({pattern})")


def _parsed(
    array: pa.Array, parse: Callable[[str], float | None], reason: str
) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    """Text cells through ``parse``; words for missing become missing, the rest is named as bad."""
    values: list[float | None] = []
    bad: dict[int, tuple[str, str]] = {}
    for place, cell in enumerate(array.to_pylist()):
        value = None
        if cell is not None and not says_missing(cell):
            value = parse(cell)
            if value is None:
                bad[place] = (f"{reason}, is {cell[:60]!r}", cell)
        values.append(value)
    return pa.array(values, pa.float64()), bad
