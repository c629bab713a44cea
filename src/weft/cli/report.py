"""``weft report RUN``"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from weft.cli import answer
from weft.runs.opening import open_run


def report(run: Path, /, *, language: Literal["en", "zh"] | None = None, json: bool = False) -> None:
    """Write the report of a run again and say where it is.

    Args:
        run: The run folder.
        language: Of the page, en or zh (default: as the run was told, `results: {report: zh}`, else English).
        json: One JSON object on stdout: the figures of the report.
    """
    done = open_run(run)
    path = done.report(language)
    answer(
        json,
        done.figures,
        [done.figures["headline"], *done.figures.get("verdict", {}).get("lines", []), f"report:  {path}"],
    )
