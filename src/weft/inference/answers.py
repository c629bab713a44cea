"""Answers to questions from a text: the best span over the windows of a context, as its characters.

The score of a span is the logit of its first token as a beginning plus that of its last as an end; that of no
answer is the least over the windows of the two logits of the first token. No answer is given where the best span
is not ahead of it by a threshold (Devlin 2019, 4.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import Tensor

from weft.data.table import RawBatch, Table
from weft.features.batching import collate, in_turn, tokens_to_read
from weft.features.ragged import take
from weft.features.windows import WINDOW, Frame, Windows, cut_windows
from weft.inference.predict import Predicted, Reader
from weft.models.language import LanguageModel
from weft.preprocess.clean import CleanBatch
from weft.preprocess.paired import AnswerCleaner
from weft.training.reading import span_logits

ROWS_AT_ONCE = 512


@dataclass
class Answers:
    """The best span of each context [N] as characters, what it leads no answer by, and the probabilities.

    ``start`` and ``end`` are -1 where a context has no span at all. ``probability`` is that of the span among all
    spans of its windows and no answer, ``nothing`` that of no answer.
    """

    text: np.ndarray
    start: np.ndarray
    end: np.ndarray
    margin: np.ndarray
    probability: np.ndarray
    nothing: np.ndarray

    def given(self, threshold: float) -> np.ndarray:
        """Which rows are answered [N]; the others have no answer."""
        return (self.margin > threshold) & (self.start >= 0)

    @classmethod
    def none(cls) -> Answers:
        whole, share = np.zeros(0, np.int64), np.zeros(0)
        return cls(np.zeros(0, object), whole, whole, share, share, share)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        parts = [cls.none(), *parts]
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


class Answerer:
    """Finds answers with a model that was trained to.

    Args:
        longest: tokens of a window.
        most: tokens of the longest answer that is looked for.
        threshold: what a span must lead no answer by to be given.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, longest: int, most: int, threshold: float):
        self.model, self.tokenizer, self.longest, self.most = model.eval(), tokenizer, longest, most
        self.threshold, self.frame = threshold, Frame.of(tokenizer)
        tokenizer.encode_special_tokens = True  # one in a question is letters, as when it learnt
        self.cut = 0
        """Questions so far that were longer than half a window and lost their end."""

    def __call__(self, questions: Sequence[str], contexts: Sequence[str]) -> Answers:
        windows = cut_windows(questions, contexts, self.tokenizer, self.frame, self.longest)
        self.cut += windows.cut
        begin, last, score, total, nothing, _ = self._windows(windows)
        rows = len(questions)
        texts, starts, ends = np.full(rows, "", object), np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
        margin, probability, none = np.full(rows, -np.inf), np.zeros(rows), np.ones(rows)
        bounds = np.searchsorted(windows.row, np.arange(rows + 1))
        for row, (first, stop) in enumerate(pairwise(bounds.tolist())):
            best = first + int(np.argmax(score[first:stop]))
            null = nothing[first:stop].min()
            if not np.isfinite(score[best]):
                continue
            a, b = windows.characters(best, int(begin[best]), int(last[best]))
            text = contexts[row][a:b]
            starts[row] = a + len(text) - len(text.lstrip())
            texts[row] = text.strip()
            ends[row] = starts[row] + len(texts[row])
            margin[row] = score[best] - null
            everything = np.logaddexp.reduce([*total[first:stop], null])
            probability[row], none[row] = np.exp(score[best] - everything), np.exp(null - everything)
        return Answers(texts, starts, ends, margin, probability, none)

    def log_odds(self, questions: Sequence[str], contexts: Sequence[str], starts: np.ndarray, letters: int
                 ) -> np.ndarray:  # fmt: skip
        """ln p / (1 - p) [N] of the answer of so many ``letters`` from each of ``starts`` on; below 0: of no answer."""
        windows = cut_windows(questions, contexts, self.tokenizer, self.frame, self.longest)
        _, _, _, total, nothing, asked = self._windows(windows, windows.targets(starts, starts + letters))
        first = np.searchsorted(windows.row, np.arange(len(starts)))
        null = np.minimum.reduceat(nothing, first)
        least = np.logaddexp(np.logaddexp.reduceat(total, first), null)
        # an answer may be longer than those that are looked for
        share = np.where(starts < 0, null, np.maximum.reduceat(asked, first)) - least
        share = np.minimum(share, -1e-12)
        return share - np.log(-np.expm1(share))

    @torch.no_grad()
    def _windows(self, windows: Windows, at: dict[str, np.ndarray] | None = None) -> tuple[np.ndarray, ...]:
        """Of each window: first and last token of its best span, its score, log of the sum over spans, no answer's;
        and the score of the span ``at`` its first and last token, where the window holds it."""
        codes = windows.codes()
        lengths = codes["tokens"].lengths()
        begin, end = np.zeros((2, len(lengths)), np.int64) if at is None else (at["begin"], at["end"])
        found = np.full((6, len(lengths)), -np.inf)
        weight = self.model.table.weight
        budget = tokens_to_read(weight.shape[1], weight.device.type)
        for places in in_turn(np.arange(len(lengths)), lengths, budget):
            batch = collate({WINDOW: {n: take(a, places) for n, a in codes.items()}}, len(places))
            fields = batch.to(weight.device).columns[WINDOW]
            logits = span_logits(self.model, fields).float()
            found[:5, places] = _best(logits, fields["context"], self.most)
            held = np.flatnonzero(begin[places] > 0)
            ends = logits[held, begin[places[held]], 0] + logits[held, end[places[held]], 1]
            found[5, places[held]] = ends.double().cpu().numpy()
        return (found[0].astype(np.int64), found[1].astype(np.int64), *found[2:])

    def as_columns(self, output: Answers) -> dict[str, pa.Array]:
        """Answers as columns for a person: ``prediction`` and ``start`` are missing where there is no answer."""
        given = output.given(self.threshold)
        return {
            "prediction": pa.array(output.text, pa.string(), mask=~given),
            "start": pa.array(output.start, pa.int64(), mask=~given),
            "probability": pa.array(np.where(given, output.probability, output.nothing), pa.float32()),
        }


