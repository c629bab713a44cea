"""The six steps for questions whose answers stand in a text: extractive question answering with "no answer"."""

from __future__ import annotations

import math
import shutil
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from weft.data.plan import Plan
from weft.data.split import TRAIN, VALID
from weft.data.task_plans import look_span
from weft.errors import DataError, SettingsError
from weft.features.pieces import IGNORED
from weft.features.store import Store, StoreWriter
from weft.features.windows import WINDOW, Frame, cut_windows
from weft.inference.answers import Answerer, Answers
from weft.language_defaults import longest
from weft.models.language import LanguageModel
from weft.preprocess.ingest import CleanRows
from weft.preprocess.paired import AnswerCleaner, answer_starts
from weft.results.answers import SHOWN, SHOWN_BOTH, Guesses, answer_metrics, answer_sentence, f1_each
from weft.results.beside import Judged, beside
from weft.runs.answers import AnswerRun
from weft.tasks.reading import ReadingSteps, Ready
from weft.training.calibration import fit_threshold
from weft.training.parallel import once
from weft.training.reading import SpanObjective

LONGEST = 384
"""Tokens of a window, as in Devlin 2019's code."""
MOST = 30
"""Tokens of an answer that are always allowed; more where the training answers are longer."""
BATCH = 8
ROWS_AT_ONCE = 1_024
EXAMPLES, EXCERPT = 8, 160


