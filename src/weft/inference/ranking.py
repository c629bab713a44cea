"""Recommendations: the items with the highest scores for what comes next, for users of the training or bare histories.

Shape suffixes: N rows, K items recommended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from weft.data.histories import MOST_EVENTS
from weft.data.table import BATCH_ROWS, RawBatch, Rejected, Table
from weft.errors import CheckpointError, DataError, UsageError, did_you_mean
from weft.features.catalogue import Catalogue
from weft.features.events import Events, histories, user_pieces
from weft.features.next_items import Candidates, NextItems
from weft.features.ragged import Ragged, bounds, joined, spans
from weft.inference.predict import Predicted, Reader
from weft.models.ranking import RankingModel
from weft.preprocess.clean import CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.events import EventCleaner, EventColumns

USERS_FILE = "users.arrow"
FIELDS = (("items", pa.int32()), ("times", pa.float64()), ("ratings", pa.float32()))


@dataclass
class Recommended:
    """Codes of items [N, K], the best first, 0 where there are no more; and the probability of each [N, K]."""

    codes: np.ndarray
    scores: np.ndarray


class Ranker:
    """A model with the vectors of its whole catalogue."""

    def __init__(self, model: RankingModel, catalogue: Catalogue):
        self.model, self.catalogue = model.eval(), catalogue
        self.candidates = Candidates(catalogue.counts, None, catalogue.encode())
        self.vectors, self.bias = model.all_items(self.candidates.known_of, len(catalogue))

    def data(self, events: Events) -> NextItems:
        return NextItems(events, self.candidates, self.model.config.context)

    @torch.no_grad()
    def scores(self, data: NextItems, places: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Scores of every item for what comes at each place (an event) [N, V].

        ``users``: whose places they are, where one may be that after a user's last event.
        """
        batch = data.questions(places, users).to(self.vectors.device)
        return self.model.scores(batch, self.vectors, self.bias).cpu().numpy()

    @torch.no_grad()
    def recommend(self, events: Events, top: int, taken: bool) -> Recommended:
        """What comes after the last event of each user; without ``taken`` nothing that is among the user's events."""
        users = len(events.offsets) - 1
        top = min(top, len(self.catalogue))
        found = Recommended(np.zeros((users, top), np.int64), np.zeros((users, top), np.float32))
        data, ends = self.data(events), events.offsets[1:]
        for some in data.groups(events.lengths()):
            scores = self.scores(data, ends[some], some).astype(np.float64)
            chance = _softmax(scores)
            if not taken:
                row, item = histories(events, ends[some], some)
                scores[row[item > 0], item[item > 0] - 1] = -np.inf
            order = best(scores, top)
            there = np.take_along_axis(scores, order, 1) > -np.inf
            found.codes[some] = np.where(there, order + 1, 0)
            found.scores[some] = np.where(there, np.take_along_axis(chance, order, 1), 0)
        return found


def best(scores_BV: np.ndarray, count: int) -> np.ndarray:
    """The items with the highest scores, the highest first, of equal ones the first [B, count or V]."""
    count = min(count, scores_BV.shape[1])
    if not count:
        return np.zeros((len(scores_BV), 0), np.int64)
    edge = np.partition(scores_BV, -count, axis=1)[:, [-count]]
    # those above the edge, then as many at the edge as there is room for
    order = np.where(scores_BV > edge, 2, 0) + (scores_BV == edge)
    chosen = np.argsort(-order, axis=1, kind="stable")[:, :count]
    within = np.lexsort((chosen, -np.take_along_axis(scores_BV, chosen, 1)), axis=1)
    return np.take_along_axis(chosen, within, 1)


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True, initial=0))
    return raised / raised.sum(axis=1, keepdims=True)


