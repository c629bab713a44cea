"""A run on the beginning of its table for some seconds, in a process of its own, carried over to the whole.

Memory that tensors do not account for (a prepared product for each length of text, holes between batches of other
lengths, validation, the simple models beside) can only be measured: this is the run itself.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from weft import memory
from weft.config import Settings
from weft.data.table import Table
from weft.data_settings import SplitSettings
from weft.features.targets import most_rows
from weft.pipeline import WAYS
from weft.progress import Bar, Silent
from weft.runs.run import REPORT_FILE
from weft.tasks.steps import ForetoldSteps

TIMES = "seconds", "cpu_seconds"
HEAD_ROWS, HEAD_BYTES = 50_000, 64_000_000
"""Of a longer table so much is rehearsed on."""


class Watching(Silent, Bar):
    """Says nothing, and notes of each step of training what is then resident and what it took: seconds, and those of
    processors."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.took: list[tuple[float, float]] = []
        """Of steps that no look at the validation rows followed."""
        self.trained = 0.0, 0.0
        """All the training took."""

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        if label != "training":
            yield Bar()
            return
        begun = self._last = _now()
        self._checked = False
        yield self
        self.trained = self.trained[0] + self._last[0] - begun[0], self.trained[1] + self._last[1] - begun[1]

    def checked(self, done: float, loss: float) -> None:
        self._checked = True

    def advance(self, amount: float, note: str = "") -> None:
        before, self._last = self._last, _now()
        if not self._checked:
            self.took.append((self._last[0] - before[0], self._last[1] - before[1]))
        self._checked = False
        self.held.append(memory.resident())

    def step_took(self) -> tuple[float, float]:
        """Seconds, and those of processors, of a step in the later half, when all is warm: the mean."""
        late = self.took[len(self.took) // 2 :] or [self.trained]
        return fmean(clock for clock, _ in late), fmean(cpu for _, cpu in late)


def _now() -> tuple[float, float]:
    return time.monotonic(), memory.cpu_seconds()


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal took; ``used``: of each step seconds and the most that was resident, as a report has it."""

    rows: int
    whole: bool
    """Whether these were all rows of the table."""
    steps: int
    used: dict[str, dict[str, float]]
    grown: int
    """Bytes by which the most that was resident grew over the second half of the steps."""
    a_step: tuple[float, float]
    """Seconds of a step of training, by the clock and of processors."""
    trained: tuple[float, float]
    """All that the training took."""
    stopped: str
    """Why the training ended, where it did so before its time."""


def rehearse(settings: Settings, rows: int, seconds: float, copies: int, bound: int) -> Rehearsed:
    """The run of ``settings``, whose table has ``rows``, that trains for so many seconds.

    Raises:
        WeftError: what the run itself would raise.
    """
    minutes = seconds / 60 / copies
    training = settings.training.model_copy(
        update={"minutes": min(minutes, settings.training.minutes or minutes), "patience": 10**9, "search": None}
    )
    settings = settings.model_copy(update={"training": training})
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process,  # its memory begins anew
    ):
        return process.submit(_run, settings, rows, Path(folder) / "run", bound).result()


def _run(settings: Settings, rows: int, out: Path, bound: int) -> Rehearsed:
    memory.limit(f"{bound / 1e6:.0f}MB")
    table, seen = None, rows
    if rows > HEAD_ROWS:
        assert settings.data.source is not None
        source = Table.open(settings.data.source, settings.data.format)
        table = Table.of(source.head(HEAD_ROWS, HEAD_BYTES))
        table.name, seen = source.name, table.row_count() or 1
        data: dict[str, Any] = {"max_rejected": 0.999}  # at bad rows a run stops, not this
        if settings.target.task != "ranking":  # the first rows may all be of one part
            data["split"] = SplitSettings()
        settings = settings.model_copy(update={"data": settings.data.model_copy(update=data)})
    say = Watching()
    steps = WAYS[settings.target.task](settings, table, out, say, False)
    if isinstance(steps, ForetoldSteps):
        steps.scale = rows / seen
    with steps.holding:
        steps.run()
    records = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    report = json.loads((out / REPORT_FILE).read_text())
    stopped = report["model"]["stopped"]
    stopped = stopped if isinstance(stopped, str) else "; ".join(stopped)
    done = sum("train_loss" in record for record in records)
    half = max(say.held[: len(say.held) // 2], default=0)
    grown = max(0, max(say.held) - half) if half else 0
    end = "" if " over" in stopped else stopped
    return Rehearsed(seen, seen == rows, done, report["memory"]["steps"], grown, say.step_took(), say.trained, end)


def carried_over(found: Rehearsed, told: dict[str, Any], judged: float) -> dict[str, Any]:
    """Memory and seconds of the whole run by step, from a rehearsal and what was ``told`` of it without one;
    ``judged``: a share of the rows."""
    scale, whole = told["rows"] / found.rows, {}
    most = most_rows(None)
    judging = min(told["rows"] * judged, most) / max(1.0, min(found.rows * judged, most))
    # lengths not met yet: as much more at each doubling of the steps, until an epoch has shown them all
    epoch = told["steps"] / told["recipe"]["epochs"] / told.get("copies", 1)
    lengths = found.grown * min(math.log2(max(1.0, epoch / found.steps)), 4.0)
    for step, used in found.used.items():
        times = {"model": 1.0, "inference": judging, "results": judging}.get(step, scale)
        grown = (1 - 1 / scale) * told.get("memory_steps", {}).get(step, {}).get("rows_bytes", 0)
        unseen = lengths if step in ("model", "inference", "results") else 0
        whole[step] = {key: used[key] * times for key in TIMES}
        whole[step]["memory_bytes"] = int(used["peak_memory"] + grown + unseen)
    steps, model = told["steps"], whole["model"]
    if found.stopped:
        for key in TIMES:
            model[key] *= steps / found.steps
    else:
        # a look at the validation rows goes one way only
        steps += told["recipe"]["epochs"] * told["rows"] * judged / told["recipe"]["batch_rows"] / 3
        if told["recipe"]["minutes"]:
            steps = min(steps, 60 * told["recipe"]["minutes"] * told.get("copies", 1) / found.a_step[0])
        for key, once, all_ in zip(TIMES, found.a_step, found.trained, strict=True):
            model[key] += steps * once - all_
    return {
        "steps": whole, "rows": found.rows, "training_steps": found.steps,
        "memory_bytes": max(step["memory_bytes"] for step in whole.values()),
        **{key: math.fsum(step[key] for step in whole.values()) for key in TIMES},
    }  # fmt: skip
