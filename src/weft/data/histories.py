"""Cells that hold a history of items: an Arrow list, a JSON array, or a text with a separator between the ids.

An item is an id, or ``{item, time, rating}`` of which time and rating may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from weft.data.plain import is_list

MOST_EVENTS = 10_000
"""Last events of a cell that are kept: a history of ten million costs no more than one of these."""
MOST_LETTERS = 1 << 22
"""Of a JSON cell; of a longer one only the end is read."""
SEPARATORS = ("|", ";", ",")
EVENT = pa.struct([("item", pa.string()), ("time", pa.float64()), ("rating", pa.float64())])
HISTORY = pa.list_(EVENT)

Event = tuple[Any, Any, Any]


def is_history(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are lists of ids, or of structs with an item."""
    if not is_list(kind):
        return False
    inner = kind.value_type
    return inner.get_field_index("item") >= 0 if pa.types.is_struct(inner) else not pa.types.is_nested(inner)


def looks_like_history(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether every cell of a sample is a list of items, or a JSON array of ids; lists of fractions are vectors."""
    if not pa.types.is_string(column.type):
        return is_history(column.type) and not pa.types.is_floating(column.type.value_type)
    cells = [cell for cell in column.drop_null().to_pylist() if cell.strip()]
    return bool(cells) and all(cell.lstrip().startswith("[") and _plain(_array(cell)) for cell in cells)


def history_separator(cells: Sequence[str]) -> str | None:
    """What stands between the ids of text cells: the usual sign that occurs most, else a space; None: JSON arrays."""
    cells = [cell for cell in cells if cell.strip()]
    if cells and all(cell.lstrip().startswith("[") for cell in cells):
        return None
    counts = {sign: sum(sign in cell for cell in cells) for sign in SEPARATORS}
    best = max(SEPARATORS, key=lambda sign: counts[sign])
    return best if counts[best] else " "


def parse_history(cell: str, separator: str | None) -> list[Event]:
    """The last ``MOST_EVENTS`` events of a text cell, in their order. Raises ValueError with the reason, for a person.

    ``separator``: None reads JSON arrays, whatever is given, a cell that begins with a bracket is one.
    """
    if separator is not None and not cell.lstrip().startswith("["):
        # from the right, so that a history of millions is no list of millions
        ids = cell.rsplit(None if separator == " " else separator, MOST_EVENTS)[-MOST_EVENTS:]
        return [(item.strip(), None, None) for item in ids]
    found = _array(cell)
    if found is None:
        raise ValueError("must be a JSON array of items")
    return [_event(value) for value in found[-MOST_EVENTS:]]


def _event(value: Any) -> Event:
    if isinstance(value, dict):
        odd = value.keys() - {"item", "time", "rating"}
        if odd or "item" not in value:
            raise ValueError(f"an event must have item and at most time and rating, has {sorted(value)}")
        if isinstance(value["item"], (dict, list)):
            raise ValueError(f"an item must be an id, is {str(value['item'])[:60]!r}")
        return value["item"], value.get("time"), value.get("rating")
    if isinstance(value, list):
        raise ValueError(f"an item must be an id, is {str(value)[:60]!r}")
    return value, None, None


def _array(cell: str) -> list[Any] | None:
    text = cell.strip()
    if len(text) > MOST_LETTERS:
        # the end of a long array, from the first item that is whole
        structs = text[1:100].lstrip().startswith("{")
        text = text[-MOST_LETTERS:]
        cut = text.find("},") + 1 if structs else text.find(",")
        text = "[" + text[cut + 1 :]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _plain(found: list[Any] | None) -> bool:
    return found is not None and all(isinstance(v, (str, int)) or (isinstance(v, dict) and "item" in v) for v in found)
