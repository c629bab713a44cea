"""``weft report RUN``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import answer
from weft.runs.opening import open_run


def report(run: Path, /, *, json: bool = False) -> None:
    """Write the report of a run again and say where it is.

    Args:
        run: The run folder.
        json: One JSON object on stdout: the figures of the report.
    """
    done = open_run(run)
    path = done.report()
    answer(
        json,
        done.figures,
        [done.figures["headline"], *done.figures.get("verdict", {}).get("lines", []), f"report:  {path}"],
    )
