"""RowModels fitted to a store: folds, one loop a copy, then calibration on the rows each copy watched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weft import processes
from weft.data.split import uniform
from weft.errors import listing
from weft.features.batching import Batch, collate, in_turn
from weft.features.store import Lengths, RowCodes, Store
from weft.features.targets import known, most_rows, outside
from weft.models.heads import ClassHead, Directions, NumberHead
from weft.models.language import ImageModel, LanguageModel
from weft.models.pretrained import fill, layerwise
from weft.models.row import SCORES, GroupShift, RowModel, RowModels, combine, energy
from weft.progress import Silent, duration
from weft.training.adapters import attach
from weft.training.calibration import fit_temperature, tempered_loss
from weft.training.checkpoint import Checkpoints
from weft.training.fairness import Fairness, group_thresholds
from weft.training.federated import loop_of
from weft.training.loop import Progress, Recipe
from weft.training.optimizers import fit_ridge
from weft.training.parallel import Alone, leave
from weft.training.regularise import Objective
from weft.training.thresholds import choose_score, coverage_threshold, label_thresholds
from weft.training.tracking import Tracker

Change = Callable[[RowCodes, np.ndarray, int], RowCodes]
"""Codes of rows, their numbers and the epoch -> what is learnt of them this time."""
CHECK_TOKENS = 32_768
RIDGE = 3.0
TOP_RATE, RATE_DECAY = 0.3, 0.85
"""A checkpoint's top block learns this much slower than the head, each block below by the decay again."""
LORA_RATE = 3.0
BEGIN_ROWS = 20_000
AT_ONCE = 1 << 16


@dataclass
class Taught:
    """What a teacher answers to each row [N, C] or [N], and which rows have no label but its answer."""

    answers: np.ndarray
    unlabelled: np.ndarray
    begun: bool = False
    """Whether the model has the teacher's head already."""


@dataclass
class Fitted:
    """How the training of each copy went, and where its metrics are."""

    copies: list[Progress]
    steps_an_epoch: int
    temperature: float
    declines: dict[str, Any] | None = None
    """By which score, chosen how, some rows are declined."""
    thresholds: list[float] | None = None
    """Of each group, by the codes of its columns."""
    watched: list[Watched] = field(default_factory=list)
    """What each copy says of the rows it did not learn."""

    @property
    def seconds(self) -> float:
        return sum(p.seconds for p in self.copies)


def fit(
    models: RowModels,
    store: Store,
    train: np.ndarray,
    valid: np.ndarray,
    recipe: Recipe,
    folder: Path,
    say: Silent,
    changes: Sequence[Change] = (),
    deal: bool = True,
    coverage: float | None = None,
    fair: Fairness | None = None,
    owners: np.ndarray | None = None,
    taught: Taught | None = None,
) -> Fitted:
    """Train every copy; with several, train and valid rows are dealt into folds, each watched by one copy.

    Where they must stay apart (not ``deal``) all copies learn from train and watch valid, and differ by their seed.
    ``changes`` are made one after the other to the rows that are learnt from, anew each epoch. ``coverage``: the share
    of the rows that will be answered; the others are declined. ``fair``: how groups are treated alike.
    ``owners``: of a federated training, whose each row is. ``taught``: what a teacher says of the rows.
    """
    held = fair if fair is not None and fair.settings.how != "thresholds" else None
    with threads(recipe.threads):
        done, watched = _fit(models, store, train, valid, recipe, folder, say, changes, deal, held, owners, taught)
        _decide(models, done, watched, coverage)
        done.watched = watched
        if models.shift is not None and fair is not None:
            done.thresholds = _thresholds(models, models.shift, watched, fair, say)
    return done


def start(copy: RowModel, source: LanguageModel | ImageModel, lora: int | None, frozen: bool = False) -> None:
    """Begin from a checkpoint: its weights, slower rates towards its tokens, or adapters of a rank beside frozen
    matrices, or all of it ``frozen``."""
    fill(copy, source)
    kind = "text" if isinstance(source, LanguageModel) else "image"
    if frozen:
        copy.backbone.requires_grad_(False)
        alone = copy.embedding.types == [kind]
        (copy.embedding if alone else copy.embedding.by_type[kind]).requires_grad_(False)
    elif lora:
        attach(copy.backbone, lora)
        copy.backbone.rate_factor = LORA_RATE  # type: ignore[assignment]
    else:
        layerwise(copy, top=TOP_RATE, decay=RATE_DECAY)
    if kind == "text":
        # of many tokens most never occur in the table, and a step over all of them costs more than the rest
        copy.embedding.by_type["text"].requires_grad_(False)


