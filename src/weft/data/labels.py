"""Cells that hold several labels: an Arrow list, a JSON array, or a text with a separator between them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from weft.data.columns import Guess
from weft.data.plain import is_list
from weft.errors import DataError, listing

SEPARATORS = (",", ";", "|")


def kind_in_words(kind: str) -> str:
    """What a target is: a class, a number, a list of labels."""
    return "a list of labels" if kind == "labels" else f"a {kind}"


def is_labels(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type holds lists of texts, numbers or truth values."""
    return is_list(kind) and not pa.types.is_nested(kind.value_type)


def guess_labels(column: pa.Array | pa.ChunkedArray) -> Guess | None:
    """``labels`` where every cell is a list; None where the column is something else."""
    if is_labels(column.type):
        return Guess("labels", "every cell is a list")
    cells = _texts(column)
    if cells and all(_array(cell) is not None for cell in cells):
        return Guess("labels", "every cell is a JSON array")
    return None


def guess_separator(name: str, column: pa.Array | pa.ChunkedArray) -> str | None:
    """What stands between the labels of text cells; None where they are lists or JSON arrays.

    Raises:
        DataError: more than one of the usual separators occurs, so that the cells can be read in two ways.
    """
    if guess_labels(column) is not None:
        return None
    cells = _texts(column)
    found = [s for s in SEPARATORS if any(s in cell for cell in cells)]
    if len(found) > 1:
        example = next(cell for cell in cells if found[0] in cell)
        raise DataError(
            f"target '{name}': the labels of a cell must stand apart in one way. Got {listing(found)}, as in "
            f"{example[:60]!r}. Say which with target.separator."
        )
    return found[0] if found else SEPARATORS[0]


def parse_labels(cell: Any, separator: str | None) -> list[str] | None:
    """The labels of a cell as texts, trimmed and each once, in their order; None where it cannot be read.

    ``separator``: None reads lists and JSON arrays.
    """
    if isinstance(cell, str):
        cell = cell.split(separator) if separator is not None else _array(cell)
    if cell is None or not all(isinstance(label, (str, bool, int, float)) for label in cell):
        return None
    texts = (json.dumps(label) if isinstance(label, (bool, float)) else str(label) for label in cell)
    return list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))


def _array(cell: str) -> list | None:
    if not cell.lstrip().startswith("["):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def _texts(column: Any) -> list[str]:
    if not pa.types.is_string(column.type):
        return []
    return [cell for cell in column.drop_null().to_pylist() if cell.strip()]
