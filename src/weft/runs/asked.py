"""AskedRun: a finished run whose answers are explained one by one: texts, recommendations, spans, nearness."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.results.explain.asked import METHODS, Question, check_method, why
from weft.results.explain.why import EVALUATIONS
from weft.runs.run import Run


class AskedRun(Run):
    """A finished run of a task beside those of a row's column."""

    methods: ClassVar[tuple[str, ...]] = METHODS
    """How its answers can be explained."""

    def explain(
        self, table: Any = None, method: str = "shap", of: str | None = None, evaluations: int = EVALUATIONS,
        seed: int = 0, allow_missing: bool = False, nearest: int = 0, training: Any = None, prompt: str | None = None,
    ) -> list[Any]:  # fmt: skip
        """Why the model says of each row what it says: an :class:`Explanation` each, of texts a :class:`Writing`.

        Hold the rows to a few, each costs up to ``evaluations``.

        Args:
            table: the rows, as for :meth:`predict`; of a run that goes on from texts, the texts it goes on from.
            method: shap or lime; of a run that writes, gradient too.
            of: what is explained in the place of what the model says: a text, the id of an item, a part of the
                context ("": no answer).
            evaluations: most questions that are put to the model about one row.
            prompt: of a run that writes, one text in the place of a table.

        Raises:
            UsageError: the method is not known, or what is to be explained cannot be.
            DataError: a column is absent, a row cannot be read, or there is nothing to explain.
        """
        check_method(method, self.methods)
        if nearest or training is not None:
            raise UsageError("nearest: is for a run that predicts a column. This one does not. Leave it out.")
        if (table is None) == (prompt is None):
            raise UsageError("explain: must have either a table or a prompt. Got both or neither. Give one of them.")
        if prompt is not None:
            return [why(self._question(prompt, of), 0, method, evaluations, seed)]
        source = Table.of(table)
        asked = self._questions(source, of, allow_missing)
        found = [why(question, row, method, evaluations, seed) for row, question in asked]
        if not found:
            raise DataError(f"{source.name}: must hold rows to explain. Got none.")
        return found

    @abstractmethod
    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Question]]:
        """Each row and what is to be explained of it."""

    def _question(self, prompt: str, of: str | None) -> Question:
        """What is to be explained of one text."""
        raise UsageError("prompt: is for a run that writes. This one does not. Give a table.")