def reads_once(copy: RowModel) -> bool:
    """Whether all that comes before the head stays as it is."""
    before = [*copy.embedding.parameters(), *copy.backbone.parameters()]
    return copy.config.pretrained is not None and not any(p.requires_grad for p in before)


@contextmanager
def threads(most: int | None) -> Iterator[None]:
    """At most so many threads of torch: those that wait for one another cost narrow models more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(most or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    models: RowModels, store: Store, train: np.ndarray, valid: np.ndarray, recipe: Recipe, folder: Path, say: Silent,
    changes: Sequence[Change], deal: bool, fair: Fairness | None, owners: np.ndarray | None,
    taught: Taught | None,
) -> tuple[Fitted, list[Watched]]:  # fmt: skip
    lengths = store.lengths()
    device = models.temperature.device
    reads: np.ndarray | None = None

    def batch_of(codes: RowCodes, rows: np.ndarray) -> Batch:
        batch = collate(codes, len(rows))
        if fair is not None:
            batch.groups = torch.from_numpy(fair.groups[rows]).long()
        if taught is not None:
            batch.taught = torch.from_numpy(taught.answers[rows])
        if reads is not None:
            batch.reads = torch.from_numpy(reads[rows])
        return batch.to(device)

    def fetch(rows: np.ndarray) -> Batch:
        return batch_of(store.take(rows), rows)

    def fetch_training(rows: np.ndarray, epoch: int) -> Batch:
        codes = store.take(rows)
        for change in changes:
            codes = change(codes, rows, epoch)
        return batch_of(codes, rows)

    done, watched, steps = [], [], 1
    count = len(models.copies)
    folds = _folds(store, train, valid, count, recipe.seed, models.classes) if deal else [(train, valid)] * count
    for number, (learn, watch) in enumerate(folds):
        copy = models.each()[number]
        labelled = learn = _learnable(store, learn)
        if taught is not None:
            learn = np.concatenate([labelled, taught.unlabelled])
        most = most_rows(models.width)
        if len(watch) > most:
            say.line(f"{most:,} of the {len(watch):,} validation rows are watched, drawn at random")
            watch = np.sort(np.random.default_rng(0).choice(watch, most, replace=False))
        inside = watch[known(store.target(watch))]

        def validate(model: nn.Module, team: Alone, watch: np.ndarray = inside) -> float:
            assert isinstance(model, RowModel)
            batches = list(_reading(watch, store, lengths))
            modest = model.config.smoothing and models.kind == "class"
            if fair is None and not modest:
                losses = team.read(batches, lambda rows: model.loss(fetch(rows)).double().expand(len(rows)))
                return float(losses.mean())
            answers = team.read(batches, lambda rows: model.head.answer(model(fetch(rows))))
            rows = np.concatenate(batches)
            truth = store.target(rows)
            if fair is not None:  # else the best would be the step that treats groups as it likes
                return fair.loss(answers, torch.from_numpy(truth), torch.from_numpy(fair.groups[rows]).long()).item()
            # smoothed answers are meant to be too modest: what counts is their loss once calibrated
            said = answers.numpy()
            return tempered_loss(said, truth, fit_temperature(said, truth))

        if reads_once(copy) and not (changes or recipe.mixup or recipe.cutmix or recipe.consistency):
            reads = None
            rows = np.sort(np.concatenate([learn, watch]))
            reads = _read_once(copy, rows, store, fetch, lengths, folder / "work" / f"reads-{number}.npy", say)
        torch.manual_seed(recipe.seed * 1_000 + number)
        if copy.config.linear_first and copy.linear is not None:
            _fit_linear(copy, fetch(labelled), fair)
        begun = taught is not None and taught.begun
        if copy.config.pretrained is not None and recipe.privacy is None and owners is None and not begun:
            _begin(copy, store, fetch, learn[known(store.target(learn))], lengths, recipe.bfloat16)
        tracker = Tracker(folder, number)
        loop = loop_of(recipe, owners)(
            copy, recipe, fetch_training, learn, lengths, validate, tracker,
            Checkpoints(folder / "checkpoints" / f"copy-{number}"), say, Objective(copy, recipe, fair),
            weigh=copy.weigh if fair is None and taught is None else lambda batch: batch.rows,
        )  # fmt: skip
        progress = loop.run()
        done.append(progress)
        steps = loop.steps_an_epoch
        label = f"copy {number + 1} of {count}: " if count > 1 else ""
        epochs = progress.best_step / loop.steps_an_epoch
        say.line(f"{label}best after {epochs:.3g} epochs; {progress.stopped}; {duration(progress.seconds)}")
        if models.kind != "number" and not processes.number():
            watched.append(_watch(copy, store, fetch, watch, lengths, models.shift))
    leave()
    models.eval()
    return Fitted(done, steps, 1.0), watched


@torch.no_grad()
def _read_once(
    copy: RowModel, rows: np.ndarray, store: Store, fetch: Callable[[np.ndarray], Batch], lengths: Lengths | None,
    file: Path, say: Silent,
) -> np.ndarray:  # fmt: skip
    """What a frozen checkpoint reads of each row [N, R], in a file; of rows that are not asked for nothing."""
    if file.exists():  # a run that is resumed
        return np.load(file, mmap_mode="r")
    copy.eval()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")  # each of several processes reads for itself
    found = np.lib.format.open_memmap(part, "w+", np.float32, (int(rows.max()) + 1, copy.config.backbone.width))
    with say.bar("reading once", len(rows)) as bar:
        for chosen in _reading(rows, store, lengths):
            found[chosen] = copy.read(copy.embedding(fetch(chosen).columns)).float().cpu().numpy()
            bar.advance(len(chosen))
    found.flush()
    part.replace(file)
    return found


def _learnable(store: Store, rows: np.ndarray) -> np.ndarray:
    """The rows that say something: of a known class, or of none of them."""
    answers = (store.target(some) for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)))
    good = np.concatenate([known(codes) | outside(codes) for codes in answers])
    return rows if good.all() else rows[good]


@dataclass
class Watched:
    """What a copy says of the rows it watched [N]: answers [N, C], energies [N], true codes [N] or [N, L]; and by
    which groups they may have their thresholds [N]."""

    rows: np.ndarray
    answers: np.ndarray
    energies: np.ndarray
    truth: np.ndarray
    groups: np.ndarray


@torch.no_grad()
def _watch(
    copy: RowModel, store: Store, fetch: Callable[[np.ndarray], Batch], rows: np.ndarray, lengths: Lengths | None,
    shift: GroupShift | None = None,
) -> Watched:  # fmt: skip
    copy.eval()
    seen: list[tuple[np.ndarray, ...]] = []
    for chosen in _reading(rows, store, lengths):
        batch = fetch(chosen)
        out = copy(batch)
        groups = np.zeros(0, np.int64) if shift is None else shift.groups(batch).cpu().numpy()
        answers = copy.head.answer(out).cpu().numpy()
        seen.append((chosen, answers, energy(out).cpu().numpy(), store.target(chosen), groups))
    return Watched(*map(np.concatenate, zip(*seen, strict=True)))


def _thresholds(
    models: RowModels, shift: GroupShift, watched: list[Watched], fair: Fairness, say: Silent
) -> list[float]:
    """A threshold for each group [G], on the watched rows; returns them."""
    answers, truth, groups = (np.concatenate([getattr(w, n) for w in watched]) for n in ("answers", "truth", "groups"))
    inside = known(truth)
    p = combine([torch.from_numpy(answers[inside])], "class", models.temperature.cpu()).numpy()[:, shift.positive]
    found, few = group_thresholds(
        p.astype(np.float64), truth[inside] == shift.positive, groups[inside], fair.settings.goal, fair.strength,
        len(shift.shift),
    )  # fmt: skip
    shift.set(found)
    if few:
        say.warn(f"{len(few)} of the groups by {listing(shift.columns)} keep the threshold 0.5: too few watched rows")
    return found.tolist()


def _decide(models: RowModels, fitted: Fitted, watched: list[Watched], coverage: float | None) -> None:
    """On the watched rows: probabilities that mean what they say, which labels to give, which rows to decline."""
    if models.kind == "number":
        return
    answers, energies, truth = (
        np.concatenate([getattr(w, name) for w in watched]) for name in ("answers", "energies", "truth")
    )
    inside, apart = known(truth), outside(truth)
    if models.kind == "labels":
        probabilities = combine([torch.from_numpy(answers[inside])], "labels", torch.ones(())).numpy()
        models.threshold.copy_(torch.from_numpy(label_thresholds(probabilities, truth[inside])))
        return
    fitted.temperature = fit_temperature(answers[inside], truth[inside])
    models.temperature.fill_(fitted.temperature)
    if coverage is None:
        return
    calibrated = combine([torch.from_numpy(answers)], "class", models.temperature.cpu())
    scores = {name: score(calibrated, torch.from_numpy(energies)).numpy() for name, score in SCORES.items()}
    chosen, areas = choose_score(*({name: s[rows] for name, s in scores.items()} for rows in (inside, apart)))
    models.decline(chosen, coverage_threshold(scores[chosen][inside], coverage))
    fitted.declines = {"score": chosen, "areas": areas, "rows": int(inside.sum()), "outside": int(apart.sum())}


def _fit_linear(copy: RowModel, batch: Batch, fair: Fairness | None) -> None:
    """The linear path alone, by regression on all rows it learns from (small tables only)."""
    path, head = copy.linear, copy.head
    assert path is not None and batch.target is not None
    target, factor = batch.target, 0.5 if isinstance(head, NumberHead) else 1.0
    path.eval()

    def loss(out: Tensor) -> Tensor:
        if fair is not None and batch.groups is not None:
            return factor * fair.loss(head.answer(out), target, batch.groups)
        return factor * head.loss(out, target)

    fit_ridge(lambda: path(batch.columns), loss, path.weights(), path.bias, RIDGE / batch.rows)


@torch.no_grad()
def _begin(
    copy: RowModel, store: Store, fetch: Callable[[np.ndarray], Batch], rows: np.ndarray, lengths: Lengths | None,
    bfloat16: bool,
) -> None:  # fmt: skip
    """Let the head of a checkpoint begin with what the untouched checkpoint reads in the rows it learns from."""
    if isinstance(copy.head, NumberHead) or not isinstance(copy.head.read, Directions):
        return
    copy.eval()
    reads, targets = [], []
    if len(rows) > BEGIN_ROWS:  # drawn, not the first: a table may be sorted by class
        rows = np.sort(np.random.default_rng(0).choice(rows, BEGIN_ROWS, replace=False))
    for chosen in _reading(rows, store, lengths):
        batch = fetch(chosen)
        assert batch.target is not None
        with torch.autocast(batch.target.device.type, torch.bfloat16, enabled=bfloat16):
            read = copy.read(copy.embedding(batch.columns)).float() if batch.reads is None else batch.reads
            reads.append(read)
        targets.append(batch.target)
    target = torch.cat(targets)
    if isinstance(copy.head, ClassHead):
        target = torch.nn.functional.one_hot(target, len(copy.head.prior))
    copy.head.read.begin(torch.cat(reads), target)


def _reading(rows: np.ndarray, store: Store, lengths: Lengths | None) -> Iterator[np.ndarray]:
    return in_turn(rows, lengths, CHECK_TOKENS, fixed=max(16, store.fixed_tokens()))


def _folds(
    store: Store, train: np.ndarray, valid: np.ndarray, copies: int, seed: int, classes: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(learnt, watched) rows a copy. Folds are dealt in random order within each class."""
    if copies == 1:
        return [(train, valid)]
    pool = np.sort(np.concatenate([train, valid]))
    strata = store.target(pool) if classes else np.zeros(len(pool), np.int64)
    order = np.lexsort((uniform(seed + 1, pool), strata))
    fold = np.empty(len(pool), np.int64)
    fold[order] = np.arange(len(pool)) % copies
    return [(pool[fold != k], pool[fold == k]) for k in range(copies)]
