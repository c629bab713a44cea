"""Where steps run: in this process, over a Ray cluster, or over Spark.

A step is a function of what it is given (rows of a table as Arrow, a file's row group) and of nothing else, so that it
may run anywhere and again. An engine maps a step over items and gives the results in the items' order, whoever was
first, holds but a few of them, and gives an item whose worker died to another one. What is done with the results, in
their order, is done here: it is the same code, and the same bits, on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from weft.data.table import Fragment, RawBatch, Table
from weft.engine.ray import Ray
from weft.engine.spark import Spark
from weft.errors import UsageError, did_you_mean, listing

X = TypeVar("X")
Y = TypeVar("Y")


class Engine(Protocol):
    """Maps steps over items."""

    def map(self, step: Callable[[X], Y], items: Iterable[X]) -> Iterator[Y]:
        """What the step makes of each item, in their order; what a step raises is raised here."""

    def rest(self) -> None:
        """Let go of the workers until there is more to do."""

    def close(self) -> None:
        """Let go of what it took."""


ENGINES: dict[str, Callable[[], Engine]] = {"ray": Ray, "spark": Spark}
"""Beside ``local``."""
_engine: Engine | None = None


@contextmanager
def running(name: str) -> Iterator[None]:
    """While open, steps run on this engine.

    Raises:
        UsageError: there is no engine of that name, or its library is not installed.
        DataError: its cluster cannot be reached.
    """
    global _engine
    if name == "local":
        yield
        return
    if name not in ENGINES:
        known = ("local", *ENGINES)
        raise UsageError(f"--engine: must be one of {listing(known)}. Got {name!r}.{did_you_mean(name, known)}")
    _engine = ENGINES[name]()
    try:
        yield
    finally:
        engine, _engine = _engine, None
        engine.close()


def spread() -> bool:
    """Whether steps run elsewhere than in this process."""
    return _engine is not None


def rest() -> None:
    """Let workers go while this process alone has something to do."""
    if _engine is not None:
        _engine.rest()


def over(step: Callable[[X], Y], items: Iterable[X]) -> Iterator[Y]:
    """What a step makes of each item, in their order, on the engine that runs."""
    return map(step, items) if _engine is None else _engine.map(step, items)


def over_table(step: Callable[[RawBatch], Y], table: Table, columns: Iterable[str], rows: int) -> Iterator[Y]:
    """What a step makes of each batch of a table (:meth:`Table.batches`), in their order.

    Elsewhere than here the row groups of Parquet are read by who works on them; other formats are read here.
    """
    if _engine is None:
        yield from map(step, table.batches(columns, rows))
        return

    def whole(fragment: Fragment) -> list[Y]:
        return [step(raw) for raw in fragment.batches()]

    for found in _engine.map(whole, table.fragments(columns, rows)):
        yield from found
