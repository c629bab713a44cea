"""What a column holds: text, number, category, time or image, guessed from a sample of its rows with the reason said.

Also noticed: columns that teach nothing (constant, empty, one value a row like an id) and columns that
give the answer away (equal to the target, or telling it almost alone).
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.histories import looks_like_history
from weft.data.pictures import kind_of, needs_range, pictures_reason, pixel_type

SAMPLE_ROWS = 20_000
MISSING_WORDS = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "--", "missing"))
_ID_NAME = re.compile(
    r"(^|[_\s.-])(id|ids|uuid|guid|key|index|idx|rowid|unnamed: 0)$|^(id|index)_?$|(?-i:[a-z]I[dD]$)|(编号|序号)$",
    re.IGNORECASE,
)
_DATE_LIKE = re.compile(
    r"\s*(\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}.*)?$|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}"
    r"|\d{4}年\d{1,2}月\d{1,2}日|\d{1,2}[ -][A-Za-z]{3}[ -]\d{4}|[A-Za-z]{3} \d{1,2}, \d{4})"
)
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = (
    *(day + clock for day in ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y") for clock in _CLOCKS),
    "%Y年%m月%d日", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y",
)  # fmt: skip
_SIGNS = "$€£¥₹% \u00a0"


@dataclass(frozen=True)
class Guess:
    """``type`` is a column type or ``off``; ``reason`` a sentence for a person."""

    type: str
    reason: str


def guess(name: str, column: pa.Array | pa.ChunkedArray) -> Guess:
    """Guess the type of a column from a sample of it."""
    kind, rows = column.type, len(column)
    present = column.drop_null()
    if pa.types.is_floating(kind):
        present = present.filter(pc.invert(pc.is_nan(present)))
    if len(present) == 0:
        return Guess("off", "every value is missing")
    if looks_like_history(column):
        return Guess("sequence", "every cell is a list of items")
    if not readable(kind):
        return Guess("off", f"holds {kind}, which no column type reads")
    if needs_range(kind):
        return Guess("off", f"holds arrays of {pixel_type(kind)}: for pictures say {{type: image, range: [0, 1]}}")
    if kind_of(kind) is not None and (reason := pictures_reason(present)) is not None:
        return Guess("image", reason)
    if pa.types.is_binary(kind) and not _is_text(present):
        return Guess("off", "holds bytes, which no column type reads")
    if pa.types.is_duration(kind):
        return Guess("number", "is a duration, read in seconds")
    distinct = pc.count_distinct(present).as_py()
    if distinct == 1 and len(present) == rows:
        return Guess("off", f"always holds {_short(present[0].as_py())}")
    if pa.types.is_boolean(kind):
        return Guess("category", "is true or false")
    if pa.types.is_temporal(kind):
        return Guess("time", f"is stored as {kind}")
    if pa.types.is_integer(kind):
        return _guess_integer(name, present, distinct)
    if pa.types.is_floating(kind):
        return Guess("number", f"is stored as {kind}")
    return _guess_text(name, [_as_text(v) for v in present.to_pylist()], distinct)


def readable(kind: pa.DataType) -> bool:
    """Whether any column type reads values of this Arrow type."""
    return kind_of(kind) is not None or not (pa.types.is_nested(kind) or pa.types.is_interval(kind))


def _guess_integer(name: str, present: Any, distinct: int) -> Guess:
    if len(present) >= 20 and distinct == len(present):
        values = present.to_numpy().astype(np.float64)
        counts = np.all(np.diff(values) > 0) and np.mean(np.diff(values[:1_000]) == 1) > 0.99  # of a sample of rows
        if _ID_NAME.search(name) or counts or np.all(np.diff(np.sort(values)) == 1):
            return Guess("off", "is a different whole number in every row, like an id")
    return Guess("number", "is a whole number" if distinct > 2 else f"is a whole number with {distinct} values")


def _guess_text(name: str, values: Sequence[str], distinct: int) -> Guess:
    real = [v for v in values if not says_missing(v)]
    if not real:
        return Guess("off", "every value is missing")
    numbers = [n for n in map(parse_number, real) if n is not None]
    if len(numbers) >= 0.98 * len(real):
        whole = len(numbers) == len(real) and all(float(n).is_integer() for n in numbers)
        share = "every value" if len(numbers) == len(real) else f"{len(numbers) / len(real):.1%} of the values"
        if whole and not any(_has_leading_zero(v) for v in real):
            return Guess(*_renamed(_guess_integer(name, pa.array(numbers), len(set(numbers))), share))
        if not any(_has_leading_zero(v) for v in real):
            return Guess("number", f"{share} reads as a number")
    if sum(bool(_DATE_LIKE.match(v)) for v in real) >= 0.98 * len(real) and time_format(real) is not None:
        return Guess("time", "the values read as dates")
    lengths = [len(v) for v in real]
    words = [len(v.split()) for v in real]
    wide = [len(v) + sum(2 for c in v if ord(c) > 0x2E7F) for v in real]  # a Chinese character is about a word
    unique = len(set(real)) / len(real)
    mean_words, mean_wide = sum(words) / len(words), sum(wide) / len(wide)
    if unique > 0.98 and len(real) >= 20 and mean_words < 1.05 and (_ID_NAME.search(name) or _code_like(real)):
        return Guess("off", "is a different code in every row, like an id")
    long = sum(length > 200 for length in lengths) > 0.01 * len(real)
    if (unique > 0.2 and (mean_words >= 4 or mean_wide >= 24)) or long or mean_words >= 12:
        return Guess("text", f"holds {mean_words:.0f} words on average" if mean_words >= 2 else "holds long texts")
    if unique > 0.5 and len(set(real)) > 50 and (mean_words >= 1.5 or unique > 0.98 or _is_chinese(real)):
        return Guess("text", f"holds short texts, {unique:.0%} of them different")
    return Guess("category", f"has {len(set(real)):,} different values")


def _renamed(found: Guess, share: str) -> tuple[str, str]:
    return found.type, (f"{share} reads as a whole number" if found.type == "number" else found.reason)


def says_missing(text: str) -> bool:
    """Words that people write where there is no value: NA, null, ?, -, ..."""
    return text.strip().lower() in MISSING_WORDS


def _is_chinese(values: Sequence[str]) -> bool:
    """Words are not spaced apart, so that a count of words says nothing."""
    return 2 * sum(ord(c) > 0x2E7F for v in values for c in v) > sum(map(len, values))


def _code_like(values: Sequence[str]) -> bool:
    if not all(v.isascii() for v in values):
        return False
    return len({len(v) for v in values}) <= 2 or all(any(c.isdigit() for c in v) for v in values)


def _has_leading_zero(value: str) -> bool:
    value = value.strip()
    return len(value) > 1 and value[0] == "0" and value[1].isdigit()


def guess_target(column: pa.Array | pa.ChunkedArray) -> Guess:
    """Class or number, for the column to predict."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return Guess("class", "it is true or false")
    values = [text for v in column.drop_null().to_pylist() if not says_missing(text := _as_text(v))]
    real = [n for n in map(parse_number, values) if n is not None]
    distinct = len(set(values))
    if len(real) < 0.98 * max(1, len(values)):
        return Guess("class", f"it has {distinct:,} different values")
    whole = all(float(n).is_integer() for n in real)
    if whole and distinct <= 20:
        return Guess("class", f"it holds {distinct} different whole numbers")
    return Guess("number", "it holds whole numbers of a wide range" if whole else "it holds numbers")