def _best(logits_BT2: Tensor, context_B: Tensor, most: int) -> np.ndarray:
    """Begin, last, score, log-sum and no answer [5, B] over the spans of at most ``most`` tokens of each window."""
    width = logits_BT2.shape[1]
    nothing = logits_BT2[:, 0].sum(dim=1)
    inside = torch.arange(width, device=logits_BT2.device) >= context_B[:, None]
    begin, end = logits_BT2.masked_fill(~inside.unsqueeze(-1), -torch.inf).unbind(-1)
    # [B, most, T]: a span of d more tokens than one that begins at t
    later = torch.nn.functional.pad(end, (0, most - 1), value=-torch.inf).unfold(1, most, 1).transpose(1, 2)
    scores = (begin[:, None] + later).flatten(1)
    score, place = scores.max(dim=1)
    first, more = place % width, place // width
    return torch.stack(
        [first.double(), (first + more).double(), score.double(), scores.double().logsumexp(dim=1), nothing.double()]
    ).cpu().numpy()  # fmt: skip


class AnswerPredictor(Answerer):
    """Answers the rows of tables.

    Args:
        question, context: the columns read.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, longest: int, most: int, threshold: float, question: str,
        context: str,
    ):  # fmt: skip
        super().__init__(model, tokenizer, longest, most, threshold)
        self.question, self.context = question, context
        self.without: list[str] = []  # no column can be absent

    def stream(
        self, table: Table, keep: Sequence[str] = (), answer: str | None = None, start: str | None = None
    ) -> Iterator[Predicted]:
        """Answers batch by batch, in order. Raises as :meth:`reader`."""
        for raw, clean in self.reader(table, keep, answer, start).over(table):
            yield self.answer(raw, clean)

    def answer(self, raw: RawBatch, clean: CleanBatch) -> Predicted:
        """The answers to clean rows."""
        return Predicted(raw, clean, self(*(clean.columns[n].to_pylist() for n in (self.question, self.context))))

    def reader(
        self, table: Table, keep: Sequence[str] = (), answer: str | None = None, start: str | None = None
    ) -> Reader[CleanBatch]:
        """How questions and contexts are read. Columns in ``keep`` come along in ``raw``, the ``answer`` in ``clean``.

        Raises:
            DataError: a column that is read is absent.
        """
        cleaner = AnswerCleaner(self.question, self.context, answer, start)
        table.require(list(cleaner.plans))
        return Reader(list(dict.fromkeys([*cleaner.plans, *keep])), ROWS_AT_ONCE, cleaner)
