"""AnswerRun: the folder that extractive question answering leaves, and what can be asked of it.

    weft.yaml  model.safetensors  config.json  tokenizer.json  metrics.jsonl
    report.html  report.json  rejected.parquet  README.md  manifest.json

The folder is a checkpoint as well; one of BERT's shape is a BertForQuestionAnswering of ``transformers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.inference.answers import AnswerPredictor, Answers
from weft.models.pretrained import load_language_model
from weft.results.answers import answer_metrics
from weft.results.explain.reading import AnswerQuestion
from weft.results.metrics import with_intervals
from weft.runs.asked import AskedRun
from weft.runs.judged import JudgedRows
from weft.runs.run import check_readable


class AnswerRun(AskedRun):
    """A finished run whose model finds the answer to a question in a text, or that there is none."""

    @cached_property
    def _answerer(self) -> AnswerPredictor:
        model, tokenizer = load_language_model(self.path)
        return answerer_of(model, tokenizer, self.figures)

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """The answer to one question: ``prediction`` (None: there is none), ``start`` and ``probability``."""
        found = self._answerer([question], [context])
        return pa.table(self._answerer.as_columns(found)).to_pylist()[0]

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, AnswerQuestion]]:
        predictor = self._predictor(allow_missing)
        for _, clean in predictor.reader(source).over(source):
            check_readable(source.name, clean)
            columns = {n: clean.columns[n].to_pylist() for n in (predictor.question, predictor.context)}
            for place, row in enumerate(clean.rows.tolist()):
                texts = {name: cells[place] for name, cells in columns.items()}
                yield row, AnswerQuestion(predictor, texts, self.settings.target.name, of)

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """SQuAD's exact match and F1 on a table with the answers, each figure with its interval.

        On the very data of the training only the test rows count, unless ``everything``.
        """
        source, target = Table.of(table), self.settings.target.name
        source.require([target])
        start = self.figures["answers"]["start_column"]
        start = start if start in source.columns else None
        judged = JudgedRows.of(self.path, self.figures, source, everything)
        written: list[str] = []
        golds: list[str] = []
        rejected = 0
        for part in self._answerer.stream(source, answer=target, start=start):
            rejected += len(part.clean.rejected)
            use = judged(part.clean.rows)
            given = part.output.given(self._answerer.threshold)
            written += np.where(given, part.output.text, "")[use].tolist()
            golds += [gold or "" for gold in part.clean.columns[target].filter(pa.array(use)).to_pylist()]
        if not golds:
            raise DataError(f"{source.name}: must hold questions with contexts. Got none.")
        return {
            "rows": len(golds), "rejected": rejected,
            "part": judged.words(),
            "metrics": {k: e.to_dict() for k, e in with_intervals(answer_metrics(written, golds), len(golds)).items()},
        }  # fmt: skip

    def _predictor(self, allow_missing: bool) -> AnswerPredictor:
        if allow_missing:
            raise UsageError("--allow-missing: an answer needs its question and its context. Leave it out.")
        return self._answerer

    def _no_rows(self) -> Answers:
        return Answers.none()


def answerer_of(model: Any, tokenizer: Any, figures: dict[str, Any]) -> AnswerPredictor:
    """What answers as the figures of a run say."""
    a = figures["answers"]
    threshold = -np.inf if a["threshold"] is None else a["threshold"]
    return AnswerPredictor(
        model, tokenizer, figures["model"]["context"], a["most_tokens"], threshold, a["question"], a["context"]
    )
