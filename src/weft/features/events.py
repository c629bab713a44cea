"""What every user had, in order, on disk: events or histories become one sequence of items a user.

Rows are dealt to their users by counting, then each user's events are put in the order of time, a few million at once:
what is held in memory is a few bytes an event, never a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.split import TEST, TRAIN, VALID
from weft.features.ragged import bounds, spans
from weft.preprocess.events import EventColumns
from weft.preprocess.ingest import CleanRows

PIECE = 1 << 20
"""Events that are sorted at once."""
UNKNOWN = 0
"""The code of an item that is not in the catalogue; that of the first one is 1."""
MOST_ITEMS = 200_000
Field = tuple[str, type]
FIELDS: tuple[Field, ...] = (("item", np.int32), ("time", np.float64), ("rating", np.float32), ("part", np.uint8))


@dataclass
class Events:
    """Events of users, one user after the other, each in the order of time.

    offsets: [U + 1]. items: codes [N]. times: seconds since 1970 [N], NaN where not known; ratings [N], NaN where
    there is none; None where no event has any. parts: TRAIN, VALID or TEST [N].
    """

    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    ratings: np.ndarray | None
    parts: np.ndarray

    @classmethod
    def mapped(cls, folder: Path) -> Events:
        """Those that :func:`gather_events` wrote."""
        there = {name: _mapped(folder / f"{name}.bin", k) for name, k in FIELDS if (folder / f"{name}.bin").exists()}
        offsets = np.load(folder / "offsets.npy")
        return cls(offsets, there["item"], there.get("time"), there.get("rating"), there["part"])

    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def owners(self, places: np.ndarray) -> np.ndarray:
        """The user of each event."""
        return np.searchsorted(self.offsets, places, side="right") - 1

    def places(self, part: int) -> np.ndarray:
        """The events of a part."""
        return np.flatnonzero(self.parts == part)

    def pieces(self) -> Iterator[slice]:
        """Slices of the events, users whole, about ``PIECE`` events each."""
        yield from (slice(*self.offsets[[a, b]]) for a, b in user_pieces(self.offsets))


@dataclass
class Gathered:
    """Events whose items are still numbers of ``names``; users by name, None where they have none."""

    events: Events
    names: pa.Array
    users: pa.Array | None
    repeated: int
    """Events that were left out because the same user had the same item at the same moment."""


def gather_events(clean: CleanRows, columns: EventColumns, folder: Path) -> Gathered:
    """Group cleaned rows by user into ``folder`` and put them in the order of time (else of the rows)."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = [b.columns for b in clean.batches()]
    items = pa.chunked_array(
        [_flat(b[columns.item], columns, "item") for b in batches], pa.string()
    ).dictionary_encode()
    names = items.chunk(0).dictionary if items.num_chunks else pa.array([], pa.string())
    users, of_row = _users(batches, columns, len(clean.rows))
    counts = np.zeros(int(of_row.max(initial=-1)) + 1 if users is None else len(users), np.int64)
    for _, first, lengths in _rows(batches, columns):
        counts += np.bincount(np.repeat(of_row[first : first + len(lengths)], lengths), minlength=len(counts))
    offsets = bounds(counts)
    found = {
        name: np.memmap(folder / f"{name}.dealt", kind, "w+", shape=max(1, int(offsets[-1]))) for name, kind in FIELDS
    }
    cursor, some = offsets[:-1].copy(), {"time": False, "rating": False}
    for number, first, lengths in _rows(batches, columns):
        batch = batches[number]
        user = np.repeat(of_row[first : first + len(lengths)], lengths)
        values = {"item": items.chunk(number).indices.to_numpy(),
                  "part": np.repeat(clean.parts[first : first + len(lengths)], lengths)}  # fmt: skip
        for name, column in (("time", columns.time), ("rating", columns.rating)):
            values[name] = _numbers(batch, columns, name, column, len(user))
            some[name] |= bool(np.isfinite(values[name]).any())
        order, place = _deal(user, cursor)
        for name, kind in FIELDS:
            found[name][place] = values[name][order].astype(kind)
    events, repeated = _in_order(offsets, found, folder, some)
    return Gathered(events, names, users, repeated)


def _rows(batches: list[dict[str, pa.Array]], columns: EventColumns) -> Iterator[tuple[int, int, np.ndarray]]:
    """Number of each batch, its first row, and how many events each of its rows holds."""
    first = 0
    for number, batch in enumerate(batches):
        array = batch[columns.item]
        lengths = np.ones(len(array), np.int64)
        if columns.lists:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        yield number, first, lengths
        first += len(array)


def _users(batches: list[dict[str, pa.Array]], columns: EventColumns, rows: int) -> tuple[pa.Array | None, np.ndarray]:
    """The users by name, and the number of each row's user; without names each row is a user."""
    if columns.user is None:
        return None, np.arange(rows)
    coded = pa.chunked_array([b[columns.user] for b in batches], pa.string()).dictionary_encode()
    numbers = (
        np.concatenate([c.indices.to_numpy() for c in coded.chunks]) if coded.num_chunks else np.zeros(0, np.int32)
    )
    return (coded.chunk(0).dictionary if coded.num_chunks else pa.array([], pa.string())), numbers


