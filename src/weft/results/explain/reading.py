"""Why a model that reads texts says what it says: an answer found in a context, or how near two texts are.

Of an answer the model says ln p / (1 - p) among all spans and no answer; the words of the answer itself are always
there. Of two texts it says the cosine of their vectors; the words of each are taken away while the other stays whole,

    v(S) = cos(a(S), b) + cos(a, b(S)) - cos(a, b),

since two texts without any words are the same.

Shape suffixes: N hidden rows, P players.
"""

from __future__ import annotations

import numpy as np

from weft.errors import UsageError
from weft.inference.answers import Answerer
from weft.inference.embed import Embedder
from weft.results.explain.asked import OneAnswer, without, words_of

NO_ANSWER = ""


class AnswerQuestion(OneAnswer):
    """The question why ``texts`` (what is asked, the context) lead to an answer.

    Args:
        of: the answer to explain, letter for letter, the first place of it; "": that there is none; None: what the
            model says.

    Raises:
        UsageError: ``of`` is not in the context.
    """

    task = "span"

    def __init__(self, answerer: Answerer, texts: dict[str, str], target: str, of: str | None):
        question, context = texts.values()
        self.answerer, self.texts, self.target = answerer, texts, target
        self.start, answer = -1, NO_ANSWER
        if of is None:
            found = answerer([question], [context])
            if found.given(answerer.threshold)[0]:
                self.start, answer = int(found.start[0]), str(found.text[0])
        elif of.strip():
            self.start, answer = context.find(of.strip()), of.strip()
            if self.start < 0:
                raise UsageError(f"of: must be in the context, letter for letter. Got {of!r:.60}.")
        self.of = self.answer = answer
        self.letters = len(answer)
        fixed = {list(texts)[1]: (self.start, self.start + len(answer))} if answer else {}
        self.words = words_of(texts, answerer.tokenizer, fixed)
        self.players = [p for w in self.words for p in w.players]

    def ask(self, present: np.ndarray) -> np.ndarray:
        """Log odds [N, 1] of the answer without some words."""
        told = [without(self.words, p) for p in present]
        inside = len(self.words[0].players)
        starts = [self.words[1].place(self.start, p[inside:]) if self.answer else -1 for p in present]
        questions, contexts = ([texts[i] for texts in told] for i in (0, 1))
        return self.answerer.log_odds(questions, contexts, np.array(starts), self.letters)[:, None]


class Nearness(OneAnswer):
    """The question how near two texts are."""

    task, target, of = "embedding", "cosine", None

    def __init__(self, embedder: Embedder, texts: dict[str, str]):
        self.embedder, self.texts, self.words = embedder, texts, words_of(texts, embedder.source.tokenizer)
        self.players = [p for w in self.words for p in w.players]

    def ask(self, present: np.ndarray) -> np.ndarray:
        """How near [N, 1] the two texts are without some words."""
        told = [without(self.words, p) for p in present]
        whole = [w.text for w in self.words]
        place = {text: i for i, text in enumerate(dict.fromkeys([*whole, *(text for texts in told for text in texts)]))}
        vectors = self.embedder(list(place))[0].astype(np.float64)
        ends = vectors[[place[text] for text in whole]]
        first, second = (vectors[[place[texts[i]] for texts in told]] for i in (0, 1))
        return (first @ ends[1] + second @ ends[0] - ends[0] @ ends[1])[:, None]
