"""Texts whose words are players: a run of letters between spaces; where a script has no spaces, the characters that
one token of the tokenizer holds. Without a word the text is shorter.

Shape suffix: P players.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tokenizers import Tokenizer

from weft.features.augment import WORD


@dataclass(frozen=True)
class Player:
    """A part of a row: ``shown`` to a person; of a text its characters from ``start`` to ``end``."""

    column: str
    shown: str
    start: int | None = None
    end: int | None = None


class Words:
    """A text and its players. A word goes with the space behind it: what stays is what a person would have written.

    Args:
        together: so many neighbouring words are one player.
        fixed: first character and the one after the last of a part whose words are no players, and always there.
    """

    def __init__(
        self,
        column: str,
        text: str,
        tokenizer: Tokenizer | None,
        together: int = 1,
        fixed: tuple[int, int] | None = None,
    ):
        self.column, self.text = column, text
        spans = word_spans(text, tokenizer)
        first, stop = fixed or (0, 0)
        owner: list[int] = []
        groups: list[list[tuple[int, int]]] = []
        for start, end in spans:
            if start < stop and end > first:
                owner.append(-1)
                continue
            if not owner or owner[-1] < 0 or len(groups[-1]) == together:
                groups.append([])
            groups[-1].append((start, end))
            owner.append(len(groups) - 1)
        self.players = [Player(column, text[g[0][0] : g[-1][1]], g[0][0], g[-1][1]) for g in groups]
        self._owner = np.array(owner, np.int64)
        self._starts = np.array([start for start, _ in spans], np.int64)
        self._pieces = [text[a:b] for a, b in pairwise([0, *self._starts[1:].tolist(), len(text)])]

    def without(self, present: np.ndarray) -> str:
        """The text without the players [P] that are not present."""
        return self.text if present.all() else "".join(self._kept(present, len(self._owner))).strip()

    def place(self, character: int, present: np.ndarray) -> int:
        """Where a character of a fixed word stands in the text without some players."""
        if present.all():
            return character
        word = int(np.searchsorted(self._starts, character, side="right")) - 1
        whole = "".join(self._kept(present, len(self._owner)))
        before = sum(map(len, self._kept(present, word)))
        inside = character - (int(self._starts[word]) if word else 0)
        return before + inside - (len(whole) - len(whole.lstrip()))

    def owners(self, tokenizer: Tokenizer) -> np.ndarray:
        """The player that each token of the whole text belongs to; -1: none."""
        encoding = tokenizer.encode(self.text, add_special_tokens=False)
        last = np.array([b - 1 for _, b in encoding.offsets], np.int64)
        return self.at(last)

    def at(self, characters: np.ndarray) -> np.ndarray:
        """The player that each character belongs to, or the space before it; -1: none."""
        word = np.searchsorted(self._starts, characters, side="right") - 1
        return np.append(self._owner, -1)[word]

    def _kept(self, present: np.ndarray, words: int) -> list[str]:
        """Of the first ``words`` the pieces that are there."""
        there = np.append(present, True)[self._owner[:words]]
        return [piece for piece, here in zip(self._pieces, there.tolist(), strict=False) if here]


def word_spans(text: str, tokenizer: Tokenizer | None) -> list[tuple[int, int]]:
    """Where the words of a text begin and end; letters without spaces join where one token holds them."""
    spans = [m.span() for m in WORD.finditer(text)]
    if not any(_unspaced(text[a]) for a, _ in spans):
        return spans
    assert tokenizer is not None
    joined = {i for a, b in tokenizer.encode(text, add_special_tokens=False).offsets for i in range(a + 1, b)}
    words: list[tuple[int, int]] = []
    for a, b in spans:
        if words and words[-1][1] == a and a in joined and _unspaced(text[a]):
            words[-1] = (words[-1][0], b)
        else:
            words.append((a, b))
    return words


def _unspaced(letter: str) -> bool:
    return letter.isalpha() and WORD.fullmatch(letter + letter) is None
