"""The sections of an audit that ask what a run remembers: of the rows it learnt from, and of planted secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from weft.data.split import TRAIN, uniform
from weft.data.table import Table
from weft.features.canaries import Canary
from weft.results.audit.leaks import Beside, canaries_section, membership_section
from weft.runs.judged import JudgedRows

if TYPE_CHECKING:
    from weft.runs.run import Run

MOST = 10_000
"""Rows of each side that are asked about, drawn at random."""
CANDIDATES = 1_000


@runtime_checkable
class Remembers(Protocol):
    """A run that says what texts cost it."""

    def costs(self, texts: list[str]) -> np.ndarray: ...


@dataclass(frozen=True)
class Shadow:
    """A run of the same settings on other rows of the same table; ``learnt``: from which rows [rows of the table]."""

    run: Run
    learnt: np.ndarray


def judge_members(run: Run, source: Table, shadows: tuple[Shadow, ...] = ()) -> dict[str, Any] | None:
    """The section ``members``; None where the table is not that of the training, or the run gives no such figure."""
    if run.figures.get("task") not in (None, "next_token", "masked_token"):
        return None
    judged = JudgedRows.of(run.path, run.figures, source, everything=False)
    if (parts := judged.parts) is None:
        return None
    picked = np.sort(np.concatenate([_some(np.flatnonzero(parts == part)) for part in (TRAIN, judged.part)]))

    def chosen(rows: np.ndarray) -> np.ndarray:
        return np.isin(rows, picked)

    rows, scores = run.scores(source, chosen)
    beside = None
    if shadows:
        found = [shadow.run.scores(source, chosen) for shadow in shadows]
        beside = Beside(np.stack([s for _, s in found]), np.stack([s.learnt[rows] for s in shadows]))
    account = run.figures.get("privacy")
    # what is promised to owners is no promise about one of their rows that is exchanged for another
    bound = None if account is None or account["unit"] == "owners" else account
    return membership_section(scores, parts[rows] == TRAIN, beside, bound)


def judge_canaries(run: Run) -> dict[str, Any] | None:
    """The section ``canaries``; None where none were planted."""
    planted = [Canary(**c) for c in run.figures.get("canaries", ())]
    if not planted or not isinstance(run, Remembers):
        return None
    random = np.random.default_rng(0)
    ranks = []
    for canary in planted:
        texts = [canary.text, *(canary.other(random).text for _ in range(CANDIDATES - 1))]
        costs = run.costs(texts)
        ranks.append(1 + int((costs[1:] <= costs[0]).sum()))
    return canaries_section([c.times for c in planted], ranks, CANDIDATES)


def _some(rows: np.ndarray) -> np.ndarray:
    return rows if len(rows) <= MOST else rows[np.argsort(uniform(7, rows))[:MOST]]
