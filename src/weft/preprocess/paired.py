"""Rows of two texts that belong together: a question and its context, a query and its document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weft.data.table import RawBatch, Rejected
from weft.preprocess.clean import CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.letters import Letters

NO_TEXT = "must hold text, is missing"


class PairCleaner(Cleaner):
    """A Cleaner that sets a row aside where one of the ``needed`` columns holds no text."""

    reason = NO_TEXT

    def __init__(self, plans: Mapping[str, ColumnPlan], letters: Letters, needed: Sequence[str]):
        super().__init__(plans, letters)
        self.needed = tuple(needed)

    def __call__(self, raw: RawBatch) -> CleanBatch:
        clean = super().__call__(raw)
        bad: dict[int, Rejected] = {}
        for name in self.needed:
            for place in np.flatnonzero(clean.columns[name].is_null().to_numpy(zero_copy_only=False)).tolist():
                bad.setdefault(place, Rejected(int(clean.rows[place]), name, self.reason, ""))
        return clean.without(bad)


class AnswerCleaner(PairCleaner):
    """... and where an answer is not in its context. No answer is an answer.

    Texts are kept as they came, letter for letter: answers are places in them.
    """

    def __init__(self, question: str, context: str, answer: str | None = None, start: str | None = None):
        texts = [name for name in (question, context, answer) if name is not None]
        plans = {name: ColumnPlan("verbatim") for name in texts}
        if start is not None:
            plans[start] = ColumnPlan("number")
        super().__init__(plans, Letters("off"), (question, context))
        self.context, self.answer, self.start = context, answer, start

    def __call__(self, raw: RawBatch) -> CleanBatch:
        clean = super().__call__(raw)
        if self.answer is None:
            return clean
        found = answer_starts(clean, self.context, self.answer, self.start)
        answers = clean.columns[self.answer].to_pylist()
        reason = f"must be in '{self.context}', letter for letter"
        bad = {
            place: Rejected(int(clean.rows[place]), self.answer, reason, answers[place][:1000])
            for place in np.flatnonzero(found < -1).tolist()
        }
        return clean.without(bad)


def answer_starts(clean: CleanBatch, context: str, answer: str, start: str | None) -> np.ndarray:
    """The character at which each answer, without spaces around it, begins [N]; -1: there is none, -2: not found.

    Where it occurs several times, the place nearest to ``start``, and the first where nothing is said.
    """
    rows = len(clean.rows)
    given = clean.columns[start].to_pylist() if start is not None else [None] * rows
    columns = (clean.columns[context].to_pylist(), clean.columns[answer].to_pylist(), given)
    return np.array([_start(*row) for row in zip(*columns, strict=True)], np.int64).reshape(rows)


def _start(context: str, answer: str | None, given: float | None) -> int:
    if answer is None:
        return -1
    answer = answer.strip()
    if given is None:
        place = context.find(answer)
        return place if place >= 0 else -2
    places = []
    place = context.find(answer)
    while place >= 0:
        places.append(place)
        place = context.find(answer, place + 1)
    return min(places, key=lambda p: abs(p - given)) if places else -2