class AnswerSteps(ReadingSteps):
    """The span of a context that answers a question, or that there is none."""

    kind, asked = AnswerRun, "questions"

    def _ready(self) -> Ready:
        plan = look_span(self.settings, self.table)
        if self.settings.preprocess.normalize not in (None, "off"):
            raise SettingsError(
                [f"preprocess.normalize: answers are places in the text as it came. Got "
                 f"{self.settings.preprocess.normalize}. Remove it."]
            )  # fmt: skip
        source = self._open_source()
        if source is not None:
            Frame.of(source.tokenizer)
        self.question, self.context = list(plan.types)[:2]
        self.start = next((n for n, kind in plan.types.items() if kind == "number"), None)
        model = source.model if source else None
        self.longest = longest(self.settings, [self.question, self.context], LONGEST, model)
        clean, found = self._begin(plan, f"'{self.question}' is answered from '{self.context}'")
        with self._timed("features"):
            tokenizer = self._tokenizer(clean, source, [self.question, self.context])
            store, parts, rows = once(
                lambda: self._windows(clean, tokenizer),
                lambda: (Store(self.work / "store"), *np.load(self.work / "windows.npy")),
            )
        letters = 0 if source else round(self._letters(clean) * self.scale)
        return Ready(plan, clean, found, source, tokenizer, store, parts, BATCH, letters, rows)

    def _objective(self, ready: Ready) -> SpanObjective:
        return SpanObjective(self._reader(ready, span=True))

    def _infer(self, ready: Ready, model: LanguageModel, judged: np.ndarray) -> tuple[np.ndarray, Answers, float]:
        """The judged rows, their answers, and the threshold below which there is none."""
        answerer = Answerer(model, ready.tokenizer, self.longest, self.most, -math.inf)
        self._calibrate(answerer, ready.clean)
        answers = self._answers(answerer, ready.clean, judged)
        self.say.step("inference", f"{len(judged):,} questions answered")
        return judged, answers, answerer.threshold

    def _cleaner(self, plan: Plan) -> AnswerCleaner:
        return AnswerCleaner(self.question, self.context, plan.target, self.start)

    def _letters(self, clean: CleanRows) -> int:
        """Letters of the contexts that are learnt from, each counted once."""
        rows = np.flatnonzero(clean.parts == TRAIN)
        return sum(map(len, set(clean.take(rows, [self.context])[self.context].to_pylist())))

    def _windows(self, clean: CleanRows, tokenizer: Tokenizer) -> tuple[Store, np.ndarray, np.ndarray]:
        """Every window of every row into a store, what each is for [W] (IGNORED: nothing can be learnt of it), and of
        which row it is [W]."""
        target, frame = self.settings.target.name, Frame.of(tokenizer)
        folder = self.work / "store"
        shutil.rmtree(folder, ignore_errors=True)
        writer, parts, spans, of, cut, row = StoreWriter(folder), [], [], [], 0, 0
        with self.say.bar("encoding", len(clean)) as bar:
            for batch in clean.batches():
                starts = answer_starts(batch, self.context, target, self.start)
                questions, contexts, answers = (
                    batch.columns[n].to_pylist() for n in (self.question, self.context, target)
                )
                ends = starts + np.array([len((a or "").strip()) for a in answers], np.int64)
                for first in range(0, len(starts), ROWS_AT_ONCE):
                    some = slice(first, first + ROWS_AT_ONCE)
                    windows = cut_windows(questions[some], contexts[some], tokenizer, frame, self.longest)
                    targets = windows.targets(starts[some], ends[some])
                    writer.append({WINDOW: {**windows.codes(), **targets}}, len(windows.row))
                    of.append(row + first + windows.row)
                    part = clean.parts[of[-1]].astype(np.int64)
                    parts.append(np.where(targets["begin"] == IGNORED, IGNORED, part))
                    spans.append((targets["end"] - targets["begin"] + 1)[(part == TRAIN) & (targets["begin"] > 0)])
                    cut += windows.cut
                row += len(starts)
                bar.advance(len(starts))
        store, found, lengths = writer.close(), np.concatenate(parts), np.concatenate(spans)
        np.save(self.work / "windows.npy", [found, np.concatenate(of)])
        if not len(lengths):
            raise DataError(
                f"{self.table.name}: some training rows must have an answer in '{target}'. Got none that has."
            )
        self.most = max(MOST, int(lengths.max()))
        self.say.step(
            "features",
            f"{len(clean):,} questions as {len(found):,} windows of at most {self.longest:,} tokens"
            + (f"; {cut:,} questions were longer than half of one and were cut" if cut else ""),
        )
        return store, found, np.concatenate(of)

    def _answers(self, answerer: Answerer, clean: CleanRows, rows: np.ndarray) -> Answers:
        found = []
        with self.say.bar("answering", len(rows)) as bar:
            for some in np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE)):
                columns = clean.take(some, [self.question, self.context])
                found.append(answerer(columns[self.question].to_pylist(), columns[self.context].to_pylist()))
                bar.advance(len(some))
        return Answers.joined(found)

    def _golds(self, clean: CleanRows, rows: np.ndarray) -> list[str]:
        target = self.settings.target.name
        return [(gold or "").strip() for gold in clean.take(rows, [target])[target].to_pylist()]

    def _calibrate(self, answerer: Answerer, clean: CleanRows) -> None:
        """The threshold for no answer, by the validation rows; where every training row has one, all are answered."""
        if all(self._golds(clean, np.flatnonzero(clean.parts == TRAIN))):
            return
        watch = np.flatnonzero(clean.parts == VALID)
        golds, found = self._golds(clean, watch), self._answers(answerer, clean, watch)
        silent = np.array([not gold for gold in golds], np.float64)
        threshold = fit_threshold(found.margin, f1_each(found.text.tolist(), golds), silent)
        if math.isinf(threshold):  # all validation rows are alike; a figure that JSON can hold, beyond all of them
            finite = found.margin[np.isfinite(found.margin)]
            threshold = float(finite.max() + 1 if threshold > 0 else finite.min() - 1) if len(finite) else 0.0
        answerer.threshold = threshold
        self.say.line(f"no answer where the best span is not ahead by {threshold:.2f} (validation rows)")

    def _results(self, ready: Ready, said: tuple[np.ndarray, Answers, float], seen: str) -> dict[str, Any]:
        (judged, answers, threshold), clean = said, ready.clean
        golds, rows = self._golds(clean, judged), len(judged)
        written = np.where(answers.given(threshold), answers.text, "").tolist()
        ours = Judged.of("weft", "Weft", answer_metrics(written, golds), rows, seconds=self.seconds["model"])
        columns = clean.take(judged, [self.question, self.context])
        questions, contexts = columns[self.question].to_pylist(), columns[self.context].to_pylist()
        others = []
        if self.settings.baselines:
            learnt = np.flatnonzero(clean.parts == TRAIN)
            texts = clean.take(learnt, [self.context])[self.context].to_pylist()
            guesses = Guesses(texts, self._golds(clean, learnt))
            asked = list(zip(questions, contexts, strict=True))
            if not all(golds):
                others.append(Judged.of("trivial", "No answer, always", answer_metrics([""] * rows, golds), rows))
            words = "by the rarity of shared words"
            for key, title, guess in (("sentence", "The most similar sentence", guesses.sentence),
                                      ("window", "The nearest words", guesses.span)):  # fmt: skip
                others.append(Judged.of(key, title, answer_metrics([guess(*a) for a in asked], golds), rows, words))
        return beside(ours, others, rows, ["answer_f1"]) | {
            "headline": answer_sentence(ours.estimates, rows, seen),
            "shown": SHOWN_BOTH if "no_answer" in ours.estimates else SHOWN,
            "examples": self._examples(questions, contexts, golds, written, answers),
            "answers": {
                "question": self.question, "context": self.context, "start_column": self.start,
                "most_tokens": self.most, "threshold": None if math.isinf(threshold) else threshold,
            },
        }  # fmt: skip

    def _examples(
        self, questions: list[str], contexts: list[str], golds: list[str], written: list[str], answers: Answers
    ) -> list[dict[str, Any]]:
        """Some questions with their answers, right and wrong ones in turn."""
        f1 = f1_each(written, golds)
        right, wrong = np.flatnonzero(f1 == 1)[: EXAMPLES // 2], np.flatnonzero(f1 < 1)[: EXAMPLES // 2]
        found = []
        for row in np.sort(np.concatenate([right, wrong])).tolist():
            a, b = (answers.start[row], answers.end[row]) if written[row] else (0, 0)
            before, after = contexts[row][max(0, a - EXCERPT) : a], contexts[row][b : b + EXCERPT]
            found.append(
                {"question": questions[row], "before": before, "answer": written[row], "after": after,
                 "truth": golds[row], "right": bool(f1[row] == 1),
                 "probability": float((answers.probability if written[row] else answers.nothing)[row])}
            )  # fmt: skip
        return found
