"""A run whose matrices have fewer bits (``weft export --to int8|int4``), judged before it is written.

Its folder opens in every command. What it costs in quality is measured on the validation rows, by the run's own figure;
more than is allowed is refused.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from weft.data.split import VALID
from weft.data.table import Table
from weft.errors import CheckpointError, DataError, RunError, UsageError
from weft.exchange import is_checkpoint
from weft.features.targets import known
from weft.files import MANIFEST, json_text, whole_folder, write_manifest, write_whole
from weft.inference.predict import Predictor
from weft.models.backbone import best_device, machine_has_bfloat16
from weft.models.language import LanguageModel
from weft.models.quantised import CODES, load_state, matrices, quantise
from weft.models.stored import CONFIG, OWN, WEIGHTS, load_pretrained
from weft.results.metrics import METRICS
from weft.results.outcomes import Outcomes
from weft.results.pareto import Figure, Point, pareto, timed_answers
from weft.results.report import write_report
from weft.results.summary import SHOWN, judge
from weft.runs.judged import split_of
from weft.runs.language import LanguageRun
from weft.runs.opening import open_run
from weft.runs.run import REPORT_FILE, Run

Kind = Literal["int8", "int4"]
BITS = {"int8": 8, "int4": 4}
ROWS, TEXTS = 2_000, 200
"""Rows, and texts of a writer, that it is judged on at most."""


def export_smaller(path: Path, kind: Kind, out: Path, most: float, data: str | None = None) -> dict[str, Any]:
    """Write the run at ``path`` with matrices of ``kind``; returns the points of all kinds, and the figure's name.

    Args:
        most: points of the figure that may be lost. A point is a hundredth of a share (accuracy), else a hundredth of
            what it was.
        data: the table to judge on: of the very data of the training the validation rows, else all rows; default:
            where the data of the training lay then.

    Raises:
        UsageError: the run has no such form, or what is lost cannot be measured and ``most`` is finite.
        RunError: more is lost than may be.
    """
    file = path / WEIGHTS
    with safe_open(file, "pt") as stream:
        if any(name.endswith(CODES) for name in stream.keys()):  # noqa: SIM118 (not a dict)
            raise UsageError(f"{path}: must be a run of floating-point numbers. Its matrices are of few bits already.")
    run = None if is_checkpoint(path) and not (path / REPORT_FILE).exists() else open_run(path)
    if run is not None and type(run) is not Run and type(run) is not LanguageRun:
        raise UsageError(
            f"{path}: must predict a class, labels or a number, or write (next_token), or be an imported checkpoint of "
            f"texts. Got a run of the task {run.figures['task']}."
        )
    model, config = _opened(path, run)
    names = [n for n in matrices(model) if n in model.state_dict()]
    judged = None if run is None else _judge_of(run, data)
    points, figure = _pareto(model, names, judged), judged.figure if judged else None
    asked = next(p for p in points if p.kind == kind)
    if asked.loss is None and most < math.inf:
        raise UsageError(
            f"{path}: what {kind} costs must be measured on validation rows. An imported checkpoint has none. "
            f"--max-loss inf writes it unmeasured."
        )
    if figure is not None and asked.loss is not None and asked.loss > most:
        instead = "Take int8, or allow it" if kind == "int4" else "Allow it"
        raise RunError(
            f"{path}: {kind} must cost at most {most:g} points of {figure.title}. It costs {asked.loss:.2f} "
            f"({points[0].quality:.4f} to {asked.quality:.4f}). {instead} with --max-loss."
        )
    found = pareto(kind, figure, judged.rows if judged else 0, points)
    write_beside(path, out, quantise(model.state_dict(), names, BITS[kind]), config, run, {"smaller": found})
    return {"output": str(out), **found}


def _opened(path: Path, run: Run | None) -> tuple[nn.Module, str | None]:
    """The model in float32, and the text of its config where that changes: a text model takes Weft's own form."""
    if run is not None and not isinstance(run, LanguageRun):
        return run.model, None
    model = load_pretrained(path).model
    if not isinstance(model, LanguageModel):
        raise UsageError(f"{path}: must be a model of texts. Got one of pictures.")
    shape = {"model_type": OWN, "format": 1, "language": model.config.to_dict()}
    return model, json.dumps(shape, indent=1) + "\n"


@dataclass
class Judge:
    """How well a model does on the validation rows, by which figure, and on how many."""

    figure: Figure
    rows: int
    measure: Callable[[Any, str], tuple[float, float]]
    """The figure of a model whose numbers are of a kind, and CPU milliseconds a row."""


def judged_table(run: Run, data: str | None) -> tuple[Table, np.ndarray | None]:
    """Where rows to judge a run on lie, and the part of each; None: they have none."""
    source = run.settings.data.source
    if data is not None:
        table, same = Table.of(data), False
    elif source is not None:
        table, same = Table.open(source, run.settings.data.format), True
    else:
        raise DataError(
            f"{run.path}: rows must be there to say what it costs. The run was trained on a table in memory, "
            f"which it does not keep. Give labelled rows: --data TABLE."
        )
    if table.fingerprint() == run.figures["data"]["fingerprint"]:
        parts = split_of(run.path)
        return table, parts if (parts == VALID).any() else None
    if same:
        raise DataError(
            f"{table.name}: must be the table that {run.path} was trained on, whose validation rows say what it "
            f"costs. It was changed. Give labelled rows: --data TABLE."
        )
    return table, None


