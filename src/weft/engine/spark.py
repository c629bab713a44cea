"""Steps over Spark (Zaharia et al. 2016), by ``mapInArrow``: for teams that run it already.

The session is the one that runs, else one as the usual settings of Spark say (``SPARK_CONF_DIR``,
``PYSPARK_SUBMIT_ARGS``), else one on this machine. A job a window of items, which Spark does again where a worker died.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from weft.errors import RunError, UsageError, WeftError

AT_ONCE = 2
"""Items of a window for each task that Spark runs at once."""
_steps: dict[str, Any] = {}
"""Of a worker: the step it has, by its number in Spark."""


class Spark:
    """The engine ``spark``."""

    def __init__(self) -> None:
        try:
            from pyspark import cloudpickle
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError:
            raise UsageError(
                '--engine spark: needs the library pyspark, and Java. Install it: pip install "weft[spark]".'
            ) from None
        self._pickle, self._error = cloudpickle, PySparkException
        self._started = SparkSession.getActiveSession() is None
        try:
            self._spark = SparkSession.getActiveSession() or _start(SparkSession)
        except (PySparkException, RuntimeError) as error:
            raise UsageError(f"--engine spark: Spark must start. Got: {error}. Is Java installed?") from None

    def map(self, step: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """As :class:`weft.engine.Engine` says."""
        context, dumps = self._spark.sparkContext, self._pickle.dumps
        shipped, items = context.broadcast(dumps(step)), iter(items)
        task = _Task(uuid.uuid4().hex, shipped)
        try:
            while window := [dumps(item) for item in itertools.islice(items, AT_ONCE * context.defaultParallelism)]:
                asked = pa.table({"place": pa.array(range(len(window))), "item": pa.array(window, pa.binary())})
                done = self._spark.createDataFrame(asked).mapInArrow(task, "place long, result binary")
                for found in self._done(done.toArrow):
                    if isinstance(found, WeftError):
                        raise found
                    yield found
        finally:
            shipped.destroy()

    def _done(self, job: Callable[[], pa.Table]) -> Iterator[Any]:
        try:
            done = job()
        except self._error as error:
            said = [line for line in str(error).splitlines() if line.strip() and not line.startswith(" ")]
            raise RunError(
                f"--engine spark: a worker must be able to do its part. Got: {said[-1] if said else error}"
            ) from None
        for result in done.sort_by("place")["result"]:
            yield self._pickle.loads(result.as_buffer())

    def rest(self) -> None:
        """Spark itself lets go of workers that are idle, where it is set so."""

    def close(self) -> None:
        """Stop Spark, where it was started here."""
        if self._started:
            self._spark.stop()


class _Task:
    """What Spark does with a batch of items: the step on each."""

    def __init__(self, name: str, shipped: Any):
        self.name, self.shipped = name, shipped

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import cloudpickle

        if self.name not in _steps:
            _steps.clear()
            _steps[self.name] = cloudpickle.loads(self.shipped.value)
        for batch in batches:
            for place, item in zip(*batch.columns, strict=True):
                try:
                    found: Any = _steps[self.name](cloudpickle.loads(item.as_buffer()))
                except WeftError as error:  # Spark would try again, and show its own text
                    found = error
                result = pa.array([cloudpickle.dumps(found)], pa.binary())
                yield pa.RecordBatch.from_arrays([pa.array([place.as_py()]), result], names=["place", "result"])


def _start(session: Any) -> Any:
    """A session as the settings of Spark say; what they leave open is this machine alone, and quiet."""
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()  # its settings are known once Java runs
    conf = SparkConf()
    for name, value in {
        "spark.master": "local[*]", "spark.app.name": "weft", "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
    }.items():  # fmt: skip
        # workers of other machines answer the driver
        if not name.startswith("spark.driver.") or conf.get("spark.master", "").startswith("local"):
            conf.setIfMissing(name, value)
    return session.builder.config(conf=conf).getOrCreate()
