"""Which kind of run a folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weft.exchange import open_text_model
from weft.inference.embed import Embedder
from weft.preprocess.letters import Redactor
from weft.runs.answers import AnswerRun
from weft.runs.dialogues import DialogueRun
from weft.runs.language import LanguageRun
from weft.runs.pairs import PairRun
from weft.runs.ranking import RankingRun
from weft.runs.run import REPORT_FILE, Run
from weft.runs.texts import TextRun

KINDS: dict[str, type[Run]] = {
    "text": TextRun, "dialogue": DialogueRun, "next_token": LanguageRun, "masked_token": LanguageRun,
    "span": AnswerRun, "embedding": PairRun, "ranking": RankingRun,
}  # fmt: skip
"""Task to the class of its run; a run of a row's column has no task."""


def open_run(path: str | Path) -> Run:
    """A finished run as what it is, its files verified."""
    return KINDS.get(task_of(Path(path)), Run)(path)


def open_embedder(path: Path) -> Embedder:
    """What turns texts into vectors with the model of a run, which replaces personal data where it learnt so."""
    stored = _figures(path).get("redact")
    return Embedder(open_text_model(path), None if stored is None else Redactor.from_dict(stored))


def task_of(path: Path) -> str:
    """The task of a run's folder; empty where it has none, or the folder holds no run."""
    return str(_figures(path).get("task", ""))


def _figures(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
