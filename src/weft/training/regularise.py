"""What a row model is held back or helped by while it learns, beside dropout and weight decay: mixup, cutmix,
consistency, dropout that changes on the way, and a teacher. Each is a setting under ``training``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.batching import Batch
from weft.features.targets import UNSEEN
from weft.models.heads import ClassHead, LabelsHead
from weft.models.row import RowModel
from weft.training.fairness import Fairness
from weft.training.loop import Distil, DropoutSchedule, Recipe
from weft.training.parallel import ALL, Part


class Objective:
    """The loss of a training step of ``model`` by ``recipe``."""

    def __init__(self, model: RowModel, recipe: Recipe, fair: Fairness | None = None):
        self.model, self.recipe, self.fair = model, recipe, fair
        self.dropouts = _dropouts(model)

    def __call__(self, batch: Batch, done: float, part: Part = ALL) -> Tensor:
        """Mean loss of the rows, where they look at one another of all of the ``part``; ``done`` is the share of the
        training that lies behind, 0 to 1."""
        recipe, model = self.recipe, self.model
        if recipe.dropout_schedule:
            for scale in self.dropouts:
                scale(dropout_factor(recipe.dropout_schedule, done))
        if recipe.mixup:
            return mixed_loss(model, batch, recipe.mixup, part)
        if recipe.cutmix:
            return cut_loss(model, batch, recipe.cutmix, part)
        if self.fair is not None:
            assert batch.target is not None and batch.groups is not None
            return self.fair.loss(*map(part.whole, (model.answer(batch), batch.target, batch.groups)))
        if recipe.distil is not None:
            return taught_loss(model, batch, recipe.distil)
        if not recipe.consistency:
            return model.loss(batch)
        assert batch.target is not None
        # of all rows: the loss is a mean by the weights of classes, the distance one by rows
        out = torch.cat([part.whole(half) for half in model(_twice(batch)).chunk(2)])
        return model.head.loss(out, torch.cat([part.whole(batch.target)] * 2)) + recipe.consistency * distance(
            model, out
        )


def taught_loss(model: RowModel, batch: Batch, distil: Distil) -> Tensor:
    """(1 - w) loss of the labels + w T^2 KL(p_T, q_T), where p_T is the teacher's answer softened by the temperature T
    and q_T the model's (Hinton 2015); of numbers the squared difference takes its place. A row without a label has the
    teacher's answer alone."""
    assert batch.target is not None and batch.taught is not None
    out = model(batch)
    if isinstance(model.head, ClassHead):
        t = distil.temperature
        p, q = ((x.float() / t).log_softmax(dim=-1) for x in (batch.taught, out))
        soft = t**2 * F.kl_div(q, p, log_target=True, reduction="batchmean")
    else:
        soft = F.mse_loss(out[:, 0].float(), batch.taught)
    return (1 - distil.weight) * _labelled_loss(model, out, batch.target) + distil.weight * soft


def _labelled_loss(model: RowModel, out: Tensor, target: Tensor) -> Tensor:
    """The loss of the rows that have a label, a mean over all rows."""
    here = ~target.isnan() if target.is_floating_point() else target != UNSEEN
    return model.head.loss(out[here], target[here]) * here.float().mean() if here.any() else out.new_zeros(())


def mixed_loss(model: RowModel, batch: Batch, a: float, part: Part = ALL) -> Tensor:
    """Loss of what is read of each row, mixed with that of another row of the part (manifold mixup, Verma 2019).

    read = s read_i + (1 - s) read_j,  loss = s loss(y_i) + (1 - s) loss(y_j),  s ~ Beta(a, a), one a part.
    """
    assert batch.target is not None
    share, target = float(part.random.beta(a, a)), part.whole(batch.target)
    other = torch.from_numpy(part.random.permutation(len(target))).to(target.device)
    own = part.team.places(len(target))[0]

    def mix(x: Tensor) -> Tensor:
        return share * x + (1 - share) * part.whole(x)[other[own]]

    read = mix(model.read(model.embedding(batch.columns)))
    out = model.head(F.dropout(read, model.config.dropout, model.training))
    if model.linear is not None:
        out = out + mix(model.linear(batch.columns))
    loss, out = model.head.loss, part.whole(out)
    return share * loss(out, target) + (1 - share) * loss(out, target[other])


