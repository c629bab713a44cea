"""The audit of a run on a table: each section answers one question, where the run and the table allow it.

A section is a dictionary that JSON holds, with ``said``: phrases and what fills them
(:mod:`weft.results.audit.words`). To add one: a function here in ``SECTIONS``, its title in
:mod:`weft.results.audit.page`, its template ``audit_NAME.html``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.models.pretrained import load_language_model
from weft.progress import Silent
from weft.results.audit.suites import SUITES
from weft.runs.leaks import Shadow, judge_canaries, judge_members
from weft.training.fit import threads

if TYPE_CHECKING:
    from weft.runs.run import Run

NARROW = 128
"""Up to this width one thread scores a sentence at a time sooner than several on a busy machine."""


@dataclass(frozen=True)
class Asked:
    """What an audit is asked for.

    by: columns that say to which group a row belongs. of: the class whose share counts (default: the one that is
    looked for of two). everything: judge all rows even on the data of the training. shadows: runs to compare with.
    """

    by: tuple[str, ...] = ()
    of: str | None = None
    allow_missing: bool = False
    everything: bool = False
    shadows: tuple[Shadow, ...] = ()


def _groups(run: Run, table: Table, asked: Asked) -> dict[str, Any] | None:
    if asked.by and _task(run) not in ("row", "text", "ranking"):
        raise UsageError(
            f"{run.path}: must be a run that predicts a column, writes one or recommends, to be judged by groups. "
            f"Leave out --by. How a language model leans, a published test says: --suite crows-pairs."
        )
    return run.judge_groups(table, asked) if asked.by else None


def _task(run: Run) -> str:
    return str(run.figures.get("task", "row"))


SECTIONS: dict[str, Callable[[Run, Table, Asked], dict[str, Any] | None]] = {
    "groups": _groups,
    "swaps": lambda run, table, asked: run.judge_swaps(table, asked) if _task(run) == "row" else None,
    "personal": lambda run, table, asked: run.judge_personal(table),
    "members": lambda run, table, asked: judge_members(run, table, asked.shadows),
    "canaries": lambda run, table, asked: judge_canaries(run),
}
"""Each gives None where it has nothing to say."""


def audit(run: Run, table: Table, asked: Asked) -> dict[str, Any]:
    """All sections that apply: ``run``, ``data`` and ``sections`` by name."""
    found = {name: make(run, table, asked) for name, make in SECTIONS.items()}
    sections = {name: section for name, section in found.items() if section is not None}
    return {"run": run.path.resolve().name, "data": table.name, "sections": sections}


def audit_suite(path: Path, source: Path, suite: str, say: Silent) -> dict[str, Any]:
    """The section ``suite``: how a language model leans, by a published test.

    Args:
        path: a run of a language task, or an imported checkpoint.
        source: the test as its authors publish it.
        suite: one of :data:`weft.results.audit.suites.SUITES`.
    """
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder. It must hold the test {suite}.")
    model, tokenizer = load_language_model(path)
    with threads(1 if model.config.backbone.width <= NARROW else None):
        section = SUITES[suite](model.eval(), tokenizer, source, say)
    return {"run": path.resolve().name, "data": source.name, "sections": {"suite": section | {"name": suite}}}
