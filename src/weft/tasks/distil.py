"""What a teacher says of the rows that a smaller model learns from (``training: {distil: {from: RUN}}``), and what the
model loses beside it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from weft.config import Settings
from weft.data.split import TEST, VALID
from weft.defaults import frozen, lora_rank
from weft.errors import RunError, SettingsError, listing
from weft.exchange import is_checkpoint
from weft.features.codecs import TextCodec
from weft.features.columns import Columns
from weft.features.pieces import Corpus
from weft.features.targets import ClassTarget, NumberTarget, known
from weft.inference.predict import predict_codes
from weft.language_defaults import context
from weft.models.backbone import BackboneConfig, best_device
from weft.models.heads import Directions
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel, extract, find, load_text_model, smaller
from weft.models.row import RowModel, RowModels
from weft.models.transformer import TransformerConfig
from weft.preprocess.ingest import UNLABELLED, CleanRows
from weft.progress import Silent
from weft.results.metrics import METRICS
from weft.results.outcomes import Outcomes
from weft.results.pareto import Figure, Point, pareto, pareto_lines, timed_answers
from weft.results.summary import SHOWN, judge
from weft.runs.run import Run
from weft.training.fit import Taught, start
from weft.training.language import TokenObjective, document_nats
from weft.training.parallel import once
from weft.training_settings import DistilSettings

ROWS = 2_000
"""Validation rows that both are judged on at most."""
PIECES = 200
"""... and texts of a context each."""
LEAST = 1e-7
"""A probability of nothing at all has no logarithm."""


def ask_teacher(settings: Settings, columns: Columns, clean: CleanRows, work: Path, say: Silent) -> Taught | None:
    """Log probabilities [N, C] of the classes of ``columns``, or standardised numbers [N], of every clean row that is
    not kept apart to judge by; they lie on disk. None where there is no teacher.

    Raises:
        SettingsError: the teacher reads other columns, or predicts something else.
    """
    if settings.training.distil is None:
        return None
    name, file = settings.training.distil.from_, work / "taught.npy"

    def ask() -> Taught:
        if not file.exists():  # it is there where a trial before, or the run that goes on, asked
            _ask(name, columns, clean, file, say)
        return opened()

    def opened() -> Taught:
        return Taught(np.load(file, mmap_mode="r"), clean.places(UNLABELLED))

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
    taught.flush()
    beside.replace(file)
    say.line(f"learns from the answers of {name} too ({teacher.figures['model']['parameters']:,} parameters)")


def start_as_teacher(settings: Settings, columns: Columns, models: RowModels, source: TextModel, say: Silent) -> bool:
    """Begin with what the teacher has learnt: so many of its own blocks and inner numbers as the model has (Sanh 2019),
    of classes its head, and its weights of the n-grams that both know. False where it was not tuned from such a
    checkpoint."""
    if settings.training.distil is None:
        return False
    run = Run(settings.training.distil.from_)
    teacher, theirs, ours = run.model.each()[0], run.columns, source.backbone
    order = _classes(run, columns, settings.training.distil.from_)
    if teacher.config.pretrained != source.config or not _holds(teacher.config.backbone, ours):
        return False
    if theirs.tokenizer is None or theirs.tokenizer.to_str() != source.tokenizer.to_str():
        return False
    assert isinstance(ours, TransformerConfig)
    part = smaller(extract(teacher), ours.layers, ours.hidden_width)
    for copy in models.each():
        start(copy, part, lora_rank(settings), frozen(settings))
        if theirs.types == columns.types:
            copy.embedding.column.load_state_dict(teacher.embedding.column.state_dict())
        if order is not None:
            _take_head(copy, teacher, order, columns, theirs)
    say.line("begins with the teacher's own blocks" + ("" if order is None else " and head"))
    return True


@torch.no_grad()
def _take_head(copy: RowModel, teacher: RowModel, order: list[int], ours: Columns, theirs: Columns) -> None:
    """The directions of the classes, whose places at the teacher are ``order``, and its weights of n-grams."""
    read, said = copy.head.read, teacher.head.read
    assert isinstance(read, Directions) and isinstance(said, Directions)
    read.load_state_dict({n: t[order] if n in ("weight", "bias") else t for n, t in said.state_dict().items()})
    if copy.linear is None or teacher.linear is None:
        return
    copy.linear.bias.copy_(teacher.linear.bias[order])
    known = {c.name: c.grams for c in theirs.codecs if isinstance(c, TextCodec)}
    for codec in ours.codecs:
        if isinstance(codec, TextCodec) and codec.name in teacher.linear.texts:
            _, here, there = np.intersect1d(codec.grams, known[codec.name], True, return_indices=True)
            from_ = teacher.linear.grams[teacher.linear.texts.index(codec.name)]
            copy.linear.grams[copy.linear.texts.index(codec.name)][here] = from_[there][:, order].to(read.weight)


def _holds(theirs: BackboneConfig, ours: BackboneConfig) -> bool:
    """Whether the second can be a part of the first."""
    if not (isinstance(ours, TransformerConfig) and isinstance(theirs, TransformerConfig)):
        return False
    like = replace(
        ours, layers=theirs.layers, ffn_width=theirs.ffn_width, dropout=theirs.dropout,
        attention_dropout=theirs.attention_dropout,
    )  # fmt: skip
    return like == theirs and theirs.layers >= ours.layers and theirs.hidden_width >= ours.hidden_width


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
    points: list[Point] = []
    for kind, reads, answers in (("teacher", teacher.columns, teacher.model), ("student", columns, model)):
        output, spent = timed_answers(reads, answers, batches)
        if order is not None:  # the model may say beside how sure it is
            output = output[:, order if answers is teacher.model else range(len(order))]
        said = Outcomes(target, output[usable], truth[usable], positive)
        quality = judge("", "", said).estimates[key].value
        points.append(_point(kind, figure, quality, spent, answers, points))
    return _allowed(distil, figure, int(usable.sum()), points, say)


def open_writing_teacher(settings: Settings) -> TextModel | None:
    """The model whose next tokens are learnt from, and its tokens; None where there is none.

    Raises:
        SettingsError: it does not write, or reads less than ``max_tokens``.
    """
    if settings.training.distil is None:
        return None
    name = settings.training.distil.from_
    found = load_text_model(path) if is_checkpoint(path := find(name)) else None
    if found is None or found.model.config.backbone.attention != "writing" or found.model.config.output == "none":
        raise SettingsError(
            [f"training.distil.from: the teacher must be a model that writes, as target.next_token asks. {name} does "
             "not. Take another one."]
        )  # fmt: skip
    context(settings, settings.target.name, found.model)
    found.model.to(best_device()).eval().requires_grad_(False)
    return found


def check_tokens(settings: Settings, tokenizer: Tokenizer, teacher: TextModel | None) -> None:
    """Raises SettingsError where the model that learns has other tokens than its teacher."""
    if teacher is not None and tokenizer.to_str() != teacher.tokenizer.to_str():
        assert settings.training.distil is not None
        raise SettingsError(
            [f"training.distil.from: the teacher must have the tokens of the model that learns. "
             f"{settings.training.distil.from_} and {settings.model.from_} have different ones. Take another teacher, "
             f"or leave out model.from: a new model takes the teacher's tokens."]
        )  # fmt: skip


def beside_writing_teacher(
    settings: Settings, corpus: Corpus, valid: np.ndarray, model: LanguageModel, teacher: LanguageModel, say: Silent
) -> dict[str, Any]:
    """Teacher and model on at most ``PIECES`` pieces of the validation texts. Raises RunError as of a row."""
    distil = settings.training.distil
    assert distil is not None
    cuts, figure = corpus.cuts(valid), Figure("perplexity", higher=False, share=False)
    pieces = cuts.some(PIECES * corpus.context, settings.training.seed)
    points: list[Point] = []
    for kind, answers in (("teacher", teacher), ("student", model)):
        objective = TokenObjective(answers)
        document_nats(objective, corpus, cuts, pieces[:1])  # a first call takes longer
        started = time.process_time()
        nats, tokens = document_nats(objective, corpus, cuts, pieces)
        spent = 1000 * (time.process_time() - started) / max(1, len(pieces))
        points.append(_point(kind, figure, float(np.exp(nats.sum() / max(1, tokens.sum()))), spent, answers, points))
    return _allowed(distil, figure, len(pieces), points, say)


def _allowed(distil: DistilSettings, figure: Figure, rows: int, points: list[Point], say: Silent) -> dict[str, Any]:
    """Both as a report holds them. Raises RunError where more is lost than may be."""
    found = pareto("student", figure, rows, points)
    for line in pareto_lines(found):
        say.line(line)
    lost, before, after = points[1].loss or 0.0, points[0].quality, points[1].quality
    if lost > distil.max_loss:
        raise RunError(
            f"training.distil: the model must lose at most {distil.max_loss:g} points of {figure.title} beside "
            f"its teacher. It loses {lost:.2f} ({before:.4f} to {after:.4f}). Train it longer, make it larger, or "
            f"allow it, for which nothing is trained anew: --resume --set training.distil.max_loss="
            f"{math.ceil(10 * lost) / 10:g}"
        )
    return found


def _point(
    kind: str, figure: Figure, quality: float, milliseconds: float, model: nn.Module, before: list[Point]
) -> Point:
    lost = figure.loss(before[0].quality or 0.0, quality) if before else 0.0
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 1e6
    return Point(kind, quality, lost, milliseconds, size)


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