def events_of(array: pa.Array, catalogue: Catalogue) -> Events:
    """Cleaned histories as events of one user a row."""
    flat = pc.list_flatten(array)
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    items = catalogue.codes_of(pc.struct_field(flat, "item"))
    beside = [pc.struct_field(flat, n).to_numpy(zero_copy_only=False).astype(np.float64) for n in ("time", "rating")]
    return events_from(bounds(lengths), items, *beside)


def events_from(offsets: np.ndarray, items: np.ndarray, times: np.ndarray | None, ratings: np.ndarray | None) -> Events:
    """Events of users one after the other: where each user's begin [U + 1], and what they are."""
    # one event more, of nobody, so that the place after the last one can be named
    items = np.append(items, 0)
    times, ratings = (None if v is None else np.append(v, np.nan) for v in (times, ratings))
    return Events(offsets.astype(np.int64), items, times, ratings, np.zeros(len(items), np.uint8))


class KnownUsers:
    """The events of the users of the training, the last ones of each."""

    def __init__(self, folder: Path):
        try:
            with pa.memory_map(str(folder / USERS_FILE), "r") as stream:
                table = pa.ipc.open_file(stream).read_all()
        except (OSError, pa.ArrowException) as error:
            raise CheckpointError(f"{folder / USERS_FILE}: must be what Weft wrote. Got: {error!r}.") from None
        self.names = pa.concat_arrays(table.column("user").chunks) if table.num_rows else pa.array([], pa.string())
        self._fields = {name: _joined(table.column(name)) for name in table.schema.names if name != "user"}

    def rows(self, names: pa.Array) -> np.ndarray:
        """The number of each user, -1 where it is not known."""
        return pc.fill_null(pc.index_in(names, value_set=self.names), -1).to_numpy(zero_copy_only=False)

    def events(self, rows: np.ndarray) -> Events:
        found = {name: field.take(rows) for name, field in self._fields.items()}
        beside = [found[name].values if name in found else None for name in ("times", "ratings")]
        return events_from(found["items"].offsets, found["items"].values, *beside)


