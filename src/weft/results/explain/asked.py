"""Shares of what a model of other tasks says: what it writes, recommends or answers, or how near two texts are.

A :class:`Question` says what the players are and what the model says without some of them: one answer, or several that
come out of the same reading (every word of a text), whose shares are then found from the same sample.

Shape suffixes: N hidden rows, P players, O answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tokenizers import Tokenizer

from weft.errors import DataError, UsageError, did_you_mean, listing
from weft.results.explain.game import Value
from weft.results.explain.methods import Shared, lime, shap
from weft.results.explain.texts import Player, Words
from weft.results.explain.why import Explanation

METHODS = ("shap", "lime")
AT_ONCE = 512
"""Hidden rows that are held together."""
MOST_WORDS = 64
"""Players of a row's texts; where there are more words, neighbouring ones are one player."""


class Question(Protocol):
    """What is asked of a model about one row."""

    players: list[Player]

    def ask(self, present: np.ndarray) -> np.ndarray:
        """What the model says [N, O] without the players that are not ``present`` [N, P]."""
        ...

    def explanation(self, shared: Shared, row: int, method: str) -> Any:
        """What the shares say: an Explanation, or of many words a Writing."""
        ...


@runtime_checkable
class Differentiable(Question, Protocol):
    """A question that gradients answer, too."""

    def integrated(self) -> Shared:
        """The shares by integrated gradients."""
        ...


class OneAnswer:
    """A question with one answer: its score is the log odds of ``of``, or a number where that is None."""

    players: list[Player]
    task: str
    target: str
    of: str | None
    answer: str | None = None
    """As a person reads it; None: the number."""
    texts: Mapping[str, str] = MappingProxyType({})

    def explanation(self, shared: Shared, row: int, method: str) -> Explanation:
        score, base = float(shared.score[0]), float(shared.base[0])
        told = vars(shared) | {"shares": shared.shares[:, 0], "errors": shared.errors[:, 0]}
        return Explanation(
            row=row, method=method, target=self.target, of=self.of,
            answer=score if self.answer is None else self.answer,
            probability=None if self.of is None else float(1 / (1 + np.exp(-score))), players=self.players,
            task=self.task, texts=dict(self.texts), **(told | {"score": score, "base": base}),
        )  # fmt: skip


def check_method(method: str, methods: Sequence[str]) -> None:
    """Raises UsageError where a run of some task is not explained by the method."""
    if method not in methods:
        near = did_you_mean(method, methods)
        raise UsageError(f"method: must be {listing(methods)} for a run of this task. Got {method!r}.{near}")


def why(question: Question, row: int, method: str, evaluations: int, seed: int) -> Any:
    """The explanation of a question about a row, from at most so many ``evaluations``."""
    started = time.monotonic()
    if method == "gradient":
        assert isinstance(question, Differentiable)  # the other runs take no such method
        shared = question.integrated()
    else:
        game = _Game(question)
        (shared,) = (lime if method == "lime" else shap)(game, [game.columns], evaluations, seed)
        shared.evaluations = game.asked
    found = question.explanation(shared, row, method)
    found.seconds = time.monotonic() - started
    return found


class _Game:
    """One question as the methods ask it; ``empty`` and ``full`` are [1, O]."""

    def __init__(self, question: Question):
        self.question, self.asked = question, 0
        names = [player.column for player in question.players]
        self.columns = np.array([names.index(name) for name in names], np.int64)
        everybody = np.ones((1, len(names)), bool)
        self.empty, self.full = self.of(~everybody), self.of(everybody)

    def of(self, present: np.ndarray) -> np.ndarray:
        """What the model says [N, O], some sets at once; one that comes twice is asked about once."""
        distinct, back = np.unique(present, axis=0, return_inverse=True)
        self.asked += len(distinct)
        pieces = np.split(distinct, range(AT_ONCE, len(distinct), AT_ONCE))
        return np.concatenate([self.question.ask(piece) for piece in pieces])[back.ravel()]

    def ask(self, row: np.ndarray, present: Sequence[np.ndarray]) -> np.ndarray:
        return self.of(np.stack(present)) if len(present) else self.full[:0]

    def game(self, row: int) -> Value:
        return self.of


def words_of(
    texts: Mapping[str, str], tokenizer: Tokenizer, fixed: Mapping[str, tuple[int, int]] | None = None
) -> list[Words]:
    """The texts with their words as players, or groups of neighbouring ones: about ``MOST_WORDS`` at most.

    ``fixed``: of a text the characters that are always there.

    Raises:
        DataError: there is no word.
    """

    def made(together: int) -> list[Words]:
        return [Words(name, text, tokenizer, together, (fixed or {}).get(name)) for name, text in texts.items()]

    found = made(1)
    count = sum(len(words.players) for words in found)
    if not count:
        raise DataError(f"{listing(texts)}: must hold a word that can be left out, to be explained. Got none.")
    return found if count <= MOST_WORDS else made(-(-count // MOST_WORDS))


def without(words: Sequence[Words], present: np.ndarray) -> list[str]:
    """The texts without the players that are not ``present`` [P]."""
    ends = np.cumsum([len(w.players) for w in words])
    return [w.without(part) for w, part in zip(words, np.split(present, ends[:-1]), strict=True)]
