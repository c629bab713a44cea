"""What a teacher says of the rows that a smaller model learns from (``training: {distil: {from: RUN}}``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from weft.config import Settings
from weft.data.split import TEST
from weft.errors import SettingsError, listing
from weft.features.columns import Columns
from weft.features.targets import ClassTarget, NumberTarget
from weft.inference.predict import predict_codes
from weft.preprocess.ingest import CleanRows
from weft.progress import Silent
from weft.runs.run import Run

LEAST = 1e-7
"""A probability of nothing at all has no logarithm."""


def ask_teacher(settings: Settings, columns: Columns, clean: CleanRows, work: Path, say: Silent) -> np.ndarray | None:
    """Log probabilities [N, C] of the classes of ``columns``, or standardised numbers [N], of every clean row that is
    not kept apart to judge by; they lie on disk. None where there is no teacher.

    Raises:
        SettingsError: the teacher reads other columns, or predicts something else.
    """
    distil = settings.training.distil
    if distil is None:
        return None
    teacher = Run(distil.from_)
    order = _classes(teacher, columns, distil.from_)
    file = work / "taught.npy"
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
    say.line(f"learns from the answers of {distil.from_} too ({teacher.figures['model']['parameters']:,} parameters)")
    return taught


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
