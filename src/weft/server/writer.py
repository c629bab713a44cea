"""Continuous batching: texts join and leave the batch at any token, each with its own settings and random numbers.

A step reads some tokens of a prompt that waits and writes one token of every text that is under way (Yu 2022).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from weft.errors import CheckpointError
from weft.inference.generate import Prompt, check_numbers
from weft.inference.letters import Line
from weft.inference.sampling import Sampling, choose
from weft.models.language import LanguageModel
from weft.models.recurrent import RecurrentConfig
from weft.server.memory import Held, Keys, Memory, States

ROWS = 32
READ_AT_ONCE = 256
"""Tokens of prompts read between two tokens of the texts under way, which wait as long."""
BUDGET = 1 << 30


@dataclass(frozen=True)
class Token:
    """A token, its log probability as the model sees it, and those of the most probable ones in its place."""

    id: int
    log_probability: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Row:
    """One text to write. ``tell`` hears each piece that is certain, and at last None or an error."""

    prompt: Prompt
    seed: int
    sampling: Sampling
    line: Line
    tell: Callable[[str | Exception | None], None]
    gone: Callable[[], bool]
    """Whether nobody waits for it any more."""
    top: int | None = None
    """How many of the most probable tokens are told of each place; None: no log probabilities at all."""
    echo: bool = False
    """Whether the log probabilities of the prompt are wanted."""
    write: bool = True
    tokens: list[Token] = field(default_factory=list)
    asked: float = field(default_factory=monotonic)
    first: float | None = None
    """When its first token was written."""
    held: Held | None = None
    shared: int = 0
    next: int = 0
    seen: Tensor | None = None

    def __post_init__(self) -> None:
        # the prompt is part of the seed, as of a table's rows
        self.random = np.random.default_rng([self.seed, *self.prompt.ids])


class Writer:
    """The texts that one model writes now, and those that wait."""

    def __init__(self, model: LanguageModel, rows: int = ROWS, budget: int = BUDGET):
        self.model = model.eval()
        self.most = rows
        self.waiting: deque[Row] = deque()
        self.writing: list[Row] = []
        self._reading: Row | None = None
        self._last: Tensor | None = None
        recurrent = isinstance(model.config.backbone, RecurrentConfig)
        self.memory: Memory = States(model, rows) if recurrent else Keys(model, rows, budget)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.writing or self._reading)

    def step(self) -> None:
        """Read a little, and write one token of every text."""
        self._drop()
        left = READ_AT_ONCE
        while left > 0 and self._next() is not None:
            left -= self._read()
        if self.writing:
            self._write()

    def abandon(self, error: Exception) -> None:
        """End every text: what went wrong belongs to none of them."""
        for row in [*self.writing, *self.waiting, *([self._reading] if self._reading else [])]:
            self._fail(row, error)
        self.waiting.clear()

    def _drop(self) -> None:
        """Leave out the texts that nobody waits for."""
        self.waiting = deque(row for row in self.waiting if not row.gone())
        for row in [r for r in [*self.writing, self._reading] if r is not None and r.gone()]:
            self._end(row)

    def _next(self) -> Row | None:
        """The prompt to read; it takes room for the whole text, so that no text must stop half-way."""
        if self._reading is None and self.waiting and len(self.writing) < self.most:
            row = self.waiting[0]
            total = len(row.prompt.ids) + row.prompt.limit
            row.held = self.memory.begin(row.prompt.ids, total, fresh=row.echo)
            if row.held is None:
                return None
            self._reading, self._last = self.waiting.popleft(), None
            row.shared = row.held.shared
        return self._reading

    def _read(self) -> int:
        row = self._reading
        assert row is not None and row.held is not None
        ids = row.prompt.ids
        part = self.memory.piece(ids, row.held.read)
        try:
            states = self.memory.read(row.held, part)
            with torch.no_grad():
                if row.echo:
                    self._heard(row, part, states)
                if row.held.read == len(ids):
                    self._begin(row, self.model.logits(states[-1:]).float())
        except Exception as error:
            self._fail(row, error)
        return len(part)

    def _begin(self, row: Row, logits_1V: Tensor) -> None:
        """The prompt is read: its first token."""
        assert row.held is not None
        self.memory.keep(row.held, row.prompt.ids)
        self._reading = None
        if not row.write:
            row.line.stopped = "length"
            self._done(row)
            return
        if row.sampling.repetition_penalty != 1:
            row.seen = torch.zeros_like(logits_1V, dtype=torch.bool)
            row.seen[0, row.prompt.ids] = True
        self.writing.append(row)
        self._take([row], logits_1V)

    def _write(self) -> None:
        rows = list(self.writing)
        try:
            held = [row.held for row in rows if row.held is not None]
            logits = self.memory.step(held, [row.next for row in rows])
        except Exception as error:
            for row in rows:
                self._fail(row, error)
            return
        self._take(rows, logits)

    def _take(self, rows: list[Row], logits_BV: Tensor) -> None:
        """A token for every row, of its own row of logits alone."""
        told = logits_BV.log_softmax(dim=-1)
        for place, row in enumerate(rows):
            try:
                self._choose(row, logits_BV[place : place + 1], told[place])
            except Exception as error:
                self._fail(row, error)

    def _choose(self, row: Row, logits_1V: Tensor, told_V: Tensor) -> None:
        check_numbers(logits_1V)
        state = row.line.state
        allowed = None if state is None else torch.from_numpy(state.allowed)[None].to(logits_1V.device)
        token = int(choose(logits_1V, row.sampling, row.seen, allowed, [row.random])[0])
        if row.seen is not None:
            row.seen[0, token] = True
        row.first = row.first or monotonic()
        row.next = token
        row.line.take(token, float(told_V[token]))
        if row.top is not None:
            row.tokens.append(Token(token, float(told_V[token]), _top(told_V, row.top)))
        if row.line.stopped is not None:
            self._done(row)
        else:
            row.tell(row.line.certain())

    def _heard(self, row: Row, ids: Sequence[int], states_TD: Tensor) -> None:
        """The log probabilities of the tokens of a prompt; of the first there is none."""
        told = self.model.logits(states_TD).float().log_softmax(dim=-1)
        if self._last is None:
            row.tokens.append(Token(ids[0], None))
        before = told[:-1] if self._last is None else torch.cat([self._last, told[:-1]])
        for token, told_V in zip(ids[len(ids) - len(before) :], before, strict=True):
            row.tokens.append(Token(token, float(told_V[token]), _top(told_V, row.top or 0)))
        self._last = told[-1:]

    def _done(self, row: Row) -> None:
        self._end(row)
        row.tell(row.line.certain())
        row.tell(None)

    def _fail(self, row: Row, error: Exception) -> None:
        self._end(row)
        # of another error only its kind: a message may hold what was asked
        known = isinstance(error, CheckpointError)
        row.tell(error if known else CheckpointError(f"the model must answer. It failed: {type(error).__name__}."))

    def _end(self, row: Row) -> None:
        if row.held is not None:
            self.memory.end(row.held)
        row.held = None
        if self._reading is row:
            self._reading = None
        if row in self.writing:
            self.writing.remove(row)


def _top(told_V: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    if not count:
        return ()
    values, places = told_V.topk(min(count, len(told_V)))
    return tuple(zip(places.tolist(), values.tolist(), strict=True))
