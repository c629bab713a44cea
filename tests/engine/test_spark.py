"""Over Spark the results are those of this process, bit for bit and in order."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.engine.conftest import COMMANDS, by_command, written
from tests.tables import mixed

import weft
from weft import engine
from weft.data.table import RawBatch
from weft.engine import spark as spark_engine
from weft.errors import DataError, RunError, UsageError
from weft.runs.run import Run

pytest.importorskip("pyspark")
pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.*:ResourceWarning"),
]


@pytest.fixture(scope="module")
def session() -> Iterator[spark_engine.Spark]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", "--master local[2,4] pyspark-shell")
        found = spark_engine.Spark()
    yield found
    found.close()


@pytest.fixture
def begin(session: spark_engine.Spark, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(engine, "_engine", session)


@pytest.mark.slow
def test_results_come_in_order_from_other_processes_window_by_window(begin) -> None:
    begin()
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(11):
            taken.append(i)
            yield i

    found = []
    for result in engine.over(lambda i: (i * i, os.getpid()), items()):
        found.append(result)
        assert len(taken) <= len(found) + 2 * spark_engine.AT_ONCE
    assert [square for square, _ in found] == [i * i for i in range(11)]
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.slow
def test_what_a_step_raises_is_raised_here_as_it_is(begin) -> None:
    begin()

    def bad(error: Exception) -> None:
        raise error

    with pytest.raises(DataError, match=r"^t: must hold\. Got 1\.$"):
        list(engine.over(bad, [DataError("t: must hold. Got 1.")]))
    with pytest.raises(RunError, match=r"--engine spark: a worker must .* ZeroDivisionError: none"):
        list(engine.over(bad, [ZeroDivisionError("none")]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csv", "small"])
def test_predictions_are_those_of_this_process_bit_for_bit(name: str, run: Run, tables, tmp_path: Path, begin) -> None:
    run.predict_file(tables[name], tmp_path / "here.parquet", keep=("colour",))
    begin()
    done = run.predict_file(tables[name], tmp_path / "there.parquet", keep=("colour",))
    assert done["rows"] == 3_000
    assert written(tmp_path, "there.parquet") == written(tmp_path, "here.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_texts_and_vectors_are_those_of_this_process_bit_for_bit(
    command: str, writer: str, texts: str, tmp_path: Path, session: spark_engine.Spark
) -> None:
    there = by_command(command, writer, texts, tmp_path, "spark")
    assert there == by_command(command, writer, texts, tmp_path, "local")


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_half_way_is_done_again(
    run: Run, tables, tmp_path: Path, begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, plain = tmp_path / "killed", engine.over_table
    run.predict_file(tables["small"], tmp_path / "here.parquet")
    begin()

    def dying(step: Any, table: Any, columns: Any, rows: int) -> Iterator[Any]:
        def once(raw: RawBatch) -> Any:
            if raw.rows[0] >= 1_000 and not mark.exists():
                mark.mkdir()
                os.kill(os.getpid(), signal.SIGKILL)
            return step(raw)

        return plain(once, table, columns, rows)

    monkeypatch.setattr(engine, "over_table", dying)
    done = run.predict_file(tables["small"], tmp_path / "there.parquet")
    assert mark.exists() and done["rows"] == 3_000
    assert written(tmp_path, "there.parquet") == written(tmp_path, "here.parquet")


@pytest.mark.slow
def test_a_run_predicts_a_frame_of_spark_as_the_page_says(run: Run, session: spark_engine.Spark) -> None:
    """docs/cluster.md: your own DataFrame, without --engine."""
    path = str(run.path)

    def step(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = weft.load(path)
        for batch in batches:
            yield from found.predict(pa.table(batch)).select(["prediction", "probability"]).to_batches()

    table = mixed(500, seed=7).drop_columns("when")
    frame = session._spark.createDataFrame(table)
    found = frame.mapInArrow(step, "prediction string, probability float").toArrow()
    with pytest.warns(UserWarning, match="when"):
        here = run.predict(table)
    assert found["prediction"].to_pylist() == here["prediction"].to_pylist()
    assert np.array_equal(found["probability"].to_numpy(), here["probability"].to_numpy())


def test_spark_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UsageError, match=r'--engine spark: needs the library pyspark, and Java\. .*"weft\[spark\]"'):
        engine.running("spark").__enter__()
