"""A run whose easy rows leave early (``weft export --to early``): answered before its model reads them.

A linear path learns the model's own answers to training rows (distillation; Hinton 2015) and is asked first; only rows
whose two likeliest classes it finds too close together are read by the model. How close is decided on validation rows:
so few of their labels may differ from the model's own that with 95 % confidence no more than is allowed do of all rows.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from weft.data.split import TRAIN, VALID
from weft.data.table import Table
from weft.errors import RunError, UsageError
from weft.features.batching import Batch, collate, in_turn
from weft.features.ragged import take
from weft.features.store import fixed_tokens, lengths
from weft.files import require_empty
from weft.inference.predict import Predictor, predict_codes
from weft.models.backbone import machine_has_bfloat16
from weft.models.linear import FirstAnswers, margins
from weft.models.stored import CONFIG, WEIGHTS
from weft.progress import Bar, Silent
from weft.results.pareto import Point, pareto
from weft.runs.opening import open_run
from weft.runs.run import Run
from weft.smaller import ROWS, drawn, judge_rows, judged_table, write_beside
from weft.training.calibration import fit_margin
from weft.training.optimizers import fit_ridge

LEARN, DECIDE = 20_000, 10_000
"""Rows that the path learns from, and that the margin is decided on, at most."""
RIDGE = 0.05
EARNS = 0.05
"""Share of the rows that must leave for a second model to be worth it."""
TOKENS = 1 << 18
"""Of the rows that the path is asked about at once."""
Answered = list[tuple[Batch, Tensor]]
"""Rows of like length, and the probabilities [N, C] that the model gives them."""


def export_early(path: Path, out: Path, most: float, data: str | None = None, say: Silent | None = None
                 ) -> dict[str, Any]:  # fmt: skip
    """Write the run at ``path`` with what answers easy rows; returns what the model and both together cost and give.

    Args:
        most: of a hundred rows, how many may get another label than by the model alone.
        data: labelled rows, half to learn from and half to decide on; default: those of the training.

    Raises:
        UsageError: the run does not choose one of several classes for every row, or ``most`` is no share of them.
        RunError: too few rows are easy, or too few are there to show it.
    """
    require_empty(out)
    if not 0 < most < 100:
        raise UsageError(f"--max-loss: must be more than 0 and less than 100 of a hundred rows. Got {most:g}.")
    run = open_run(path)
    _require_classes(run)
    table, parts = judged_table(run, data)
    if parts is None:
        parts = np.where(np.arange(table.row_count() or 2 * DECIDE) % 2, TRAIN, VALID)
    learn, decide = (drawn(np.flatnonzero(parts == part), n) for part, n in ((TRAIN, LEARN), (VALID, DECIDE)))
    _require_rows(path, len(decide), most)
    first = FirstAnswers(run.columns.codecs, len(run.columns.target.classes)).to(run.model.temperature.device).eval()
    with (say or Silent()).bar("asking the model", len(learn) + len(decide)) as bar:
        watched, taught = (_answered(run, table, rows, bar) for rows in (decide, learn))
    decided = sum(len(said) for _, said in watched)
    _require_rows(path, decided, most)
    _teach(first, taught)
    left, differ = _decide(first, watched, most)
    if left < EARNS:
        raise RunError(
            f"{path}: at least {EARNS:.0%} of the rows must be easy, at most {most:g} of a hundred then with another "
            f"label. Got {left:.1%}. Use it as it is, or allow more with --max-loss."
        )
    judged = judge_rows(run, table, drawn(decide, ROWS))
    points: list[Point] = []

    def add(kind: str, size: int) -> None:
        quality, spent = judged.measure(run.model, kind)
        lost = judged.figure.loss(points[0].quality or 0.0, quality) if points else 0.0
        points.append(Point(kind, quality, lost, spent, size / 1e6))

    state, more = load_file(path / WEIGHTS), {f"first.{n}": t.cpu() for n, t in first.state_dict().items()}
    whole, added = (sum(t.nbytes for t in tensors.values()) for tensors in (state, more))
    add("float32", whole)
    if machine_has_bfloat16("cpu"):
        add("bfloat16", whole)
    run.model.first = first
    add("early", whole + added)
    found = pareto("early", judged.figure, judged.rows, points) | {"left": left, "differ": differ, "decided": decided}
    config = json.loads((path / CONFIG).read_text()) | {"first": True}
    write_beside(path, out, state | more, json.dumps(config, indent=1) + "\n", run, {"early": found})
    return {"output": str(out), **found}


def _require_rows(path: Path, found: int, most: float) -> None:
    needed = max(2, math.ceil(math.log(0.05) / math.log1p(-most / 100)))
    if found < needed:
        raise RunError(
            f"{path}: at least {needed:,} validation rows must be there to show that at most {most:g} of a hundred "
            f"rows get another label. Got {found:,}. Give more with --data TABLE, or allow more with --max-loss."
        )


def _require_classes(run: Run) -> None:
    if type(run) is not Run:
        found = f"a run of the task {run.figures['task']}"
    elif run.model.classes is None:
        found = f"a target of the type {run.model.kind}"
    elif run.model.first is not None:
        found = "a run whose easy rows leave early already"
    elif run.model.score is not None or run.model.shift is not None:
        found = "a run that declines rows" if run.model.score is not None else "a run with a threshold a group"
    elif all(codec.type in ("image", "sequence") for codec in run.columns.codecs):
        found = "one of pictures or histories alone"
    else:
        return
    raise UsageError(
        f"{run.path}: must choose one of several classes for every row by the same rule, and read texts, numbers, "
        f"categories or times, for its easy rows to leave early. Got {found}. Use it as it is."
    )


def _answered(run: Run, table: Table, wanted: np.ndarray, bar: Bar) -> Answered:
    """The ``wanted`` rows and what the model says of them, in any order."""
    found, device = [], run.model.temperature.device
    for clean in Predictor(run.columns, run.model, True).clean(table, chosen=lambda rows: np.isin(rows, wanted)):
        rows = len(clean.rows)
        codes = run.columns.encode(clean)
        said = torch.from_numpy(predict_codes(run.model, codes, rows)).to(device)
        for chosen in in_turn(np.arange(rows), lengths(codes), TOKENS, fixed_tokens(codes)) if rows else ():
            picked = {c: {n: take(a, chosen) for n, a in fields.items()} for c, fields in codes.items()}
            found.append((collate(picked, len(chosen)).to(device), said[chosen]))
        bar.advance(rows)
    return found


def _teach(first: FirstAnswers, taught: Answered) -> None:
    """Let the path say what the model says: the least cross-entropy, by ridge regression."""
    said, path = torch.cat([answers for _, answers in taught]), first.path
    fit_ridge(
        lambda: torch.cat([path(batch.columns) for batch, _ in taught]),
        lambda out: -(said * out.log_softmax(dim=-1)).sum(dim=-1).mean(),
        path.weights(), path.bias, RIDGE / len(said),
    )  # fmt: skip


@torch.no_grad()
def _decide(first: FirstAnswers, watched: Answered, most: float) -> tuple[float, float]:
    """Set the margin; the share of the rows that leave, and the share that leave with another label."""
    ours = torch.cat([first(batch.columns) for batch, _ in watched]).cpu().numpy()
    same = ours.argmax(axis=1) == torch.cat([said for _, said in watched]).cpu().numpy().argmax(axis=1)
    first.margin.fill_(fit_margin(margins(ours), same, most / 100))
    easy = first.easy(ours)
    return float(easy.mean()), float((easy & ~same).mean())
