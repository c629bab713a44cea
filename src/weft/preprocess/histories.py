"""Histories as typed Arrow: lists of {item, time, rating}, the last events of each cell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.histories import EVENT, HISTORY, MOST_EVENTS, Event, is_history, parse_history
from weft.preprocess.fingerprints import within

Bad = dict[int, tuple[str, str]]
Reader = Callable[[pa.Array], tuple[pa.Array, Bad]]


def read_histories(array: pa.Array, separator: str | None, ids: Callable[[pa.Array], pa.Array], times: Reader,
                   numbers: Reader) -> tuple[pa.Array, Bad]:  # fmt: skip
    """Typed histories, and the cells that cannot be read with the reason.

    A missing id is no event. Events that have times are put in the order of time.

    Args:
        ids, times, numbers: how the fields of the events are read.
    """
    bad: Bad = {}
    if pa.types.is_nested(array.type) and not is_history(array.type):
        reason = f"must be a list of items, is {array.type}"
        return pa.nulls(len(array), HISTORY), dict.fromkeys(range(len(array)), (reason, ""))
    if pa.types.is_string(array.type):
        lengths, valid, flat = _parsed(array, separator, bad)
    elif pa.types.is_nested(array.type):
        lengths, valid, flat = _tails(array)
    else:  # a bare id is a history of one
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        lengths = valid.astype(np.int64)
        flat = pa.StructArray.from_arrays([array.drop_null()], ["item"])
    row = np.repeat(np.arange(len(array)), lengths)
    names = [field.name for field in flat.type]
    item = ids(flat.field("item"))
    fields = {}
    for name, read in (("time", times), ("rating", numbers)):
        column = flat.field(name) if name in names else pa.nulls(len(flat))
        if pa.types.is_null(column.type):
            fields[name] = pa.nulls(len(flat), pa.float64())
            continue
        fields[name], wrong = read(column)
        for place, (reason, text) in wrong.items():
            bad.setdefault(int(row[place]), (f"{name}: {reason}", text))
    keep = item.is_valid().to_numpy(zero_copy_only=False)
    when = np.nan_to_num(fields["time"].to_numpy(zero_copy_only=False)[keep].astype(np.float64), nan=-np.inf)
    order = pa.array(np.flatnonzero(keep)[np.lexsort((when, row[keep]))])
    events = pa.StructArray.from_arrays([c.take(order) for c in (item, fields["time"], fields["rating"])],
                                        fields=list(EVENT))  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row[keep], minlength=len(array)))]).astype(np.int32)
    mask = pa.array(~valid)
    return pa.ListArray.from_arrays(pa.array(offsets), events, mask=mask).cast(HISTORY), bad


def _tails(array: pa.Array) -> tuple[np.ndarray, np.ndarray, pa.StructArray]:
    """Lengths [N], whether a cell is there [N], and the last events of all lists, joined."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_fixed_size_list(array.type):
        ends = (np.arange(len(array)) + array.offset + 1) * array.type.list_size
    else:
        ends = array.offsets.to_numpy()[1:].astype(np.int64)
    lengths = np.minimum(lengths, MOST_EVENTS)
    flat = array.values.take(pa.array(np.repeat(ends - lengths, lengths) + within(lengths)))
    if not pa.types.is_struct(flat.type):
        flat = pa.StructArray.from_arrays([flat], ["item"])
    return lengths, valid, flat


def _parsed(array: pa.Array, separator: str | None, bad: Bad) -> tuple[np.ndarray, np.ndarray, pa.StructArray]:
    valid, lengths = np.zeros(len(array), bool), np.zeros(len(array), np.int64)
    events: list[Event] = []
    for place, cell in enumerate(array.to_pylist()):
        if cell is None or not cell.strip():
            continue
        try:
            found = parse_history(cell, separator)
        except ValueError as error:
            bad[place] = (str(error), cell[:1000])
            continue
        valid[place], lengths[place] = True, len(found)
        events += found
    texts = [[None if e[k] is None else _word(e[k]) for e in events] for k in range(3)]
    columns = [pa.array(t, pa.string()) for t in texts]
    return lengths, valid, pa.StructArray.from_arrays(columns, ["item", "time", "rating"])


def _word(value: object) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