def parse_number(value: str) -> float | None:
    """A number as people write it: ``1,234.5``, ``12 %`` (12, not 0.12), ``-$3``, ``($3)``; None if it is none."""
    text = value.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").strip()
    if not text or len(text) > 40 or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        pass
    sign = ""
    if text[0] == "(" and text[-1] == ")":
        sign, text = "-", text[1:-1]
    bare = text.strip(_SIGNS)
    if not sign and bare[:1] in ("-", "+") and bare[1:2] in tuple(_SIGNS):
        sign, bare = bare[0], bare[1:].strip(_SIGNS)
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", bare):
        bare = bare.replace(",", "")
    number = bare[:1].isdigit() or (bare[:1] in ("+", "-", ".") and not sign)
    try:
        return float(sign + bare) if number else None
    except ValueError:
        return None


def time_format(values: Sequence[str]) -> str | None:
    """The format that reads most of the values: ``iso`` or a strptime pattern; None if none reads 95 %."""
    sample = list(values[:2_000])
    best, most = None, 0.95 * len(sample)
    for pattern in ("iso", *_FORMATS):
        read = sum(parse_time(v, pattern) is not None for v in sample)
        if read > most or (read == len(sample) and best is None):
            best, most = pattern, read
    return best


def parse_time(value: str, pattern: str) -> float | None:
    """Seconds since 1970 (UTC where no zone is said); None where the text is no time of that pattern.

    ``pattern``: ``iso``, ``seconds`` (since 1970) or one of strptime.
    """
    text = value.strip()
    if pattern == "seconds":
        return float(text) if re.fullmatch(r"-?\d{1,16}(\.\d+)?", text) and not re.fullmatch(r"\d{8}", text) else None
    try:
        moment = datetime.fromisoformat(text) if pattern == "iso" else datetime.strptime(text, pattern)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return (moment - datetime(1970, 1, 1)).total_seconds()
    return moment.timestamp()


