"""Over Ray the results are those of this process, bit for bit and in order, also where a worker dies."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.engine.conftest import COMMANDS, by_command, encoded, written
from tests.tables import FAST, fused

import weft
from weft import engine
from weft.data.table import Table
from weft.engine import ray as ray_engine
from weft.errors import DataError, RunError, SettingsError, UsageError
from weft.inference import parts
from weft.progress import Bar, Silent
from weft.runs.run import Run

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ray_engine.Ray]:
    """A cluster of two workers for all tests of this file."""
    import ray

    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:2])
    found = ray_engine.Ray()
    os.sched_setaffinity(0, mine)
    yield found
    found.close()
    assert not ray.is_initialized()


@pytest.fixture
def begin(cluster: ray_engine.Ray, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ray_engine.Ray]:
    """From its call on steps run on the cluster."""

    def begin() -> ray_engine.Ray:
        monkeypatch.setattr(engine, "_engine", cluster)
        return cluster

    return begin


@pytest.fixture
def started(begin: Callable[[], ray_engine.Ray]) -> ray_engine.Ray:
    return begin()


def test_results_come_in_order_and_few_items_are_taken_ahead(started) -> None:
    taken: list[int] = []
    pause = {3: 0.4}

    def items() -> Iterator[int]:
        for i in range(40):
            taken.append(i)
            yield i

    def slow(i: int) -> tuple[int, int]:
        import threading

        threading.Event().wait(pause.get(i, 0))
        return i * i, os.getpid()

    found = []
    for result in engine.over(slow, items()):
        found.append(result)
        assert len(taken) <= len(found) + 2 * ray_engine.AT_ONCE * 2
    assert [square for square, _ in found] == [i * i for i in range(40)]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2


def test_an_item_whose_worker_dies_is_done_by_another_and_one_that_kills_all_is_said(started, tmp_path: Path) -> None:
    mark = str(tmp_path / "died")

    def dies_once(i: int) -> int:
        if i == 5 and not os.path.exists(mark):  # noqa: PTH110
            os.mkdir(mark)  # noqa: PTH102
            os._exit(1)
        return i + 1

    assert list(engine.over(dies_once, range(12))) == list(range(1, 13)) and Path(mark).exists()
    with pytest.raises(RunError, match="4 workers died"):
        list(engine.over(lambda i: os._exit(1), range(2)))
    assert list(engine.over(lambda i: i, range(3))) == [0, 1, 2]


def test_items_go_where_a_cpu_is_free_and_none_free_is_said(
    started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    class Other:
        def here(self) -> None: ...

    started.rest()
    monkeypatch.setattr(ray_engine, "PATIENCE", 0.5)
    others = [ray.remote(Other).options(num_cpus=1).remote() for _ in range(started._most)]
    ray.get([other.here.remote() for other in others])
    threading.Timer(2.0, ray.kill, [others[0]]).start()
    found = list(engine.over(lambda i: (i, os.getpid()), range(20)))
    assert [i for i, _ in found] == list(range(20)) and len({pid for _, pid in found}) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(f"no worker has started: all {started._most} CPUs of the cluster are taken by others") == 1
    for other in others[1:]:
        ray.kill(other)
    started.rest()


def test_what_a_step_raises_is_raised_here_as_it_is(started) -> None:
    def bad(error: Exception) -> None:
        raise error

    with pytest.raises(DataError, match=r"^t: must hold\. Got 1\.$") as caught:
        list(engine.over(bad, [DataError("t: must hold. Got 1.")]))
    assert caught.type is DataError
    with pytest.raises(SettingsError) as several:
        list(engine.over(bad, [SettingsError(["a: one", "b: two"])]))
    assert several.value.problems == ["a: one", "b: two"]


@pytest.mark.parametrize("name", ["csv", "small", "large"])
def test_predictions_are_those_of_this_process_bit_for_bit(name: str, run: Run, tables, tmp_path: Path, begin) -> None:
    run.predict_file(tables[name], tmp_path / "here.parquet", keep=("colour",))
    begin()
    done = run.predict_file(tables[name], tmp_path / "there.parquet", keep=("colour",))
    assert done["rows"] == 3_000 and done["rejected"] == (2 if name == "csv" else 1)
    assert written(tmp_path, "there.parquet") == written(tmp_path, "here.parquet")
    assert pq.read_table(tmp_path / "there.parquet")["row"].to_pylist() == sorted(
        set(range(3_000)) - ({776, 1_499} if name == "csv" else {950})
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_texts_and_vectors_are_those_of_this_process_bit_for_bit(
    command: str, writer: str, texts: str, tmp_path: Path, cluster: ray_engine.Ray
) -> None:
    cluster.rest()  # a command brings workers of its own, for which there must be room
    there = by_command(command, writer, texts, tmp_path, "ray")
    assert there == by_command(command, writer, texts, tmp_path, "local")


def test_codes_of_texts_pairs_and_dialogues_are_those_of_this_process(tmp_path: Path, begin) -> None:
    here = encoded(tmp_path / "here")
    begin()
    assert encoded(tmp_path / "there") == here and len(here) > 10


class _Watch(Silent):
    """Does something when so many rows are done."""

    def __init__(self, rows: int, do: Callable[[], None]):
        self.rows, self.do, self.done = rows, do, 0.0

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        watch = self

        class Seen(Bar):
            def advance(self, amount: float, note: str = "") -> None:
                before, watch.done = watch.done, watch.done + amount
                if before < watch.rows <= watch.done:
                    watch.do()

        yield Seen()


def test_a_worker_that_is_killed_in_the_middle_costs_no_row(run: Run, tables, tmp_path: Path, started) -> None:
    import ray

    killed = []

    def kill() -> None:
        killed.append(ray.get(started._workers[0].__ray_call__.remote(lambda self: os.getpid())))
        os.kill(killed[0], signal.SIGKILL)

    done = run.predict_file(tables["small"], tmp_path / "there.parquet", say=_Watch(800, kill))
    assert killed and done["rows"] == 3_000
    assert pq.read_table(tmp_path / "there.parquet").num_rows == 2_999


def test_a_job_that_was_stopped_on_ray_goes_on_in_this_process(
    run: Run, tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin
) -> None:
    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)
    run.predict_file(tables["small"], tmp_path / "whole.parquet")

    def stop() -> None:
        raise KeyboardInterrupt

    begin()
    with pytest.raises(KeyboardInterrupt):
        run.predict_file(tables["small"], tmp_path / "there.parquet", say=_Watch(1_000, stop))
    assert len(list((tmp_path / ".there.parquet.parts").glob("part-*"))) >= 2
    monkeypatch.setattr(engine, "_engine", None)
    rest = _Watch(10**9, stop)
    run.predict_file(tables["small"], tmp_path / "there.parquet", say=rest)
    assert 0 < rest.done <= 2_200
    assert written(tmp_path, "there.parquet") == written(tmp_path, "whole.parquet")


def test_a_file_that_workers_do_not_see_is_named(started, tables, tmp_path: Path) -> None:
    table = Table.open(tables["small"])
    fragment = next(iter(table.fragments(["price"])))
    (tmp_path / "a").mkdir()
    away = type(fragment.what)(str(tmp_path / "a" / "gone.parquet"), 1, "parquet", fragment.what.filesystem, group=0)
    with pytest.raises(DataError, match=r"gone\.parquet: must be where every worker can read it"):
        list(engine.over(lambda f: list(f.batches()), [type(fragment)(away, ["price"], table.columns)]))


@pytest.mark.parametrize("rows", [0, 400, 1_000, 1_400, 2_600])
@pytest.mark.parametrize("name", ["csv", "small", "large"])
def test_fragments_are_the_batches_of_the_table(name: str, rows: int, tables) -> None:
    table = Table.open(tables[name])
    ends = [0, *(raw.end(0) for raw in table.batches(rows=150))]
    first = max(end for end in ends if end <= rows)
    here = [(raw.rows.tolist(), raw.batch, raw.rejected) for raw in table.after(first).batches(rows=150)]
    rest = table.after(first)
    there = [raw for fragment in rest.fragments(rows=150) for raw in fragment.batches()]
    assert [(raw.rows.tolist(), raw.batch, raw.rejected) for raw in there] == here
    assert [rest.place(row) for row in (first, 1_700, 2_999)] == [table.place(row) for row in (first, 1_700, 2_999)]


def test_an_engine_that_is_none_or_not_there_or_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--engine: must be one of 'local', 'ray', 'spark'\. Got 'rai'\. Did you"):
        engine.running("rai").__enter__()
    with pytest.raises(DataError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: must be the address of a Ray cluster"):
        ray_engine._knock("127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UsageError, match=r'--engine ray: needs the library ray\. Install it: pip install "weft\[ray\]"'
    ):
        engine.running("ray").__enter__()
    assert not engine.spread()


def test_numbers_travel_as_they_are(started) -> None:
    given = [np.arange(i, dtype=np.int64) for i in range(5)]
    found = list(engine.over(lambda a: a * 2, given))
    assert all(np.array_equal(f, 2 * g) for f, g in zip(found, given, strict=True))


@pytest.mark.slow
def test_a_run_is_that_of_this_process_bit_for_bit(tables, tmp_path: Path, begin) -> None:
    """Cleaning with personal data, both ways of copies, statistics of every kind, codes: what follows is the same."""
    table = fused(700)
    review = [None if t is None else t + (" a@b.org" if i % 7 == 0 else "") for i, t in
              enumerate(table["review"].to_pylist())]  # fmt: skip
    table = table.set_column(table.schema.get_field_index("review"), "review", pa.array(review))
    pq.write_table(pa.concat_tables([table, table.slice(100, 50)]), tmp_path / "t.parquet", row_group_size=200)
    given = {**FAST, "preprocess": {"duplicates": "near", "redact": ["email"]}}
    settings = given | {"data": {"source": str(tmp_path / "t.parquet")}, "target": "bought"}
    here = weft.Pipeline(settings).run(out=tmp_path / "here", quiet=True)
    begin()
    there = weft.Pipeline(settings).run(out=tmp_path / "there", quiet=True)
    for name in ("columns.json", "tokenizer.json", "split.npy", "model.safetensors", "duplicates.parquet"):
        assert (there.path / name).read_bytes() == (here.path / name).read_bytes(), name
    assert there.figures["data"] == here.figures["data"] and there.figures["data"]["copies"]["rows"] >= 50
    assert there.figures["redact"] == here.figures["redact"]
