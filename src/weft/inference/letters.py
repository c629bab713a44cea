"""From tokens to text while it is being written: a letter comes out once it is whole and certain to stay."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Literal

from tokenizers import Tokenizer

from weft.inference.constraint import State

Stopped = Literal["end", "stop", "length", "context", "complete", "stuck"]

HALF = "\ufffd"
"""What decoding puts in the place of bytes that are no letter, or not yet."""


class Letters:
    """Ids to text, a token at a time. ``before``: the prompt's ids, since a token may read otherwise after them."""

    def __init__(self, tokenizer: Tokenizer, before: list[int]):
        self._tokenizer, self._known, self._new = tokenizer, before, list[int]()
        self._given = len(self._decode())

    def fork(self) -> Letters:
        other = copy.copy(self)
        other._new = list(self._new)
        return other

    def take(self, token: int) -> str:
        """The letters that became whole by this token."""
        self._new.append(token)
        text = self._decode()
        whole = text.rstrip(HALF)  # bytes that are no letter yet, and perhaps will be
        piece = whole[self._given :]
        if piece and len(whole) == len(text):
            # all is whole: later letters depend on the last tokens only, and no long text is decoded again
            self._known, self._new = self._new, []
            self._given = len(self._decode())
        else:
            self._given = max(self._given, len(whole))
        return piece

    def finish(self, cut: bool) -> str:
        """What is left, when no token follows. ``cut``: the text was broken off, so half a letter is left out."""
        rest = self._decode()[self._given :]
        return rest.rstrip(HALF) if cut else rest

    def _decode(self) -> str:
        return self._tokenizer.decode(self._known + self._new, skip_special_tokens=True)


class Line:
    """One text being written: its ids, its letters, and whether it is done."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: list[int], ends: Collection[int], stop: tuple[str, ...], limit: int,
        limited_by: Stopped, state: State | None = None,
    ):  # fmt: skip
        self.prompt, self.ends, self.stop, self.limit, self.limited_by = prompt, ends, stop, limit, limited_by
        self.state = state
        self.ids: list[int] = []
        self.log_probabilities: list[float] = []
        self.text = ""
        self.stopped: Stopped | None = state.over if state else None
        self._letters = Letters(tokenizer, prompt)
        self._given = 0

    def fork(self) -> Line:
        """Another text with the same beginning."""
        other = copy.copy(self)
        other.ids, other.log_probabilities = list(self.ids), list(self.log_probabilities)
        other._letters = self._letters.fork()
        other.state = self.state.fork() if self.state else None
        return other

    @property
    def valid(self) -> bool | None:
        """Whether the text as it stands fulfils its constraint; None where it has none."""
        return self.state.accepting if self.state else None

    def take(self, token: int, log_probability: float) -> None:
        """Write a token: the text grows by the letters that are whole, and may end."""
        assert self.stopped is None, "the text is done"
        self.ids.append(token)
        self.log_probabilities.append(log_probability)
        if token in self.ends:
            self.stopped = "end"
        else:
            self._add(self._letters.take(token))
            if self.state is not None:
                self.state.take(token)
                self.stopped = self.state.over
            if self.stopped is None and len(self.ids) >= self.limit:
                self.stopped = self.limited_by
        if self.stopped not in (None, "stop"):
            self._add(self._letters.finish(cut=self.stopped != "end" and not self.valid))

    def _add(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        found = [self.text.find(s, max(0, before - len(s) + 1)) for s in self.stop]
        places = [place for place in found if place >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], "stop"

    def certain(self) -> str:
        """What was not given out yet and no stop string can take back."""
        end = len(self.text) - (0 if self.stopped else self._doubtful())
        piece, self._given = self.text[self._given : end], max(end, self._given)
        return piece

    def _doubtful(self) -> int:
        """How many letters at the end may be the beginning of a stop string."""
        most = max((len(s) - 1 for s in self.stop), default=0)
        for length in range(min(most, len(self.text)), 0, -1):
            if any(s.startswith(self.text[-length:]) for s in self.stop):
                return length
        return 0
