"""The six steps in order; the only place that knows them all.

data -> preprocess -> features -> model -> inference -> results
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from weft import processes
from weft.config import Settings
from weft.data.table import Table
from weft.errors import SettingsError
from weft.progress import Silent
from weft.runs.run import Run
from weft.tasks.answers import AnswerSteps
from weft.tasks.dialogues import DialogueSteps
from weft.tasks.language import LanguageSteps
from weft.tasks.pairs import PairSteps
from weft.tasks.ranking import RankingSteps
from weft.tasks.rows import RowSteps
from weft.tasks.steps import Steps, free_name
from weft.tasks.texts import TextSteps

WAYS: dict[str, Callable[[Settings, Table | None, Path, Silent, bool], Steps]] = {
    "row": RowSteps, "next_token": LanguageSteps, "masked_token": LanguageSteps, "text": TextSteps,
    "dialogue": DialogueSteps, "span": AnswerSteps, "embedding": PairSteps,
    "ranking": RankingSteps,
}  # fmt: skip


def check_processes(settings: Settings, count: int) -> None:
    """Raises SettingsError where so many processes cannot train as the settings say."""
    t = settings.training
    if t.parallel is not None and count % t.parallel.tensor:
        wanted = t.parallel.tensor
        raise SettingsError(
            [f"training.parallel.tensor: the number of processes must be a multiple of it. Got {count} and {wanted}. "
             f"Start with --processes {wanted}, or change it."]
        )  # fmt: skip
    alone = {
        "federated": (t.federated, "plays all owners in one process, one after the other", "or remove it"),
        "search": (t.search, "tries settings in one process", "then train best.yaml with them"),
    }
    odd = [f"training.{name}: {what}. Got {count} processes. Leave out --processes, {do}."
           for name, (given, what, do) in alone.items() if given and count > 1]  # fmt: skip
    if odd:
        raise SettingsError(odd)


def run(
    settings: Settings,
    table: Table | None = None,
    out: str | Path | None = None,
    say: Silent | None = None,
    resume: bool = False,
) -> Run:
    """Train a model on a table; returns the finished run.

    Args:
        table: rows in memory; default: ``settings.data.source``.
        out: the run folder, new or empty unless ``resume``; default ``runs/1``, ``runs/2``, ...
        resume: go on from the newest checkpoint in ``out``; the result is that of a run never stopped.

    Raises:
        WeftError: one of its kinds; the message says where, what must hold, what came and what to do.
    """
    check_processes(settings, processes.count())
    way = WAYS[settings.target.task]
    steps = way(settings, table, Path(out or free_name()), say or Silent(), resume)
    with steps.holding:
        return steps.run()
