"""A question and its context as one row of tokens; a context that is too long as several that overlap.

    begin  question  middle  piece of the context  end

The place of an answer is counted in characters of the context as it came, and in tokens of a window; the
tokenizer's offsets lead from one to the other. Windows are stored as the columns of a row are (``WINDOW``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from weft.errors import SettingsError
from weft.features.codecs import Codes, Ragged
from weft.features.pieces import IGNORED
from weft.features.tokenizer import END, SEPARATOR

WINDOW = "window"
STRIDE = 128
"""Tokens that two neighbouring windows share, half of their room at most (Devlin 2019's code)."""


@dataclass(frozen=True)
class Frame:
    """The ids around a question and its context."""

    begin: tuple[int, ...]
    middle: tuple[int, ...]
    end: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """As the tokenizer itself puts them around a pair of texts; one of Weft's knows its separator.

        Raises:
            SettingsError: it puts nothing before a text, so that no token could say that there is no answer.
        """
        pair = tokenizer.encode("a", "a", add_special_tokens=True)
        texts = np.flatnonzero(~np.array(pair.special_tokens_mask, bool))
        first, second = (texts[np.array(pair.sequence_ids, object)[texts] == number] for number in (0, 1))
        begin = tuple(pair.ids[: first[0]])
        middle, end = tuple(pair.ids[first[-1] + 1 : second[0]]), tuple(pair.ids[second[-1] + 1 :])
        if not middle and (separator := tokenizer.token_to_id(SEPARATOR)) is not None:
            closing = tokenizer.token_to_id(END)
            middle, end = (separator,), () if closing is None else (closing,)
        if not begin or not middle:
            raise SettingsError(
                ["model.from: answers need a tokenizer that puts a token before a text and one between two. This one "
                 "does not. Take a checkpoint that reads, such as BERT's."]
            )  # fmt: skip
        return cls(begin, middle, end)

    @property
    def tokens(self) -> int:
        return len(self.begin) + len(self.middle) + len(self.end)


@dataclass
class Windows:
    """Windows over the contexts of some rows.

    row [W]: which row each is of. first [W]: the number of its first token among those of its context.
    tokens: the ids. context, stop [W]: where its piece of the context begins in the ids, and the place after.
    offsets: first character and the one after the last of every token of a row's context [T, 2], a row each.
    cut: how many questions were longer than half a window and lost their ends.
    """

    row: np.ndarray
    first: np.ndarray
    tokens: Ragged
    context: np.ndarray
    stop: np.ndarray
    offsets: list[np.ndarray]
    cut: int

    def codes(self) -> Codes:
        return {"tokens": self.tokens, "context": self.context, "stop": self.stop}

    def targets(self, starts: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
        """First and last token of the answer in each window [W].

        Both are 0 where the window does not hold all of it or there is none (``starts`` < 0), and IGNORED where no
        token stands for it.

        Args:
            starts, ends: the answer's first character and the one after its last, a row each.
        """
        begin, end = np.zeros(len(self.row), np.int64), np.zeros(len(self.row), np.int64)
        for window, row in enumerate(self.row):
            if starts[row] < 0:
                continue
            offsets = self.offsets[row]
            touched = np.flatnonzero((offsets[:, 1] > starts[row]) & (offsets[:, 0] < ends[row]))
            if not len(touched):
                begin[window] = end[window] = IGNORED
                continue
            shift = self.context[window] - self.first[window]
            if touched[0] + shift >= self.context[window] and touched[-1] + shift < self.stop[window]:
                begin[window], end[window] = touched[0] + shift, touched[-1] + shift
        return {"begin": begin, "end": end}

    def characters(self, window: int, begin: int, end: int) -> tuple[int, int]:
        """The characters of the context from token ``begin`` to token ``end`` of a window, the last one after."""
        offsets, shift = self.offsets[self.row[window]], self.first[window] - self.context[window]
        return int(offsets[begin + shift, 0]), int(offsets[end + shift, 1])


def cut_windows(
    questions: Sequence[str], contexts: Sequence[str], tokenizer: Tokenizer, frame: Frame, longest: int
) -> Windows:
    """Windows of at most ``longest`` tokens over each context."""
    asked = [e.ids for e in tokenizer.encode_batch(list(questions), add_special_tokens=False)]
    distinct = list(dict.fromkeys(contexts))  # many questions are asked of one context
    encoded = dict(zip(distinct, tokenizer.encode_batch(distinct, add_special_tokens=False), strict=True))
    most = (longest - frame.tokens) // 2
    cut = sum(len(ids) > most for ids in asked)
    rows, firsts, contexts_at, stops, ids, offsets = [], [], [], [], [], []
    for row, (question, text) in enumerate(zip(asked, contexts, strict=True)):
        before = [*frame.begin, *question[:most], *frame.middle]
        found = encoded[text]
        offsets.append(np.array(found.offsets, np.int64).reshape(-1, 2))
        for first, piece in _pieces(found.ids, longest - len(before) - len(frame.end)):
            ids.append([*before, *piece, *frame.end])
            rows.append(row)
            firsts.append(first)
            contexts_at.append(len(before))
            stops.append(len(before) + len(piece))
    owner, start, begin, end = (np.array(values, np.int64) for values in (rows, firsts, contexts_at, stops))
    return Windows(owner, start, Ragged.of(ids), begin, end, offsets, cut)


def _pieces(ids: list[int], room: int) -> Iterator[tuple[int, list[int]]]:
    """Pieces of ``room`` ids that overlap, each with the number of its first."""
    step = room - min(STRIDE, room // 2)
    first = 0
    while True:
        yield first, ids[first : first + room]
        if first + room >= len(ids):
            return
        first += step