def cut_loss(model: RowModel, batch: Batch, a: float, part: Part = ALL) -> Tensor:
    """Loss of pictures of which a rectangle comes from another row's (CutMix, Yun 2019).

    loss = s loss(y_i) + (1 - s) loss(y_j), where s is the share of its pixels that row i keeps: about Beta(a, a), one a
    part, less where the rectangle would leave the picture. A row without one of its pictures stays as it is.
    """
    assert batch.target is not None
    share, target = float(part.random.beta(a, a)), part.whole(batch.target)
    there = torch.stack([fields["present"] for fields in batch.columns.values()]).amin(dim=0)
    other, here = torch.arange(len(target)), part.whole(there).cpu().nonzero()[:, 0]
    other[here] = here[part.random.permutation(len(here))]
    other = other.to(target.device)
    own = part.team.places(len(target))[0]
    middle, length = torch.from_numpy(part.random.random(2)), (1 - share) ** 0.5
    low, high = (middle - length / 2).clamp(min=0), (middle + length / 2).clamp(max=1)
    columns, kept = {}, 0.0
    for name, fields in batch.columns.items():
        pixels = fields["pixels"].clone()
        side = pixels.shape[-1]
        (top, left), (bottom, right) = (((edge * side).round().long().tolist()) for edge in (low, high))
        pixels[:, :, top:bottom, left:right] = part.whole(fields["pixels"][:, :, top:bottom, left:right])[other[own]]
        columns[name] = {**fields, "pixels": pixels}
        kept += 1 - (bottom - top) * (right - left) / side**2
    out, kept = part.whole(model(Batch(columns, batch.target, batch.rows))), kept / len(columns)
    loss = model.head.loss
    return kept * loss(out, target) + (1 - kept) * loss(out, target[other])


def distance(model: RowModel, out: Tensor) -> Tensor:
    """How far the outputs of the two halves of ``out`` [2B, C] are apart, mean over the rows.

    Classes: (KL(p, q) + KL(q, p)) / 2 in nats; labels: that of each, summed. Numbers: the squared difference in squared
    deviations.
    """
    first, second = out.float().chunk(2)
    if isinstance(model.head, LabelsHead):
        return ((first.sigmoid() - second.sigmoid()) * (first - second)).sum(dim=-1).mean() / 2
    if not isinstance(model.head, ClassHead):
        return F.mse_loss(first, second)
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1).mean() / 2


def dropout_factor(schedule: DropoutSchedule, done: float) -> float:
    """What the dropouts are multiplied by: ``early`` until, ``late`` from the middle of the training on (Liu 2023);
    ``rising`` from nothing to all of it (Morerio 2017)."""
    if schedule == "rising":
        return done
    return float((done < 0.5) == (schedule == "early"))


def _dropouts(model: nn.Module) -> list[Callable[[float], None]]:
    """For each module that drops out, what sets its shares to a factor of those it was built with."""

    def scaled(module: nn.Module, config: Any) -> Callable[[float], None]:
        if isinstance(config, float):
            return lambda factor: setattr(module, "dropout", config * factor)
        names = [n for n in ("dropout", "attention_dropout") if hasattr(config, n)]
        shares = {n: getattr(config, n) for n in names}
        return lambda factor: setattr(
            module, "config", replace(config, **{n: share * factor for n, share in shares.items()})
        )

    found = []
    for module in model.modules():
        own, config = getattr(module, "dropout", None), getattr(module, "config", None)
        if isinstance(own, float):
            found.append(scaled(module, own))
        elif hasattr(config, "dropout"):
            found.append(scaled(module, config))
    return found


def _twice(batch: Batch) -> Batch:
    """Every row once more, after all the others."""
    columns = {c: {n: torch.cat([t, t]) for n, t in fields.items()} for c, fields in batch.columns.items()}
    assert batch.target is not None
    return Batch(columns, torch.cat([batch.target, batch.target]), 2 * batch.rows)