def write_users(folder: Path, users: pa.Array, events: Events) -> None:
    """Keep the last events of every user beside the model, so that a user can be asked for by name."""
    there = {"items": events.items, "times": events.times, "ratings": events.ratings}
    schema = pa.schema([("user", pa.string()), *((n, pa.list_(k)) for n, k in FIELDS if there[n] is not None)])
    with pa.OSFile(str(folder / USERS_FILE), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for first, last in user_pieces(events.offsets):
            ends = events.offsets[first + 1 : last + 1]
            lengths = np.minimum(np.diff(events.offsets[first : last + 1]), MOST_EVENTS)
            at, offsets = spans(ends - lengths, lengths), pa.array(bounds(lengths), pa.int32())
            lists = [
                pa.ListArray.from_arrays(offsets, pa.array(np.asarray(values[at]), kind))
                for name, kind in FIELDS if (values := there[name]) is not None
            ]  # fmt: skip
            writer.write_batch(pa.RecordBatch.from_arrays([users.slice(first, last - first), *lists], schema=schema))


def _joined(column: pa.ChunkedArray) -> Ragged:
    return joined([Ragged(c.flatten().to_numpy(zero_copy_only=False), bounds(pc.list_value_length(c).to_numpy()))
                   for c in column.chunks] or [Ragged.of([], np.int32)])  # fmt: skip


class RankingPredictor:
    """Recommends for the rows of a table: histories, or users of the training by name."""

    def __init__(self, ranker: Ranker, columns: EventColumns, cleaner: Cleaner, users: KnownUsers | None, top: int,
                 taken: bool):  # fmt: skip
        self.ranker, self.columns, self.cleaner, self.users = ranker, columns, cleaner, users
        self.top, self.taken = top, taken
        self.cut = 0
        self.without: list[str] = []  # no column can be absent

    @property
    def history_plan(self) -> ColumnPlan:
        """How the cells of bare histories are read; those of a run of events with any usual separator."""
        given = self.cleaner.plans[self.columns.item]
        return given if self.columns.lists else ColumnPlan("sequence", separator=",")

    def stream(self, table: Table, keep: Sequence[str] = ()) -> Iterator[Predicted]:
        """Recommend batch by batch, in order. Raises as :meth:`reader`."""
        for raw, read in self.reader(table, keep).over(table):
            yield self.answer(raw, read)

    def answer(self, raw: RawBatch, read: tuple[CleanBatch, Events]) -> Predicted:
        """The recommendations for clean rows with their events."""
        clean, events = read
        return Predicted(raw, clean, self.ranker.recommend(events, self.top, self.taken))

    def reader(self, table: Table, keep: Sequence[str] = ()) -> Reader[tuple[CleanBatch, Events]]:
        """How rows and the events of each are read.

        Raises:
            DataError: the table holds neither histories nor users that can be known.
        """
        name, by_name = self._column(table)
        plan = self.cleaner.plans[name] if by_name else self.history_plan
        cleaner = EventCleaner({name: plan}, self.cleaner.letters, [name] if by_name else [])

        def read(raw: RawBatch) -> tuple[CleanBatch, Events]:
            clean = cleaner(raw)
            if by_name:
                return self._known(clean, name)
            return clean, events_of(clean.columns[name], self.ranker.catalogue)

        return Reader([name, *(n for n in keep if n != name)], BATCH_ROWS, read)

    def _column(self, table: Table) -> tuple[str, bool]:
        item, user = self.columns.item, self.columns.user
        by_name = user is not None and self.users is not None and user in table.columns
        if item in table.columns and (self.columns.lists or not by_name):
            return item, False
        if by_name:
            return str(user), True
        wanted = f"'{item}' (histories)" + (f" or '{user}' (users of the training)" if user else "")
        raise DataError(f"{table.name}: must hold {wanted}.{did_you_mean(item, table.columns)}")

    def _known(self, clean: CleanBatch, name: str) -> tuple[CleanBatch, Events]:
        assert self.users is not None
        rows = self.users.rows(clean.columns[name])
        there = rows >= 0
        reason = f"is no user of the training; give a history in '{self.columns.item}' instead, which may be empty"
        unknown = {
            i: Rejected(int(clean.rows[i]), name, reason, clean.columns[name][i].as_py()[:1000])
            for i in np.flatnonzero(~there).tolist()
        }
        return clean.without(unknown), self.users.events(rows[there])

    def as_columns(self, output: Recommended) -> dict[str, pa.Array]:
        """``prediction``: a list of items a row, the best first; ``score``: the probability of each."""
        there = output.codes > 0
        offsets = pa.array(bounds(there.sum(axis=1)), pa.int32())
        items = self.ranker.catalogue.names.take(pa.array(output.codes[there] - 1))
        scores = pa.array(output.scores[there], pa.float32())
        return {
            "prediction": pa.ListArray.from_arrays(offsets, items), "score": pa.ListArray.from_arrays(offsets, scores)
        }  # fmt: skip


def history_of(given: Any) -> pa.Array:
    """One history, as a column: ids and dicts with item and at most time and rating, side by side if need be.

    Raises:
        UsageError: it is no list.
    """
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise UsageError(
            f"history: must be a list of item ids, or of dicts with item, time, rating. Got {given!r:.60}."
        )
    events: list[Any] = [e.as_py() if isinstance(e, pa.Scalar) else e for e in given]
    if any(isinstance(e, Mapping) for e in events):
        events = [e if isinstance(e, Mapping) else {"item": e} for e in events]
    try:
        return pa.array([events]) if events else pa.array([[]], pa.list_(pa.string()))
    except pa.ArrowException:  # ids of several types
        pass
    try:
        return pa.array([[{**e, "item": _word(e.get("item"))} if isinstance(e, Mapping) else _word(e) for e in events]])
    except pa.ArrowException as error:
        raise UsageError(f"history: the values of each key must be of one type. Got: {error}.") from None


def _word(item: Any) -> str | None:
    return None if item is None else str(item)
