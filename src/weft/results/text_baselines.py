"""What a text that is written from another must beat: the source itself, its first sentence, a word-for-word list.

The list is learnt from the training pairs by co-occurrence: a word becomes the run of words, or of characters where
words are not spaced, that it shares the most rows with by Dice's coefficient 2 both / (one + other) (Dice 1945;
Smadja 1996).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import regex

Run = tuple[str, ...]
MOST_ROWS = 50_000
MOST_LETTERS = 400
"""Rows longer than these are passed over: they say little of single words, and cost much."""
LEAST_DICE = 0.1
_RUN = 4
_UNIT = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\w--[\p{Han}\p{Hiragana}\p{Katakana}]]+(?:['’]\w+)?|[^\w\s]", regex.V1
)
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_SENTENCE = regex.compile(r"[^。！？!?\n]*?(?:[。！？!?]+|\.(?=\s|$)|\n|$)")


def first_sentence(text: str) -> str:
    """The text to its first full stop, question or exclamation mark, or line end."""
    text = text.strip()
    found = _SENTENCE.match(text)
    return (found.group() if found else "").strip() or text


def sentences(text: str) -> int:
    """How many a text has."""
    return sum(bool(part.strip()) for part in _SENTENCE.findall(text))


class Lexicon:
    """A word list of two languages."""

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        read: Counter[str] = Counter()
        written: Counter[Run] = Counter()
        both: dict[str, Counter[Run]] = {}
        unspaced = spaced = 0
        for number, (source, target) in enumerate(pairs):
            if number == MOST_ROWS:
                break
            if len(source) > MOST_LETTERS or len(target) > MOST_LETTERS:
                continue
            units = _units(target)
            unspaced += sum(bool(_UNSPACED.match(u)) for u in units)
            spaced += len(units)
            runs = set(_runs(units))
            written.update(runs)
            for word in {w.lower() for w in _units(source)}:
                read[word] += 1
                both.setdefault(word, Counter()).update(runs)
        self.between = "" if 2 * unspaced > spaced else " "
        self._words = {word: run for word in read if (run := _best(both[word], read[word], written)) is not None}

    def __call__(self, source: str) -> str:
        """The source word for word; a word that the list has not is left out, one said twice is said once."""
        found = [self._words[w] for word in _units(source) if (w := word.lower()) in self._words]
        runs = [run for run, _ in groupby(found)]
        return self.between.join(self.between.join(run) for run in runs)


def _best(both: Counter[Run], rows: int, written: Counter[Run]) -> Run | None:
    """The run with the highest Dice coefficient, of equals the longest; None where all are low.

    ``both``: rows that hold the word and the run; ``rows`` that hold the word, ``written`` that hold the run.
    """
    score, _, run = max(((2 * n / (rows + written[r]), len(r), r) for r, n in both.items()), default=(0.0, 0, ()))
    return run if score >= LEAST_DICE else None


def _units(text: str) -> list[str]:
    return _UNIT.findall(text)


def _runs(units: Sequence[str]) -> Iterator[Run]:
    for size in range(1, _RUN + 1):
        yield from (tuple(units[i : i + size]) for i in range(len(units) - size + 1))
