"""How good answers from a text are, beside guesses that learn nothing: SQuAD's figures, with and without an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import regex

from weft.results.metrics import Estimate, Weighted
from weft.results.text import UNIT, TextScores, answer_scores, language_of, units

SHOWN = ("answer_f1", "exact_match")
SHOWN_BOTH = (*SHOWN, "answer_f1_given", "no_answer")
_SENTENCE = regex.compile(r".+?(?:[.!?](?=\s|$)|[。！？]|\n|$)", regex.S)


def answer_metrics(written: Sequence[str], golds: Sequence[str]) -> dict[str, Weighted]:
    """SQuAD's exact match and F1 of answers; "" is no answer. Where some have one and some none, both apart too."""
    scores = TextScores(("squad",))
    scores.add(written, [[gold] for gold in golds])
    found = scores.metrics()
    given = np.array([bool(gold) for gold in golds], np.float64)
    if 0 < given.sum() < len(given):
        f1, exact = found["answer_f1"], found["exact_match"]
        found["answer_f1_given"] = lambda w: f1(w * given)
        found["no_answer"] = lambda w: exact(w * (1 - given))
    return found


def f1_each(written: Sequence[str], golds: Sequence[str]) -> np.ndarray:
    """SQuAD's F1 of each answer [N]."""
    chinese = language_of(golds) == "zh"
    return np.array([answer_scores(w, [g], chinese)[1] for w, g in zip(written, golds, strict=True)]).reshape(-1)


def answer_sentence(found: dict[str, Estimate], rows: int, seen: str) -> str:
    """The result in words."""
    f1, exact = found["answer_f1"], found["exact_match"]
    apart = ""
    if "no_answer" in found:
        apart = (
            f" Where there is an answer F1 is {found['answer_f1_given'].value:.1%}; of the questions without one "
            f"{found['no_answer'].value:.1%} were left unanswered."
        )
    return (
        f"On {rows:,} {seen}, the answers agree with the true ones in {f1.value:.1%} of their words (F1, "
        f"{f1.interval('.1%')}) and are the same in {exact.value:.1%}.{apart}"
    )


class Guesses:
    """Answers without a model, by the words that question and context share (Richardson 2013).

    A shared word counts by its rarity, log(N / n) over the N contexts that training saw. Words are characters in
    Chinese and Japanese.
    """

    def __init__(self, contexts: Sequence[str], answers: Sequence[str]):
        distinct = list(dict.fromkeys(contexts))
        seen = Counter(unit for text in distinct for unit in set(units(text)))
        self.contexts, self.seen = len(distinct), seen
        lengths = [len(units(answer)) for answer in answers if answer]
        self.length = max(1, int(np.median(lengths))) if lengths else 1

    def sentence(self, question: str, context: str) -> str:
        """The sentence that shares most with the question."""
        asked = set(units(question))
        sentences = [s for s in _SENTENCE.findall(context) if s.strip()] or [context]
        return max(sentences, key=lambda s: sum(self._rarity(u) for u in asked & set(units(s)))).strip()

    def span(self, question: str, context: str) -> str:
        """The words, as many as the median answer has, that stand nearest to those of the question but are none."""
        asked = set(units(question))
        found = [(m.start(), m.end(), m.group().lower()) for m in UNIT.finditer(context)]
        length = min(self.length, len(found))
        if not length:
            return ""
        weight = np.array([self._rarity(unit) if unit in asked else 0.0 for _, _, unit in found])
        places = np.arange(len(found))
        matches = np.flatnonzero(weight)
        first = np.arange(len(found) - length + 1)
        away = np.maximum(first[:, None] - places[matches], places[matches] - (first[:, None] + length - 1))
        near = (weight[matches] / np.where(away > 0, away, np.inf)).sum(axis=1)
        # what is asked with is no answer
        own = np.convolve(weight, np.ones(length), "valid")
        best = int(np.argmax(near - own))
        return context[found[best][0] : found[best + length - 1][1]]

    def _rarity(self, unit: str) -> float:
        return float(np.log((self.contexts + 1) / (self.seen[unit] + 1)))