def _flat(array: pa.Array, columns: EventColumns, field: str) -> pa.Array:
    return pc.struct_field(pc.list_flatten(array), field) if columns.lists else array


def _numbers(
    batch: dict[str, pa.Array], columns: EventColumns, field: str, column: str | None, size: int
) -> np.ndarray:
    if columns.lists:
        return _flat(batch[columns.item], columns, field).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.full(size, np.nan) if column is None else batch[column].to_numpy(zero_copy_only=False).astype(np.float64)


def _deal(user: np.ndarray, cursor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order by user, stable, and where each event goes; ``cursor`` [U] moves on."""
    order = np.argsort(user, kind="stable")
    owner, count = np.unique(user[order], return_counts=True)
    place = spans(cursor[owner], count)
    cursor[owner] += count
    return order, place


def _in_order(
    offsets: np.ndarray, found: Mapping[str, np.ndarray], folder: Path, some: dict[str, bool]
) -> tuple[Events, int]:
    """Every user's events sorted by time, without those that are there twice, in files of their own."""
    counts = np.diff(offsets)
    with_files = {name: (folder / f"{name}.bin").open("wb") for name, _ in FIELDS}
    for a, b in user_pieces(offsets):
        here = slice(int(offsets[a]), int(offsets[b]))
        user = np.repeat(np.arange(a, b), counts[a:b])
        values = {name: np.asarray(found[name][here]) for name, _ in FIELDS}
        order = np.arange(len(user))
        if some["time"]:
            order = np.lexsort((np.nan_to_num(values["time"], nan=-np.inf), user))
            again = _again(user[order], values["time"][order], values["item"][order])
            counts[a:b] -= np.bincount(user[order][again] - a, minlength=b - a)
            order = order[~again]
        for name, kind in FIELDS:
            values[name][order].astype(kind).tofile(with_files[name])
    for stream in with_files.values():
        stream.close()
    for name in found:
        (folder / f"{name}.dealt").unlink()
    for name in some:
        if not some[name]:
            (folder / f"{name}.bin").unlink()
    kept = bounds(counts)
    np.save(folder / "offsets.npy", kept)
    return Events.mapped(folder), int(offsets[-1] - kept[-1])


def _again(user: np.ndarray, time: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Events that another one before them equals in user, time and item."""
    order = np.lexsort((item, time, user))
    same = np.zeros(len(user), bool)
    a, b = order[:-1], order[1:]
    same[order[1:]] = (user[a] == user[b]) & (time[a] == time[b]) & (item[a] == item[b])
    return same


def user_pieces(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last user (after) of pieces of about ``PIECE`` events, whole users each."""
    start, users = 0, len(offsets) - 1
    while start < users:
        end = max(start + 1, int(np.searchsorted(offsets, offsets[start] + PIECE, side="right")) - 1)
        yield start, end
        start = end


def _mapped(path: Path, kind: Any) -> np.ndarray:
    return np.memmap(path, kind, "r+") if path.stat().st_size else np.zeros(0, kind)


def leave_last(events: Events) -> None:
    """The last event of each user of two or more is the test, the one before it of three or more valid."""
    lengths, ends = events.lengths(), events.offsets[1:]
    events.parts[:] = TRAIN
    events.parts[ends[lengths >= 2] - 1] = TEST
    events.parts[ends[lengths >= 3] - 2] = VALID


def recode(events: Events, code: np.ndarray) -> None:
    """Give every item the code that stands in its place."""
    for piece in events.pieces():
        events.items[piece] = code[events.items[piece]]
    for changed in (events.items, events.parts):
        if isinstance(changed, np.memmap):
            changed.flush()  # what other machines may open now


def histories(events: Events, places: np.ndarray, users: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(question, item) of all events of the same user before each place.

    ``users``: whose places they are, where one may be that after a user's last event.
    """
    first = events.offsets[events.owners(places) if users is None else users]
    lengths = places - first
    items = np.asarray(events.items[spans(first, lengths)]).astype(np.int64)
    return np.repeat(np.arange(len(places)), lengths), items


def repeat_share(events: Events) -> float:
    """Of the training events after a user's first the share whose item the user had before."""
    again = total = 0
    for piece in events.pieces():
        places = np.flatnonzero(events.parts[piece] == TRAIN) + piece.start
        user, item = events.owners(places), np.asarray(events.items[places])
        order = np.lexsort((places, item, user))
        same = (user[order][1:] == user[order][:-1]) & (item[order][1:] == item[order][:-1])
        again += int((same & (item[order][1:] != UNKNOWN)).sum())
        total += len(places) - len(np.unique(user))
    return again / max(1, total)
