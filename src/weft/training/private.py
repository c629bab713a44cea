"""Private steps (DP-SGD, Abadi 2016): what is learnt says next to nothing of any one row.

    g = (sum_i clip(g_i) + N(0, (noise * C)^2)) / (rate * rows),   clip(g) = g min(1, C / |g|)

Every step draws each row with the chance ``rate`` (Poisson sampling: its number of rows varies); g_i is the gradient of
that row's own loss. Which rows are drawn and the noise come from a key that is in no setting and in no result, lies
beside the checkpoints while the training lasts and is removed with them: who knew it could take the noise away again.
Everything a step draws depends on the key and its number, so a run killed and resumed ends with the same bits.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from weft import memory
from weft.errors import CheckpointError, SettingsError
from weft.files import write_whole
from weft.training.accountant import noise_for, spent
from weft.training.loop import Loop, Privacy, Recipe
from weft.training.parallel import ALL, once
from weft.training_settings import TrainingSettings

KEY_FILE, KEY_BYTES = "secret.key", 32
MOST_NUMBERS, MOST_ROWS = 1 << 25, 512
"""Of the gradients of rows that are held at once; and rows that are computed at once."""
EPOCHS, STEPS, LEAST_BATCH, MOST_BATCH = 10, 50, 16, 2_048
"""Passes over the rows, and the steps of each unless they would be of fewer or more rows."""
RATE, AVERAGE = 5e-3, 0.95
FAINT = 15.0
"""A direction on which all rows agree must stand out from the noise of all steps by so much, or nothing is learnt."""


def privately(recipe: Recipe, given: TrainingSettings) -> Recipe:
    """A recipe for private steps: a fixed number of them, in float32."""
    wanted = given.private
    assert wanted is not None
    rows = None if given.federated else given.batch_rows  # of owners as many as the defaults say
    return replace(
        recipe, epochs=given.epochs or EPOCHS, learning_rate=given.learning_rate or RATE, average=AVERAGE,
        optimizer=given.optimizer or "adamw", check_steps=None, patience=1 << 30, bfloat16=False,
        privacy=Privacy(wanted.epsilon, wanted.delta, wanted.clip, rows),
    )  # fmt: skip


def account_of(recipe: Recipe, rows: int) -> tuple[Recipe, dict[str, float]]:
    """The recipe with the rows of a step, and the account of a training on so many rows, of which nothing is spent yet.

    Raises SettingsError where these rows cannot reach the epsilon.
    """
    wanted, unit = recipe.privacy, "owners" if recipe.federated else "rows"
    where = "training.federated.privacy" if recipe.federated else "training.privacy"
    assert wanted is not None
    # large batches: the noise of a step is the same for many rows as for few
    size = wanted.batch_rows or int(np.clip(rows / STEPS, LEAST_BATCH, MOST_BATCH))
    total = math.ceil(rows / size) * recipe.epochs
    rate, delta = min(1.0, size / rows), wanted.delta or 1 / (10 * rows)
    if delta * rows >= 1:
        raise SettingsError(
            [f"{where}.delta: must be below 1 / {unit}, or one of the {rows:,} may be published as it is. "
             f"Got {delta:g}. Leave it out for {1 / (10 * rows):.1g}."]
        )  # fmt: skip
    most = rate * rows * math.sqrt(total) / FAINT
    noise = noise_for(wanted.epsilon, rate, total, delta)
    if noise > most:
        raise SettingsError(
            [f"{where}.epsilon: with {rows:,} {unit} must be at least {_up(spent(most, rate, total, delta))}, or the "
             f"noise hides all that could be learnt. Got {wanted.epsilon:g}. Raise it, or give more {unit}."]
        )  # fmt: skip
    account = {"epsilon": wanted.epsilon, "delta": delta, "noise": noise, "rate": rate, "clip": wanted.clip,
               "rows": rows, "spent": 0.0}  # fmt: skip
    return replace(recipe, batch_rows=size), account


def sized(recipe: Recipe, rows: float) -> Recipe:
    """The recipe as a training on so many rows takes it. Raises as :func:`account_of`."""
    return recipe if recipe.privacy is None else account_of(recipe, max(1, round(rows)))[0]


class PrivateLoop(Loop):
    """A loop whose steps are private. A row may be a text, a user or an owner here: what ``train`` numbers."""

    def __init__(self, model: nn.Module, recipe: Recipe, fetch: Any, train: np.ndarray, *args: Any, **named: Any):
        recipe, account = account_of(recipe, len(train))
        super().__init__(model, recipe, fetch, train, *args, **named)
        self.progress.privacy = account
        self.gradients = RowGradients(self.model, lambda batch, done: self.objective(batch, done, ALL))
        self.say.line(
            f"private: epsilon {account['epsilon']:g} at delta {account['delta']:.2g}; {account['rate']:.2%} of "
            f"{len(train):,} {'owners' if recipe.federated else 'rows'} a step, {self.total:,} steps, noise "
            f"{account['noise']:.3g} times the longest gradient"
        )

    def _resume(self) -> dict[str, Tensor] | None:
        saved = super()._resume()
        file = self.checkpoints.folder / KEY_FILE
        if self.progress.step and not file.exists():
            raise CheckpointError(f"{file}: must lie beside the checkpoints. It is gone. Start a new run with -o.")
        once(lambda: None if file.exists() else _write_key(file), lambda: None)
        self.key = file.read_bytes()
        return saved

    def _batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        assert self.progress.privacy is not None
        for step in range(epoch * self.steps_an_epoch + first, (epoch + 1) * self.steps_an_epoch):
            random = np.random.Generator(np.random.Philox(key=np.frombuffer(self._draw("rows", step, 16), np.uint64)))
            # as many as would each be drawn by itself, then which
            count = random.binomial(len(self.train), self.progress.privacy["rate"])
            yield np.sort(self.train[random.choice(len(self.train), count, replace=False, shuffle=False)])

    def _descend(self, rows: np.ndarray, epoch: int, done: float) -> dict[str, float]:
        p = self.progress
        assert p.privacy is not None
        total = {n: torch.zeros_like(q) for n, q in self._trained()}
        for some in self._clipped(rows[self.team.share :: self.team.shares], p.privacy["clip"], done):
            for name, value in some.items():
                total[name] += value.view_as(total[name])
        place, expected, size = 0, p.privacy["rate"] * len(self.train), sum(q.numel() for q in total.values())
        noise = np.zeros(size)
        if not self.team.share:  # once: the sums of the other processes come without
            noise = p.privacy["noise"] * p.privacy["clip"] * gaussians(self._draw("noise", p.step), size)
        for name, q in self._trained():
            own = torch.from_numpy(noise[place : place + q.numel()]).view(q.shape)
            place += q.numel()
            q.grad = ((total[name].cpu().double() + own) / expected).to(q)
        self.team.add_gradients([q for _, q in self._trained()])
        return {}  # the loss and the gradient of rows without noise are not for anyone

    def _clipped(self, rows: np.ndarray, longest: float, done: float) -> Iterator[dict[str, Tensor]]:
        """Sums of what some of the rows give, none longer than ``longest``."""
        if self.lengths is not None:  # rows of like length are computed together
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        for some in np.split(rows, range(self.gradients.at_once, len(rows), self.gradients.at_once)):
            if len(some):
                yield self.gradients.clipped(self.fetch(some, self.progress.step), len(some), longest, done)

    def _check(self) -> str:
        """Look at the validation rows; whatever they say, the last weights are kept: of users, events to watch are
        of those who are learnt from."""
        said, p = super()._check(), self.progress
        p.best_step = p.step
        for name, value in self.average.items():
            self.best[name].copy_(value)
        return said

    def _draw(self, what: str, step: int, size: int = KEY_BYTES) -> bytes:
        return hashlib.shake_256(self.key + f"{what} {step}".encode()).digest(size)

    def _save(self) -> None:
        p = self.progress
        assert p.privacy is not None
        p.privacy["spent"] = spent(p.privacy["noise"], p.privacy["rate"], p.step, p.privacy["delta"])
        super()._save()


class RowGradients:
    """Gradients of the loss of each row by itself, exact, never those of a batch."""

    def __init__(self, model: nn.Module, objective: Any):
        self.call = _Call(model, objective)
        self.parameters = {n: p for n, p in self.call.named_parameters() if p.requires_grad}
        numbers = sum(p.numel() for p in self.parameters.values())
        most = min(MOST_NUMBERS, memory.bound() // 64)
        # the kernels of recurrent networks know only batches: there one row after the other
        self.side_by_side = not any(isinstance(m, nn.RNNBase) for m in model.modules())
        self.at_once = int(np.clip(most // max(1, numbers), 1, MOST_ROWS))

    def clipped(self, batch: Any, rows: int, longest: float, done: float) -> dict[str, Tensor]:
        """The sum of the gradients of all rows, each no longer than ``longest``; one that is not finite counts 0."""
        places = torch.arange(rows, device=next(iter(self.parameters.values())).device)

        def loss(parameters: Mapping[str, Tensor], place: Tensor) -> Tensor:
            return functional_call(self.call, dict(parameters), (batch.row(place.reshape(1)), done))

        plain = {n: p.detach() for n, p in self.parameters.items()}
        if self.side_by_side:
            each = vmap(grad(loss), in_dims=(None, 0), randomness="different")(plain, places)
            return clipped_sum({n.partition(".")[2]: g for n, g in each.items()}, longest)
        total: dict[str, Tensor] = {}
        for place in places:
            found = torch.autograd.grad(loss(self.parameters, place), list(self.parameters.values()), allow_unused=True)
            one = {n.partition(".")[2]: (p.detach() * 0 if g is None else g)[None]
                   for (n, p), g in zip(self.parameters.items(), found, strict=True)}  # fmt: skip
            total = {n: total[n] + g if n in total else g for n, g in clipped_sum(one, longest).items()}
        return total


class _Call(nn.Module):
    """A model and what is minimised of it, as a module whose parameters ``functional_call`` may replace."""

    def __init__(self, model: nn.Module, objective: Any):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Any, done: float) -> Tensor:
        return self.objective(batch, done)

    def named_parameters(self, *args: Any, **named: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return super().named_parameters(*args, **named)


def clipped_sum(each: Mapping[str, Tensor], longest: float) -> dict[str, Tensor]:
    """The sum of gradients [B, ...] of rows, each shortened to ``longest``, as lists of numbers; one that is not finite
    counts 0."""
    flat = {name: g.reshape(len(g), -1).float() for name, g in each.items()}
    length = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in flat.values()]).norm(dim=0)
    good = length.isfinite()
    if not good.all():
        flat, length = {name: g[good] for name, g in flat.items()}, length[good]
    share = (longest / length.clamp(min=1e-12)).clamp(max=1.0)
    return {name: share @ g for name, g in flat.items()}


def gaussians(key: bytes, count: int) -> np.ndarray:
    """Standard normal numbers [count], float64, that nobody can tell from drawn ones without the key.

    SHAKE-256 of the key gives the bits, the polar form of Box & Muller (1958) the numbers, of 53 bits each.
    """
    bits = np.frombuffer(hashlib.shake_256(key).digest(8 * (count + count % 2)), np.uint64)
    first, second = ((half >> np.uint64(11)).astype(np.float64) / 2**53 for half in np.split(bits, 2))
    radius = np.sqrt(-2 * np.log1p(-first))
    return np.concatenate([radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)])[:count]


def _write_key(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, secrets.token_bytes(KEY_BYTES))
    file.chmod(0o600)


def _up(epsilon: float) -> str:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 1)
    return f"{math.ceil(epsilon / unit) * unit:.2g}"
