"""Events dealt to their users, against a plain loop: order, ties, what came twice, histories, splits."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from weft.data.split import TEST, TRAIN, VALID
from weft.features import events as module
from weft.features.events import gather_events, histories, leave_last, recode, repeat_share
from weft.features.histories import gap_bins
from weft.preprocess.events import EventColumns
from weft.preprocess.ingest import GROUP, ROW, CleanRows

LOG = EventColumns("item", "user", "when", "stars", lists=False)


def rows_on_disk(folder: Path, columns: dict, parts=None, chunk=7) -> CleanRows:
    table = pa.table({ROW: np.arange(len(next(iter(columns.values())))), **columns})
    assert GROUP not in columns
    with pa.OSFile(str(folder / "clean.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return CleanRows(folder / "clean.arrow", np.zeros(len(table), np.uint8) if parts is None else parts)


def log(rows=300, seed=0):
    random = np.random.default_rng(seed)
    user, item = random.integers(0, 40, rows), random.integers(0, 9, rows)
    when, stars = random.integers(0, 30, rows).astype(float), random.integers(1, 6, rows).astype(float)
    stars[random.random(rows) < 0.2] = np.nan
    return [(f"u{u}", f"i{i}", w, s) for u, i, w, s in zip(user, item, when, stars, strict=True)]


def as_columns(rows):
    user, item, when, stars = zip(*rows, strict=True)
    return {"user": user, "item": item, "when": when, "stars": pa.array(stars, from_pandas=True, type=pa.float64())}


def by_hand(rows, timed=True):
    """Each user's events in order; of the same item at the same time the first."""
    found = defaultdict(list)
    for number, (user, item, when, stars) in enumerate(rows):
        found[user].append((when if timed else number, number, item, stars))
    kept = {}
    for user, events in found.items():
        events.sort(key=lambda e: e[:2])
        seen = set()
        kept[user] = [e for e in events if not timed or not ((e[0], e[2]) in seen or seen.add((e[0], e[2])))]
    return kept


@pytest.mark.parametrize("timed", [True, False])
def test_events_are_those_of_a_plain_loop_whatever_the_pieces(tmp_path, monkeypatch, timed):
    monkeypatch.setattr(module, "PIECE", 20)
    rows = log()
    columns = LOG if timed else EventColumns("item", "user", None, "stars", lists=False)
    found = gather_events(rows_on_disk(tmp_path, as_columns(rows)), columns, tmp_path / "events")
    wanted, events = by_hand(rows, timed), found.events
    assert found.users is not None and set(found.users.to_pylist()) == set(wanted)
    assert found.repeated == len(rows) - sum(map(len, wanted.values())) and (found.repeated > 0) == timed
    names = found.names.to_pylist()
    for number, user in enumerate(found.users.to_pylist()):
        here = slice(events.offsets[number], events.offsets[number + 1])
        assert [names[i] for i in events.items[here]] == [e[2] for e in wanted[user]]
        np.testing.assert_array_equal(events.ratings[here], [e[3] for e in wanted[user]])
        if timed:
            assert events.times is not None and events.times[here].tolist() == [e[0] for e in wanted[user]]
    assert timed or events.times is None


def test_histories_and_events_become_the_same_sequences(tmp_path):
    wanted = by_hand(log())
    cells = [[{"item": e[2], "time": e[0], "rating": e[3]} for e in events] for events in wanted.values()]
    kind = pa.list_(pa.struct([("item", pa.string()), ("time", pa.float64()), ("rating", pa.float64())]))
    clean = rows_on_disk(tmp_path, {"item": pa.array([*cells, [], None], kind)})
    found = gather_events(clean, EventColumns("item", None, None, None, lists=True), tmp_path / "events")
    names = found.names.to_pylist()
    assert found.users is None and found.events.lengths().tolist() == [*map(len, cells), 0, 0]
    assert [names[i] for i in found.events.items] == [e["item"] for cell in cells for e in cell]


def test_the_last_event_is_the_test_and_parts_of_rows_go_with_their_events(tmp_path):
    rows = log()
    parts = np.random.default_rng(1).integers(0, 3, len(rows)).astype(np.uint8)
    untimed = EventColumns("item", "user", None, None, lists=False)
    events = gather_events(rows_on_disk(tmp_path, as_columns(rows), parts), untimed, tmp_path / "events").events
    order = np.argsort([list(dict.fromkeys(r[0] for r in rows)).index(r[0]) for r in rows], kind="stable")
    assert events.parts.tolist() == parts[order].tolist()
    leave_last(events)
    for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        wanted = [TRAIN] * max(1, b - a - 2) + ([VALID] if b - a > 2 else []) + ([TEST] if b - a > 1 else [])
        assert events.parts[a:b].tolist() == wanted[: b - a]


def test_repeats_and_histories_are_counted_as_a_loop_counts_them(tmp_path):
    untimed = EventColumns("item", "user", None, None, lists=False)
    events = gather_events(rows_on_disk(tmp_path, as_columns(log())), untimed, tmp_path / "events").events
    recode(events, 1 + np.arange(9))
    again = total = 0
    for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        again += sum(events.items[i] in events.items[a:i] for i in range(a, b))
        total += max(0, b - a - 1)
    assert repeat_share(events) == pytest.approx(again / total)
    places = np.array([0, 5, len(events.items) - 1])
    row, item = histories(events, places)
    for number, place in enumerate(places):
        first = events.offsets[np.searchsorted(events.offsets, place, side="right") - 1]
        assert item[row == number].tolist() == events.items[first:place].tolist()


def test_gaps_are_binned_by_their_logarithm():
    assert gap_bins(np.array([np.nan, 0, 1, 3, 7, 1e30, -5])).tolist() == [0, 1, 2, 3, 4, 33, 1]
