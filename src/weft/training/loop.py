"""The one training loop: steps, validation, early stopping, checkpoints, an exact way back.

Everything that a step depends on is its number: the batch comes from (seed, epoch), the learning rate
from the step, the dropout from a random state that checkpoints hold. A run killed and resumed therefore
ends with the same bits as one that was never killed.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from weft import memory
from weft.errors import TrainingError
from weft.features.batching import Batch, shuffled
from weft.features.next_items import HistoryBatch
from weft.features.pieces import TextBatch
from weft.features.store import Lengths
from weft.progress import over_in_words
from weft.training import parallel
from weft.training.checkpoint import Checkpoints
from weft.training.muon import Muon, muon
from weft.training.optimizers import Schedule, adamw
from weft.training.parallel import Alone, Part
from weft.training.tracking import Tracker

SECONDS_BETWEEN_SAVES = 60.0
DropoutSchedule = Literal["early", "late", "rising"]


@dataclass(frozen=True)
class Privacy:
    """How little may be learnt of any one row."""

    epsilon: float
    delta: float | None
    clip: float
    batch_rows: int | None = None


@dataclass(frozen=True)
class Federated:
    """How many steps an owner makes in a round, how large, and of how many rows at most in a private one."""

    steps: int
    rate: float
    rows: int = 0


@dataclass(frozen=True)
class Distil:
    """How a teacher's answers are learnt from: softened by ``temperature``, with ``weight`` beside the labels."""

    temperature: float
    weight: float


@dataclass(frozen=True)
class Recipe:
    """Settings of a training with every default resolved."""

    epochs: int
    batch_rows: int
    learning_rate: float
    weight_decay: float
    patience: int
    average: float
    """Decay of the moving average of the weights, which is what is validated and kept."""
    bfloat16: bool
    seed: int
    minutes: float | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises."""
    down: Literal["cosine", "linear"] = "cosine"
    """How it then falls."""
    clip: float = 1.0
    check_steps: int | None = None
    """Steps between two looks at the validation rows; None: an epoch."""
    threads: int | None = None
    """Threads of a matrix product; None: as many as the machine has. A small model loses by sharing its steps."""
    accumulate: int = 1
    """Parts that a batch is computed in one after another; their gradients add up to the batch's."""
    mixup: float = 0.0
    """a of Beta(a, a), from which the share comes that two rows are mixed by (Zhang 2018)."""
    cutmix: float = 0.0
    """a of Beta(a, a), from which the share comes that a picture keeps of itself (Yun 2019)."""
    consistency: float = 0.0
    """Weight of the distance between two passes of the same rows (R-Drop, Liang 2021)."""
    dropout_schedule: DropoutSchedule | None = None
    column_dropout: float = 0.0
    """Share of a row's columns that are hidden while it is learnt."""
    distil: Distil | None = None
    privacy: Privacy | None = None
    federated: Federated | None = None
    shard: bool = False
    """Whether each of several processes holds a piece of every weight."""
    tensor: int = 1
    """Processes that share a matrix."""
    checkpoint_activations: bool = False


@dataclass
class Progress:
    """Where a training stands; saved in every checkpoint."""

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    worse: int = 0
    seconds: float = 0.0
    stopped: str = ""
    privacy: dict[str, float] | None = None
    """The account of a private training."""


class Interrupted(KeyboardInterrupt):
    """Asked to stop by a signal, whose number is the argument; the state was saved first."""


