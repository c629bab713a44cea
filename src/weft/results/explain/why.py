"""Rows explained by a method, each with the checks that say whether the explanation can be trusted.

``shap``       what each part adds, on average over all orders; asks until the shares are sure enough
``lime``       the slopes of a straight line fitted near the row
``gradient``   integrated gradients
``attention``  where the model looked, which is not why it decided

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
from weft.results.explain.lime import by_line, draw_near
from weft.results.explain.nearest import Nearest
from weft.results.explain.sampling import SURE, alike, owen
from weft.results.explain.shapley import Shares
from weft.results.explain.texts import Player
from weft.results.pictures import data_address

EVALUATIONS = 1_024
METHODS = ("shap", "lime", "gradient", "attention")


@dataclass(frozen=True)
class Check:
    """One test of an explanation: ``value`` must be on the right side of ``limit``."""

    name: str
    value: float
    limit: float
    passed: bool


@dataclass
class Explanation:
    """Why the model says of one row what it says."""

    row: int
    method: str
    target: str
    of: str | None
    """The class or label that is explained; None where the answer is a number."""
    answer: str | float
    probability: float | None
    players: list[Player]
    shares: np.ndarray
    """What each player adds [P]; of attention: the share of the looks."""
    errors: np.ndarray
    """Standard errors of the shares [P]."""
    score: float
    """Log odds of ``of``, or the number, of the whole row."""
    base: float
    """The same without any player: of a typical row with no text."""
    checks: list[Check] = field(default_factory=list)
    change: Counterfactual | None = None
    change_to: str | None = None
    evaluations: int = 0
    seconds: float = 0.0
    task: str = "row"
    """What was asked: of a row (row), which item comes next (ranking), for an answer (span), how near (embedding)."""
    texts: dict[str, str] = field(default_factory=dict)
    """The text columns as the model reads them; ``start`` and ``end`` of their players count its characters."""
    pictures: dict[str, str] = field(default_factory=dict)
    """The pictures as the model sees them, as data addresses; their players are the patches, row by row."""
    nearest: Nearest | None = None

    @property
    def reliable(self) -> bool:
        return all(check.passed for check in self.checks)

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
                {"column": p.column, "shown": p.shown, "start": p.start, "end": p.end, "share": s, "error": e}
                for p, s, e in zip(self.players, self.shares.tolist(), self.errors.tolist(), strict=True)
            ],
            "checks": [
                {"name": c.name, "value": c.value, "limit": c.limit, "passed": c.passed} for c in self.checks
            ],
            "reliable": self.reliable, "change": change, "nearest": self._nearest(), "evaluations": self.evaluations,
            "seconds": self.seconds,
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
    found = _METHODS[method](games, evaluations, seed)
    flips = [counterfactual(games, clean, r) if changes else None for r in rows]
    target, classes = columns.target, games.classes
    seconds = (time.monotonic() - started) / max(1, len(rows))
    explained = []
    for r, (shares, errors, checks) in zip(rows, found, strict=True):
        name = classes[games.of[r]] if classes else None
        flip = flips[r]
        explained.append(
            Explanation(
                int(clean.rows[r]), method, target.name, name, str(name) if classes else float(games.output[r]),
                float(games.output[r, games.of[r]]) if classes else None, games.named(r), shares, errors,
                float(games.full[r]), float(games.empty[r]), checks, flip, classes[flip.answer] if flip else None,
                games.evaluations // max(1, len(rows)), seconds, texts=games.texts(r),
                pictures={name: data_address(pixels) for name, pixels in games.seen(r).items()},
            )
        )  # fmt: skip
    return explained


Found = list[tuple[np.ndarray, np.ndarray, list[Check]]]
"""Of each row: shares, standard errors, checks."""


def _shap(games: Games, evaluations: int, seed: int) -> Found:
    rows = range(len(games.players.rows))
    found: Found = []
    for r, (s, again) in enumerate(owen(games, [games.players.groups(r) for r in rows], evaluations, seed, SURE)):
        found.append((s.values, s.errors, shap_checks(s, games.full[r] - games.empty[r], again)))
    return found


def shap_checks(shares: Shares, whole: Any, again: float) -> list[Check]:
    """``whole``: what the shares must add up to, a number or [O]; ``again``: how alike other seeds' shares are."""
    missed, largest = np.abs(shares.values.sum(axis=0) - whole).max(), np.abs(shares.values).max(initial=0.0)
    return [
        at_most("adds up", missed / max(1e-3, np.abs(whole).max()), 1e-4),
        at_most("sampling error", shares.errors.max(initial=0.0) / max(largest, 1e-9), 0.25),
        at_least("same again", again, 0.7),
    ]


def _lime(games: Games, evaluations: int, seed: int) -> Found:
    rows = range(len(games.players.rows))
    near = [draw_near(max(1, len(games.named(r))), evaluations, np.random.default_rng([seed, r])) for r in rows]
    near = [n[:, : len(games.named(r))] for r, n in zip(rows, near, strict=True)]  # a row may hold nothing
    asked = games.ask(np.repeat(rows, evaluations), [p for n in near for p in n]).reshape(len(near), -1)
    found: Found = []
    for n, worth in zip(near, asked, strict=True):
        line = by_line(n, worth)
        first, second = by_line(n[::2], worth[::2]).weights, by_line(n[1::2], worth[1::2]).weights
        checks = [at_least("local R2", line.r2, 0.5), at_least("same again", alike(first, second), 0.7)]
        found.append((line.weights, np.abs(first - second) / 2, checks))
    return found


def _gradient(games: Games, evaluations: int, seed: int) -> Found:
    found: Found = []
    for r in range(len(games.players.rows)):
        done = integrated_gradients(games, r)
        found.append((done.values, np.zeros(len(done.values)), [at_most("completeness gap", done.gap, 0.05)]))
    return found


def _attention(games: Games, evaluations: int, seed: int) -> Found:
    looks = [rollout(games, r) for r in range(len(games.players.rows))]
    return [(look, np.zeros(len(look)), []) for look in looks]


_METHODS: dict[str, Callable[[Games, int, int], Found]] = dict(
    zip(METHODS, (_shap, _lime, _gradient, _attention), strict=True)
)


def at_most(name: str, value: float, limit: float) -> Check:
    return Check(name, float(value), limit, bool(value <= limit))


def at_least(name: str, value: float, limit: float) -> Check:
    return Check(name, float(value), limit, bool(value >= limit))