def drawn(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some rows, in their order."""
    return np.sort(np.random.default_rng(0).choice(rows, min(most, len(rows)), replace=False))


def _judge_of(run: Run, data: str | None) -> Judge:
    table, parts = judged_table(run, data)
    most = TEXTS if isinstance(run, LanguageRun) else ROWS
    # a table may not say how many rows it has
    wanted = np.arange(table.row_count() or most) if parts is None else np.flatnonzero(parts == VALID)
    wanted = drawn(wanted, most)
    return _texts(run, table, wanted) if isinstance(run, LanguageRun) else judge_rows(run, table, wanted)


def judge_rows(run: Run, table: Table, wanted: np.ndarray) -> Judge:
    """The judge of models that answer rows, on the ``wanted`` ones of a table."""
    predictor, target = Predictor(run.columns, run.model, True), run.columns.target
    held = [
        clean
        for clean in predictor.clean(table, with_target=True, chosen=lambda rows: np.isin(rows, wanted))
        if len(clean.rows)
    ]
    truth = np.concatenate([target.encode(clean.columns[target.name]) for clean in held])
    usable = known(truth)
    key = SHOWN[target.type][0]
    metric = METRICS[key]

    def measure(model: Any, kind: str) -> tuple[float, float]:
        with torch.autocast(best_device(), torch.bfloat16, enabled=kind == "bfloat16"):
            output, spent = timed_answers(run.columns, model, held, exact=kind == "float32")
        thresholds = model.threshold.cpu().numpy() if target.type == "labels" else None
        said = Outcomes(target, output[usable], truth[usable], run._positive(), thresholds)
        return judge("", "", said).estimates[key].value, spent

    return Judge(Figure(metric.title, metric.higher_is_better, metric.percent), int(usable.sum()), measure)


def _texts(run: LanguageRun, table: Table, wanted: np.ndarray) -> Judge:
    chosen = set(wanted.tolist())
    texts = [text for row, text in run._cells(table) if row in chosen and text]

    def measure(model: Any, kind: str) -> tuple[float, float]:
        run.perplexity(texts[:2], model, kind == "bfloat16")
        started = time.process_time()
        found = run.perplexity(texts, model, kind == "bfloat16")
        return found, 1000 * (time.process_time() - started) / len(texts)

    return Judge(Figure("perplexity", higher=False, share=False), len(texts), measure)


def _pareto(model: nn.Module, names: list[str], judged: Judge | None) -> list[Point]:
    """What each kind of number costs and gives, float32 first."""
    state = {n: t.detach() for n, t in model.state_dict().items()}
    whole = sum(t.numel() * t.element_size() for t in state.values())
    saved = sum(state[n].numel() * 2 for n in names)
    points: list[Point] = []

    def add(kind: str, model: Any, size: int) -> None:
        quality = spent = loss = None
        if judged is not None:
            with torch.inference_mode():
                quality, spent = judged.measure(model, kind)
            loss = judged.figure.loss(points[0].quality or 0.0, quality) if points else 0.0
        points.append(Point(kind, quality, loss, spent, size / 1e6))

    add("float32", model, whole)
    if machine_has_bfloat16("cpu"):
        add("bfloat16", model, whole - saved)
    for kind, bits in BITS.items():
        small = quantise(state, names, bits)
        answers = model
        if judged is not None:
            answers = copy.deepcopy(model)
            load_state(answers, small, quick=best_device() == "cpu")
        add(kind, answers, sum(t.numel() * t.element_size() for t in small.values()))
    return points


def write_beside(
    path: Path, out: Path, state: dict[str, torch.Tensor], config: str | None, run: Run | None,
    more: dict[str, Any],
) -> None:  # fmt: skip
    """The folder of a checkpoint or a ``run`` with other weights, a ``config`` of its own where that changes, and
    ``more`` in the report."""
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out}: must be a new or an empty folder. It holds files. Choose another with -o.")
    with safe_open(path / WEIGHTS, "pt") as stream:
        metadata = stream.metadata()
    with whole_folder(out) as beside:
        for file in path.iterdir():
            if file.is_file() and file.name not in (WEIGHTS, MANIFEST) and not file.name.startswith("events.out."):
                shutil.copyfile(file, beside / file.name)
        if config is not None:
            write_whole(beside / CONFIG, config)
        save_file({n: t.detach().cpu().contiguous() for n, t in state.items()}, beside / WEIGHTS, metadata=metadata)
    if run is not None:
        figures = run.figures | more
        write_whole(out / REPORT_FILE, json_text(figures, indent=1) + "\n")
        write_report(out, figures, run.settings.results.report or "en")
    # what a person may edit is not bound
    write_manifest(out, [n for n in json.loads((path / MANIFEST).read_text())["sha256"] if (out / n).exists()])
