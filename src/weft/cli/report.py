"""``weft report RUN``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import answer
from weft.run import Run


def report(run: Path, /, *, json: bool = False) -> None:
    """Write the report of a run again and say where it is.

    Args:
        run: The run folder.
        json: One JSON object on stdout: the figures of the report.
    """
    done = Run(run)
    path = done.report()
    answer(json, done.figures, [done.figures["headline"], *done.figures["verdict"]["lines"], f"report:  {path}"])
