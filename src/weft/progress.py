"""What a person sees while Weft works. Goes to stderr: a bar on a terminal, one line that is written anew in a
notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """Advances towards a total; ``note`` is shown beside it."""

    def advance(self, amount: float, note: str = "") -> None: ...


class Silent:
    """Says nothing: the Python door's default outside a terminal or notebook, and the tests'."""

    def step(self, name: str, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def checked(self, done: float, loss: float) -> None:
        """Hear the validation loss when this share of a training is done; what it raises ends the training."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        yield Bar()


class Spoken(Silent):
    """Says each step, warning and bar on ``stream`` (default stderr)."""

    def __init__(self, stream: Any = None):
        # rich would make a page element of every word in a notebook
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True, force_jupyter=False)

    def step(self, name: str, text: str) -> None:
        self.console.print(f"[bold cyan]{name:<11}[/] ", end="")
        self.console.print(text, markup=False)

    def line(self, text: str) -> None:
        self.console.print(" " * 12 + text, markup=False)

    def warn(self, text: str) -> None:
        self.console.print("[bold yellow]warning    [/] ", end="")
        self.console.print(text, markup=False)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        if type(self.console.file).__module__.startswith("ipykernel"):  # which says that it is a terminal
            anew = _AnewBar(self, label, total)
            yield anew
            anew.end()
        elif self.console.is_terminal:
            columns = (
                TextColumn("            {task.description}"),
                BarColumn(30),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as progress:
                yield _RichBar(progress, progress.add_task(label, total=total or None, note=""))
        else:
            yield _LineBar(self, label, total)


class _RichBar(Bar):
    def __init__(self, progress: Progress, task: Any):
        self._progress, self._task = progress, task

    def advance(self, amount: float, note: str = "") -> None:
        if note:
            self._progress.update(self._task, note=note)
        self._progress.advance(self._task, amount)


class _LineBar(Bar):
    seconds = _SECONDS_BETWEEN_LINES

    def __init__(self, owner: Spoken, label: str, total: float):
        self._owner, self._label, self._total = owner, label, total
        self._done, self._start, self._last = 0.0, time.monotonic(), time.monotonic()

    def advance(self, amount: float, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last < self.seconds:
            return
        self._last = now
        if not self._total:
            self._say(f"{self._label}: {note or f'{self._done:,.0f}'}")
            return
        share = min(1.0, self._done / self._total)
        left = (now - self._start) * (1 - share) / max(share, 1e-9)
        self._say(f"{self._label}: {share:.0%}, about {duration(left)} left{'; ' + note if note else ''}")

    def _say(self, line: str) -> None:
        self._owner.line(line)


class _AnewBar(_LineBar):
    """One line that is written over the last one; at the end it is gone."""

    seconds = 0.3
    _width = 0

    def _say(self, line: str) -> None:
        shown = " " * 12 + line
        self._owner.console.file.write("\r" + shown.ljust(self._width))
        self._owner.console.file.flush()
        self._width = len(shown)

    def end(self) -> None:
        if self._width:
            self._owner.console.file.write("\r" + " " * self._width + "\r")


def minutes_in_words(minutes: float) -> str:
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


def over_in_words(minutes: float) -> str:
    return f"the {minutes_in_words(minutes)} {'was' if minutes == 1 else 'were'} over"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
