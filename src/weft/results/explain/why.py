"""Rows explained by a method, each with the checks that say whether the explanation can be trusted.

``shap`` and ``lime``  see :mod:`weft.results.explain.methods`
``gradient``           integrated gradients
``attention``          where the model looked, which is not why it decided

Shares are log odds of a class or label, or the unit of a number: on these scales evidence adds up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from weft.features.columns import Columns
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.results.explain.counterfactual import Counterfactual, counterfactual
from weft.results.explain.game import Games
from weft.results.explain.gradient import integrated_gradients, rollout
from weft.results.explain.methods import Explained, Shared, at_most, lime, of_row, shap
from weft.results.explain.nearest import Nearest
from weft.results.pictures import data_address

EVALUATIONS = 1_024


@dataclass(kw_only=True)
class Explanation(Explained):
    """Why the model says of one row what it says.

    ``shares``: of attention the share of the looks. ``score`` and ``base``: log odds of ``of``, or the number, of the
    whole row and of a typical one with no text.
    """

    of: str | None
    """The class or label that is explained; None where the answer is a number."""
    answer: str | float
    probability: float | None
    change: Counterfactual | None = None
    change_to: str | None = None
    task: str = "row"
    """What was asked: of a row (row), which item comes next (ranking), for an answer (span), how near (embedding)."""
    pictures: dict[str, str] = field(default_factory=dict)
    """The pictures as the model sees them, as data addresses; their players are the patches, row by row."""
    nearest: Nearest | None = None

    def by_column(self) -> dict[str, float]:
        """The share of each column: the sum over its players."""
        found: dict[str, float] = {}
        for player, share in zip(self.players, self.shares.tolist(), strict=True):
            found[player.column] = found.get(player.column, 0.0) + share
        return found

    def _nearest(self) -> dict[str, Any] | None:
        if self.nearest is None:
            return None
        found = self.nearest
        told = {"agreeing": None if self.of is None else found.agreeing(self.answer)}
        return asdict(found) | told | {"disagrees": found.disagrees(self.answer)}

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        change = None
        if self.change is not None:
            made = [{"column": c.column, "was": c.was, "to": c.to} for c in self.change.changes]
            change = {"changes": made, "answer": self.change_to, "probability": self.change.probability}
        return {
            "row": self.row, "task": self.task, "method": self.method, "target": self.target, "of": self.of,
            "answer": self.answer, "probability": self.probability, "score": self.score, "base": self.base,
            "unit": "log odds" if self.of is not None else self.target, "columns": self.by_column(),
            "texts": self.texts, "pictures": self.pictures,
            "players": [
                {**asdict(p), "share": s, "error": e}
                for p, s, e in zip(self.players, self.shares.tolist(), self.errors.tolist(), strict=True)
            ],
            "checks": [asdict(c) for c in self.checks], "reliable": self.reliable, "change": change,
            "nearest": self._nearest(), "evaluations": self.evaluations, "seconds": self.seconds,
        }  # fmt: skip


def explain(
    columns: Columns, model: RowModels, clean: CleanBatch, method: str = "shap", of: int | None = None,
    evaluations: int = EVALUATIONS, seed: int = 0, changes: bool = True,
) -> list[Explanation]:  # fmt: skip
    """Explain every row of ``clean``.

    Args:
        method: one of ``METHODS``.
        of: the place of the class or label to explain; None: what the model answers.
        evaluations: most hidden rows that ``shap`` and ``lime`` ask the model about for one row.
        changes: whether to look for the smallest change that flips the answer, too.
    """
    started = time.monotonic()
    games = Games(columns, model, clean, of)
    rows = range(len(clean.rows))
    found = METHODS[method](games, evaluations, seed)
    flips = [counterfactual(games, clean, r) if changes else None for r in rows]
    each = max(1, len(rows))
    seconds, asked, classes = (time.monotonic() - started) / each, games.evaluations // each, games.classes
    explained = []
    for r, shared, flip in zip(rows, found, flips, strict=True):
        name = classes[games.of[r]] if classes else None
        told = vars(shared) | {"score": float(shared.score), "base": float(shared.base), "evaluations": asked}
        explained.append(
            Explanation(
                row=int(clean.rows[r]), method=method, target=columns.target.name, of=name,
                answer=float(games.output[r]) if name is None else str(name),
                probability=float(games.output[r, games.of[r]]) if classes else None, players=games.named(r),
                change=flip, change_to=classes[flip.answer] if flip else None, seconds=seconds, texts=games.texts(r),
                pictures={name: data_address(pixels) for name, pixels in games.seen(r).items()}, **told,
            )
        )  # fmt: skip
    return explained


def _gradient(games: Games, evaluations: int, seed: int) -> list[Shared]:
    found = []
    for r in range(len(games.full)):
        shares, gap = integrated_gradients(games, r)
        checks = [at_most("completeness gap", gap, 0.05)]
        found.append(of_row(games, r, shares, np.zeros(len(shares)), checks))
    return found


def _attention(games: Games, evaluations: int, seed: int) -> list[Shared]:
    looks = [rollout(games, r) for r in range(len(games.full))]
    return [of_row(games, r, look, np.zeros(len(look)), []) for r, look in enumerate(looks)]


METHODS: dict[str, Callable[[Games, int, int], list[Shared]]] = {
    "shap": lambda games, evaluations, seed: shap(games, games.groups, evaluations, seed),
    "lime": lambda games, evaluations, seed: lime(games, games.groups, evaluations, seed),
    "gradient": _gradient,
    "attention": _attention,
}
