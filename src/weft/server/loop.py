"""The one thread that owns a model: what requests ask of it waits in a bounded queue and is done in batches.

Texts are written side by side, a token each a step (``weft.server.writer``); what comes within ``WINDOW`` seconds of
other kinds is done together. Between two steps a request whose client left is dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from weft.server.writer import Row, Writer

WINDOW = 0.002
CALLS_AT_ONCE = 64


class Full(Exception):
    """The queue has no room."""


class Gone(Exception):
    """The client left."""


class Ticket:
    """What a request waits for: the events of its parts, in the order in which they come."""

    def __init__(self, parts: int):
        self.gone = False
        self._left = parts
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    def left(self) -> bool:
        return self.gone

    def hear(self, part: int, event: Any) -> None:
        self._events.put_nowait((part, event))

    def leave(self) -> None:
        """The client left: nothing more is done for it."""
        self.gone = True
        self.hear(0, Gone())

    async def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        """(part, event) until every part has ended, None at the end of each. Raises the first error of a part."""
        try:
            while self._left:
                part, event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                self._left -= event is None
                yield part, event
        finally:
            self.gone = True


@dataclass(eq=False)
class Call:
    """One question that is answered at once. ``many`` answers several: a list of answers, or of errors."""

    many: Callable[[list[Any]], Sequence[Any]]
    given: Any
    tell: Callable[[Any], None]
    gone: Callable[[], bool]


class Loop(threading.Thread):
    """Owns what a run needs to answer. ``queue``: how many texts and calls may wait."""

    def __init__(self, name: str, writer: Writer | None, queue: int):
        super().__init__(name=f"weft-{name}", daemon=True)
        self.served, self.writer, self.queue = name, writer, queue
        self._changed = threading.Condition()
        self._rows: deque[Row] = deque()
        self._calls: deque[Call] = deque()
        self._told: list[tuple[Ticket, int, Any]] = []
        self._ending = False

    @property
    def waiting(self) -> int:
        return len(self._rows) + len(self._calls) + (len(self.writer.waiting) if self.writer else 0)

    @property
    def running(self) -> int:
        return len(self.writer.writing) if self.writer else 0

    def write(self, make: Callable[[Callable[[int], Callable[[Any], None]], Callable[[], bool]], list[Row]], parts: int
              ) -> Ticket:  # fmt: skip
        """Texts to write; ``make`` makes their rows, given what hears each of them."""
        ticket = Ticket(parts)
        self._add(self._rows, make(lambda part: self._tell(ticket, part), ticket.left))
        return ticket

    async def call(self, many: Callable[[list[Any]], Sequence[Any]], given: Any, ticket: Ticket) -> Any:
        """The answer to one call."""
        self._add(self._calls, [Call(many, given, self._tell(ticket, 0), ticket.left)])
        async for _, answer in ticket:
            return answer
        raise Gone

    def end(self) -> None:
        """Finish what was begun and what waits, then end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._calls or self._busy or self._ending)
                if not (self._rows or self._calls or self._busy):
                    return
                if self._calls and not self._busy:
                    self._changed.wait_for(lambda: len(self._calls) >= CALLS_AT_ONCE or self._ending, WINDOW)
                calls = self._together()
                if self.writer is not None:
                    self.writer.waiting.extend(self._rows)
                    self._rows.clear()
            if calls:
                self._answer(calls)
            if self.writer is not None and self.writer.busy:
                try:
                    self.writer.step()
                except Exception as error:
                    self.writer.abandon(error)
            self._hand_over()

    @property
    def _busy(self) -> bool:
        return self.writer is not None and self.writer.busy

    def _add(self, queue: deque[Any], parts: list[Any]) -> None:
        with self._changed:
            waiting = self.waiting
            if self._ending or (waiting and waiting + len(parts) > self.queue):
                raise Full
            queue.extend(parts)
            self._changed.notify()

    def _together(self) -> list[Call]:
        """The first call, and those that can be answered with it."""
        while self._calls and self._calls[0].gone():
            self._calls.popleft()
        if not self._calls:
            return []
        many = self._calls[0].many
        found = [c for c in self._calls if c.many == many and not c.gone()][:CALLS_AT_ONCE]
        self._calls = deque(c for c in self._calls if c not in found)
        return found

    def _answer(self, calls: list[Call]) -> None:
        try:
            answers = calls[0].many([call.given for call in calls])
        except Exception as error:
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            call.tell(answer)

    def _tell(self, ticket: Ticket, part: int) -> Callable[[Any], None]:
        return lambda event: self._told.append((ticket, part, event))

    def _hand_over(self) -> None:
        """What the step said, to the event loop of the requests, all at once."""
        told, self._told = self._told, []
        if told:
            told[0][0]._loop.call_soon_threadsafe(_hear, told)


def _hear(told: list[tuple[Ticket, int, Any]]) -> None:
    for ticket, part, event in told:
        ticket.hear(part, event)
