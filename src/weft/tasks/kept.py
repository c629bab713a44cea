"""What a run that goes on from another gains on its own texts and loses on those of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.data.table import Table
from weft.errors import WeftError
from weft.models.language import LanguageModel
from weft.results.language import Surprise, carried_over, carried_sentence
from weft.runs.language import LanguageRun


class Kept:
    """The test texts of the run that is gone on from, and what they cost before anything is learnt anew.

    ``why`` says why they cannot be had: the data are no longer there, or have changed.
    """

    def __init__(self, path: Path, model: LanguageModel, before_new: Surprise):
        self.path, self.before_new, self.why = path, before_new, ""
        self._run = LanguageRun(path)
        self._table: Table | None = None
        self._before_old: Surprise | None = None
        data = self._run.settings.data
        try:
            if data.source is None:
                self.why = "it learnt from rows in memory"
                return
            table = Table.open(data.source, data.format)
            if table.fingerprint() != self._run.figures["data"]["fingerprint"]:
                self.why = f"{table.name} is not what it was"
                return
        except WeftError as error:
            self.why = str(error)
            return
        self._table, self._before_old = table, self._run.judge(table, model).lost

    def figures(self, model: LanguageModel, after_new: Surprise, masked: bool) -> dict[str, Any]:
        """What ``report.json`` says: before, after and the change on the new texts and on the old ones."""
        old = None
        if self._table is not None and self._before_old is not None:
            old = (self._before_old, self._run.judge(self._table, model).lost)
        found: dict[str, Any] = carried_over((self.before_new, after_new), old, masked)
        words = carried_sentence(found, masked, str(self.path))
        return {
            "from": str(self.path),
            "why": self.why,
            "words": words,
            "metric": self._run.figures["shown"][0],
            **found,
        }