def leaks(name: str, column: pa.ChunkedArray, target: pa.ChunkedArray) -> str | None:
    """A sentence if ``column`` gives ``target`` away, from a sample of both; else None."""
    rows = [
        (None if a is None or says_missing(_as_text(a)) else _as_text(a), _as_text(b))
        for a, b in zip(column.to_pylist(), target.to_pylist(), strict=True)
        if b is not None
    ]
    pairs = [(a, b) for a, b in rows if a is not None]
    answers = Counter(b for _, b in pairs)
    if 30 <= len(pairs) < len(rows) and _tells([(str(a is None), b) for a, b in rows]):
        return (
            f"'{name}' is filled exactly where the target is of one kind: that it is missing tells the answer. "
            f"If it is only known afterwards, set features.{name}: off"
        )
    if len(pairs) < 30 or len(answers) < 2:
        return None
    if all(a == b for a, b in pairs):
        return f"'{name}' equals the target in every row: the model would only copy it. Set features.{name}: off"
    if len({a for a, _ in pairs}) > len(pairs) / 5:
        return _numeric_leak(name, pairs)
    right = _tells(pairs)
    if not right:
        return None
    return (
        f"'{name}' alone tells the target in {right:.1%} of the rows. If it is only known "
        f"afterwards, set features.{name}: off"
    )


def _tells(pairs: Sequence[tuple[str, str]]) -> float:
    """The share of answers that the first words tell, where it is nearly all of them; else 0."""
    groups: dict[str, Counter[str]] = {}
    for a, b in pairs:
        groups.setdefault(a, Counter())[b] += 1
    right = sum(max(g.values()) for g in groups.values()) / len(pairs)
    base = max(Counter(b for _, b in pairs).values()) / len(pairs)
    return right if right >= 0.999 and base < 0.99 else 0.0


def _numeric_leak(name: str, pairs: list[tuple[str, str]]) -> str | None:
    numbers = [(parse_number(a), b) for a, b in pairs]
    if any(n is None or not math.isfinite(n) for n, _ in numbers):
        return None
    order = sorted(numbers, key=lambda p: p[0] or 0.0)
    changes = sum(x[1] != y[1] for x, y in itertools.pairwise(order))
    tied = any(x[1] != y[1] and x[0] == y[0] for x, y in itertools.pairwise(order))
    classes = len({b for _, b in numbers})
    if classes <= 20 and changes < classes and not tied:
        return f"'{name}' alone separates the target. If it is only known afterwards, set features.{name}: off"
    values = [parse_number(b) for _, b in numbers]
    if classes > 20 and all(v is not None and math.isfinite(v) for v in values):
        x, y = np.array([n for n, _ in numbers], float), np.array(values, float)
        if x.std() > 0 and y.std() > 0 and abs(np.corrcoef(x, y)[0, 1]) > 0.9999:
            return f"'{name}' is the target up to scale. If it is only known afterwards, set features.{name}: off"
    return None


def _is_text(present: Any) -> bool:
    """Bytes of which nearly all are UTF-8 without NUL: texts, perhaps with a few broken cells."""
    cells = [cell.decode("utf-8", "replace") for cell in present.slice(0, 200).to_pylist()]
    return sum("\ufffd" not in cell and "\0" not in cell for cell in cells) >= 0.9 * len(cells)


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 30 else text[:27] + "...")
