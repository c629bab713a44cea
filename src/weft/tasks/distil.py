"""What a teacher says of the rows that a smaller model learns from (``training: {distil: {from: RUN}}``), and what the
model loses beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from weft.config import Settings
from weft.data.split import TEST, VALID
from weft.errors import RunError, SettingsError, listing
from weft.features.columns import Columns
from weft.features.targets import ClassTarget, NumberTarget, known
from weft.inference.predict import predict_codes
from weft.models.row import RowModels
from weft.preprocess.ingest import CleanRows
from weft.progress import Silent
from weft.results.metrics import METRICS
from weft.results.pareto import Figure, Point, pareto, pareto_lines, timed_answers
from weft.results.summary import SHOWN, judge
from weft.runs.run import Run
from weft.training.parallel import once

ROWS = 2_000
"""Validation rows that both are judged on at most."""
LEAST = 1e-7
"""A probability of nothing at all has no logarithm."""


def ask_teacher(settings: Settings, columns: Columns, clean: CleanRows, work: Path, say: Silent) -> np.ndarray | None:
    """Log probabilities [N, C] of the classes of ``columns``, or standardised numbers [N], of every clean row that is
    not kept apart to judge by; they lie on disk. None where there is no teacher.

    Raises:
        SettingsError: the teacher reads other columns, or predicts something else.
    """
    if settings.training.distil is None:
        return None
    name, file = settings.training.distil.from_, work / "taught.npy"

    def ask() -> np.ndarray:
        if not file.exists():  # it is there where a trial before, or the run that goes on, asked
            _ask(name, columns, clean, file, say)
        return opened()

    def opened() -> np.ndarray:
        return np.load(file, mmap_mode="r")

    return once(ask, opened)


def _ask(name: str, columns: Columns, clean: CleanRows, file: Path, say: Silent) -> None:
    teacher = Run(name)
    order = _classes(teacher, columns, name)
    shape = (len(clean),) if order is None else (len(clean), len(order))
    beside = file.with_suffix(".part")
    taught = np.lib.format.open_memmap(beside, "w+", np.float32, shape)
    start = 0
    with say.bar("asking the teacher", len(clean)) as bar:
        for batch in clean.batches(names=[codec.name for codec in teacher.columns.codecs]):
            here = start + np.flatnonzero(clean.parts[start : start + len(batch.rows)] != TEST)
            answers = predict_codes(teacher.model, teacher.columns.encode(batch), len(batch.rows))[here - start]
            if order is None:
                target = columns.target
                assert isinstance(target, NumberTarget)
                taught[here] = (answers - target.mean) / target.deviation
            else:
                taught[here] = np.log(np.maximum(answers[:, order], LEAST))
            start += len(batch.rows)
            bar.advance(len(batch.rows))
    beside.replace(file)
    say.line(f"learns from the answers of {name} too ({teacher.figures['model']['parameters']:,} parameters)")


def beside_teacher(
    settings: Settings, columns: Columns, clean: CleanRows, model: RowModels, positive: int | None, say: Silent
) -> dict[str, Any]:
    """Teacher and model on at most ``ROWS`` validation rows: the run's figure, milliseconds a row, megabytes.

    Raises:
        RunError: the model loses more of the figure than ``max_loss`` points.
    """
    distil = settings.training.distil
    assert distil is not None
    teacher, target = Run(distil.from_), columns.target
    order, key = _classes(teacher, columns, distil.from_), SHOWN[target.type][0]
    metric = METRICS[key]
    figure = Figure(metric.title, metric.higher_is_better, metric.percent)
    chosen = np.zeros(len(clean), bool)
    places = clean.places(VALID)
    chosen[np.random.default_rng(0).choice(places, min(ROWS, len(places)), replace=False)] = True
    batches = list(clean.batches(VALID, only=chosen))
    truth = np.concatenate([target.encode(batch.columns[target.name]) for batch in batches])
    usable = known(truth)
    qualities: list[float] = []
    points: list[Point] = []
    for kind, reads, answers in (("teacher", teacher.columns, teacher.model), ("student", columns, model)):
        output, spent = timed_answers(reads, answers, batches)
        if order is not None:  # the model may say beside how sure it is
            output = output[:, order if answers is teacher.model else range(len(order))]
        qualities.append(judge("", "", output[usable], truth[usable], target, positive).estimates[key].value)
        lost = figure.loss(qualities[0], qualities[-1])
        size = sum(t.numel() * t.element_size() for t in answers.state_dict().values()) / 1e6
        points.append(Point(kind, qualities[-1], lost, spent, size))
    found = pareto("student", figure, int(usable.sum()), points)
    for line in pareto_lines(found):
        say.line(line)
    if lost > distil.max_loss:
        raise RunError(
            f"training.distil: the model must lose at most {distil.max_loss:g} points of {figure.title} beside "
            f"its teacher. It loses {lost:.2f} ({qualities[0]:.4f} to {qualities[1]:.4f}). Train it longer, make it "
            f"larger, or allow it, for which nothing is trained anew: --resume --set training.distil.max_loss="
            f"{math.ceil(10 * lost) / 10:g}"
        )
    return found


def _classes(teacher: Run, columns: Columns, name: str) -> list[int] | None:
    """For each class of the student its place in what the teacher answers; None of a number."""
    ours, theirs = columns.target, teacher.columns.target
    other = {n: t for n, t in teacher.columns.types.items() if columns.types.get(n) != t}
    if other:
        raise SettingsError(
            [f"training.distil.from: the teacher must read columns that the model reads too. {name} reads "
             f"{listing([f'{n} ({t})' for n, t in other.items()])}. Say so in features, or take another teacher."]
        )  # fmt: skip
    if isinstance(ours, NumberTarget) and isinstance(theirs, NumberTarget) and ours.name == theirs.name:
        return None
    if not (isinstance(ours, ClassTarget) and isinstance(theirs, ClassTarget) and ours.name == theirs.name):
        raise SettingsError(
            [f"training.distil.from: the teacher must predict the class or the number '{ours.name}'. {name} predicts "
             f"'{theirs.name}' ({theirs.type}), the model '{ours.name}' ({ours.type}). Take another teacher."]
        )  # fmt: skip
    lacking = [c for c in ours.classes if c not in theirs.classes]
    if lacking:
        raise SettingsError(
            [f"training.distil.from: the teacher must know the classes of '{ours.name}'. {name} lacks "
             f"{listing(lacking)}. Train it on these rows, or take another teacher."]
        )  # fmt: skip
    return [theirs.classes.index(c) for c in ours.classes]
