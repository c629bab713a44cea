"""Weft: every column of a table becomes tokens; one large model reads the row.

    run = weft.train(table, target="recommended")
    run.predict(table)

Three doors of rising power: ``weft.train``; ``weft.Pipeline`` with the settings of a pipeline file; the
parts (``weft.models``, ``weft.features``, ...). Nothing here imports torch until it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.runs.run import Run

__all__ = ["Pipeline", "WeftError", "load", "train"]


class Pipeline:
    """The settings of a pipeline file, ready to run.

    Args:
        settings: a mapping of the same shape as a pipeline file, or the path of one.
    """

    def __init__(self, settings: Mapping[str, Any] | str | Path):
        from weft import config

        self.settings = config.from_mapping(settings) if isinstance(settings, Mapping) else config.load(settings)

    def run(self, table: Any = None, out: str | Path | None = None, resume: bool = False, quiet: bool = False) -> Run:
        """Train. ``table``: rows in memory (anything with ``__arrow_c_stream__``) instead of ``data.source``."""
        from weft import pipeline
        from weft.data.table import Table
        from weft.progress import Silent, Spoken

        settings = self.settings
        if isinstance(table, (str, Path)):  # a run knows the file it learnt from
            data = settings.data.model_copy(update={"source": str(table)})
            settings, table = settings.model_copy(update={"data": data}), None
        source = None if table is None else Table.of(table)
        return pipeline.run(settings, source, out, Silent() if quiet else Spoken(), resume)


def train(
    table: Any,
    target: str | Mapping[str, Any],
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train a model that predicts ``target`` from the other columns of ``table``.

    Args:
        table: a path, or anything with ``__arrow_c_stream__`` (pandas, polars, Arrow, DuckDB), or a dict of columns.
        target: the column to predict; or ``{"next_token": column}``, ``{"masked_token": column}`` for a language model.
        out: the run folder, new or empty; default ``runs/1``, ``runs/2``, ...
        quiet: say nothing on stderr.
        **settings: sections of a pipeline file, e.g. ``training={"epochs": 5}``, ``features={"id": "off"}``.

    Returns:
        the finished run: ``run.predict(table)``, ``run.evaluate(table)``, ``run.figures``, ``run.path``.

    Raises:
        WeftError: with where, what must hold, what came and what to do.
    """
    return Pipeline({**settings, "target": target}).run(table, out, quiet=quiet)


def load(path: str | Path) -> Run:
    """A finished run, its files verified."""
    from weft.runs.opening import open_run

    return open_run(path)