class Loop:
    """Trains ``model`` on the rows ``train`` of ``fetch``.

    Args:
        fetch: row numbers and the epoch -> Batch.
        validate: model, who reads the rows -> validation loss (lower is better).
        lengths: tokens of each row beyond the fixed ones, or None; rows of like length share a batch.
        objective: batch, share of the training that is done, the rows it is of -> loss; default: the model's own.
        pace: how fast it goes, in words for a person.
        weigh: of a part of a batch, how many rows or tokens its loss is the mean of.
        beside: whether what is fetched of a row depends on those beside it, so that each process fetches them all.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        fetch: Callable[[np.ndarray, int], Batch | TextBatch | HistoryBatch],
        train: np.ndarray,
        lengths: np.ndarray | Lengths | None,
        validate: Callable[[nn.Module, Alone], float],
        tracker: Tracker,
        checkpoints: Checkpoints,
        say: Any,
        objective: Callable[[Any, float, Part], Tensor] | None = None,
        pace: Callable[[Progress], str] = lambda progress: "",
        weigh: Callable[[Any], float] = lambda batch: batch.rows,
        beside: bool = False,
    ):
        self.objective = objective or (lambda batch, done, part: model.loss(batch))  # type: ignore[operator]
        self.model, self.recipe, self.fetch, self.train, self.lengths = model, recipe, fetch, train, lengths
        self.validate, self.tracker, self.checkpoints, self.say = validate, tracker, checkpoints, say
        self.pace, self.weigh, self.beside = pace, weigh, beside
        self.team = parallel.made(recipe)
        trained = sum(p.numel() for _, p in self._trained())
        # beside the weights: gradients, two moments, the average and the best
        memory.require(20 * trained / self.team.pieces, f"training {trained:,} parameters")
        if recipe.checkpoint_activations:
            parallel.recompute(model)
        self.team.lay(model)
        self.optimizer = optimizer_of(model, recipe)
        if isinstance(self.optimizer, Muon):
            self.optimizer.team = self.team
        self.steps_an_epoch = math.ceil(len(train) / recipe.batch_rows)
        self.total = self.steps_an_epoch * recipe.epochs
        self.check_steps = min(recipe.check_steps or self.steps_an_epoch, self.steps_an_epoch)
        self.schedule = Schedule(self.total, int(self.total * recipe.warmup) + 1, down=recipe.down)
        self.progress = Progress()
        self.average = {n: p.clone() for n, p in self._own()}
        self.best = {n: p.clone() for n, p in self.average.items()}

    def run(self) -> Progress:
        """Train to the end; the model then holds the best weights. Raises TrainingError, Interrupted."""
        with contextlib.closing(self.tracker):
            return self._run()

    def _run(self) -> Progress:
        saved = self._resume()
        p, recipe, team = self.progress, self.recipe, self.team
        if p.step == 0:
            self._check()  # the start may be the best there is: a linear path fitted first
        started = last_save = time.monotonic()
        before = p.seconds
        shown, checked, begun = self._share(), "", False
        with _polite() as asked, self.say.bar("training", 1 - shown) as bar:
            while p.step < self.total and not p.stopped:
                epoch, first = divmod(p.step, self.steps_an_epoch)
                for rows in self._batches(epoch, first):
                    if not begun:  # after all that a beginning may draw
                        team.restore_random(saved, recipe.seed, p.step)
                        begun = True
                    self._step(rows)
                    now = time.monotonic()
                    p.seconds, due = team.first(before + now - started, now - last_save > SECONDS_BETWEEN_SAVES)
                    stop = team.most(asked[0] if asked else 0)
                    if p.step % self.check_steps == 0 or p.step == self.total:
                        checked = self._check()
                    share = self._share()
                    bar.advance(share - shown, "; ".join(filter(None, (checked, self.pace(p)))))
                    shown = share
                    if recipe.minutes and p.seconds > 60 * recipe.minutes and not p.stopped:
                        self._check()
                        p.stopped = over_in_words(recipe.minutes)
                    if stop or due:
                        self._save()
                        last_save = time.monotonic()
                    if stop:
                        raise Interrupted(stop)
                    if p.stopped:
                        break
        p.stopped = p.stopped or f"all {recipe.epochs} epochs were done"
        self._save()
        self._put(self.best)
        self._let_go()
        team.gather(self.checkpoints.folder / "best.safetensors")
        return p

    def _let_go(self) -> None:
        """What only a training needs takes no memory any more."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()
        self.average, self.best = {}, {}
        memory.give_back()

    def _share(self) -> float:
        """How much of the training is done: of its steps, or of its minutes where they end first."""
        limit = self.recipe.minutes
        return min(1.0, max(self.progress.step / self.total, self.progress.seconds / (60 * limit) if limit else 0.0))

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    def _own(self) -> list[tuple[str, Tensor]]:
        """What this process holds of each."""
        return [(n, self.team.own(p)) for n, p in self._trained()]

    def _batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """The rows of each step of an epoch, from its ``first`` on."""
        return shuffled(self.train, self.lengths, self.recipe.batch_rows, self.recipe.seed, epoch, first)

    def _step(self, rows: np.ndarray) -> None:
        """One step of the optimiser."""
        p, recipe = self.progress, self.recipe
        self.model.train()
        share = 0.0
        if recipe.minutes:
            share = p.seconds / (60 * recipe.minutes)
        now = max(p.step, int(share * self.total))
        rate = recipe.learning_rate * self.schedule(now)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        found = self._descend(rows, p.step // self.steps_an_epoch, min(1.0, now / self.total))
        self.optimizer.step()
        p.step += 1
        # an average over the few steps done so far while there are few (a bias-corrected decay)
        decay = min(recipe.average, p.step / (p.step + 9))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [q for _, q in self._own()], 1 - decay)
        self.tracker.log(p.step, train_rate=rate, **found)
        memory.give_back_grown()

    def _descend(self, rows: np.ndarray, epoch: int, done: float) -> dict[str, float]:
        """Put the gradient of some rows into the parameters; returns what is recorded of it."""
        random = np.random.Generator(np.random.Philox(key=[self.recipe.seed, self.progress.step]))
        parts = [Part(self.team, some, random) for some in _parts(rows, self.recipe.accumulate)]
        loss = self._gradients(parts, epoch, done)
        trained = [p for _, p in self._trained()]
        self.team.add_gradients(trained)
        length = self.team.clip(trained, self.recipe.clip)
        if not (torch.isfinite(loss) and torch.isfinite(length)):
            raise TrainingError(
                f"training step {self.progress.step + 1}: the loss and its gradient must be finite. Got a loss of "
                f"{loss.item():g}. The weights are as they were; lower training.learning_rate "
                f"(now {self.recipe.learning_rate:g}) or look for extreme values in the data."
            )
        return {"train_loss": loss.item(), "train_gradient": length.item()}

    def _gradients(self, parts: list[Part], epoch: int, done: float) -> Tensor:
        """The loss of the batch, its gradients in the parameters: the mean over all parts of what each is a mean of."""
        team, device = self.team, _device(self.model)
        batches, weights = [], []
        for part in parts:
            places, count = team.places(len(part.rows))
            if self.beside:
                batches.append(self.fetch(part.rows, epoch).row(torch.from_numpy(places)))
            else:
                batches.append(self.fetch(part.rows[places], epoch))
            weights.append(1.0 if len(parts) == team.shares == 1 else count * self.weigh(batches[-1]))
        whole = max(float(team.add_up(torch.tensor(sum(weights)))), 1e-9)  # nothing may be asked for
        total = torch.zeros((), device=device)
        for part, batch, weight in zip(parts, batches, weights, strict=True):
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.bfloat16):
                loss = team.within(partial(self.objective, batch, done, part)) * (weight / whole)
            loss.backward()
            total = total + loss.detach()
        return team.add_up(total)

    def _check(self) -> str:
        p = self.progress
        own = {n: q.clone() for n, q in self._own()}
        self._put(self.average)
        self.model.eval()
        with torch.no_grad():
            (loss,) = self.team.first(self.team.within(partial(self.validate, self.model, self.team)))
        self._put(own)
        self.tracker.log(p.step, valid_loss=loss)
        if not math.isfinite(loss):
            raise TrainingError(f"training step {p.step}: the validation loss must be finite. Got {loss:g}.")
        if loss < p.best_loss - 1e-5:
            p.best_loss, p.best_step, p.worse = loss, p.step, 0
            for name, value in self.average.items():
                self.best[name].copy_(value)
        else:
            p.worse += 1
            if p.worse >= self.recipe.patience:
                every = "epochs" if self.check_steps == self.steps_an_epoch else f"checks of {self.check_steps:,} steps"
                p.stopped = f"the validation loss did not improve for {self.recipe.patience} {every}"
        self.say.checked(self._share(), loss)
        return f"validation loss {loss:.4f} (best {p.best_loss:.4f})"

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, own in self._own():
            own.copy_(values[name])

    def _save(self) -> None:
        self.tracker.flush()  # a checkpoint that is there has its records
        extra = {f"average.{n}": v for n, v in self.average.items()} | {f"best.{n}": v for n, v in self.best.items()}
        state = {"progress": asdict(self.progress) | {"best_loss": _json_number(self.progress.best_loss)},
                 "recipe": asdict(self.recipe)}  # fmt: skip
        self.checkpoints.save(self.progress.step, self.model, self.optimizer, extra, state, self.team)

    def _resume(self) -> dict[str, Tensor] | None:
        """Go back to the newest checkpoint; returns its tensors, of which the random state is not yet in use."""
        folder = self.checkpoints.newest(self.say, self.team)
        if folder is None:
            self.tracker.rewind(-1)  # a run killed before its first checkpoint begins anew
            return None
        extra, state = self.checkpoints.load(folder, self.model, self.optimizer, self.team)
        saved = state["progress"]
        if saved["best_loss"] is None:
            saved["best_loss"] = math.inf
        self.progress = Progress(**saved)
        for name in self.average:
            self.average[name].copy_(extra[f"average.{name}"])
            self.best[name].copy_(extra[f"best.{name}"])
        self.tracker.rewind(self.progress.step)
        self.say.line(f"resumed at step {self.progress.step:,} of {self.total:,}")
        return extra


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """That of the recipe, for the parameters that are trained."""
    make = muon if recipe.optimizer == "muon" else adamw
    return make(model, recipe.learning_rate, recipe.weight_decay)


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _device(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def _parts(rows: np.ndarray, count: int) -> list[np.ndarray]:
    return [some for some in np.array_split(rows, count) if len(some)]


@contextlib.contextmanager
def _polite() -> Iterator[list[int]]:
    """While open, Ctrl-C and SIGTERM ask for a stop after the step at hand, by their number in the list; a second one
    stops at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt(number)
        asked.append(number)

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
