"""Groups treated more alike: rows weighed before training, a penalty while it learns, a threshold a group after it.

Each is a setting under ``training.fairness``. Nothing is drawn at random: a resumed run ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from weft.features.targets import ClassTarget, NumberTarget, known
from weft.training_settings import FairnessSettings

STRENGTH = {"reweigh": 1.5, "penalty": 2.0, "thresholds": 1.0}
"""Defaults. Of the first two the power of the paper and a weight of 1 cut the gap of Adult by less than half."""
LEAST = 30
"""Watched rows that a group must have, of those that the goal compares, to have a threshold of its own."""
RATES = 1_001


@dataclass
class Fairness:
    """What a model of classes or of a number is held to while it learns.

    groups: of every encoded row its group [N], of so many. positive: the class that is looked for, where one is.
    weight: of each group and class [G, C], for reweighing. unit: mean and deviation of a number.
    """

    settings: FairnessSettings
    groups: np.ndarray
    count: int
    positive: int | None = None
    weight: Tensor | None = None
    unit: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, settings: FairnessSettings, groups: np.ndarray, target: ClassTarget | NumberTarget, positive: int | None,
        truth: Callable[[np.ndarray], np.ndarray], learnt: np.ndarray,
    ) -> Fairness:  # fmt: skip
        """``learnt``: the rows that are learnt from; ``truth``: rows -> their codes."""
        held = cls(settings, groups, int(groups.max()) + 1, positive)
        if isinstance(target, NumberTarget):
            held.unit = target.mean, target.deviation
        elif settings.how == "reweigh":
            codes = truth(learnt)
            there = known(codes)
            count = np.zeros((held.count, len(target.classes)))
            np.add.at(count, (groups[learnt][there], codes[there]), 1)
            held.weight = torch.from_numpy(reweighing(count) ** held.strength).float()
        return held

    @property
    def strength(self) -> float:
        return STRENGTH[self.settings.how] if self.settings.strength is None else self.settings.strength

    def loss(self, answer: Tensor, target_B: Tensor, groups_B: Tensor) -> Tensor:
        """Mean over the rows, each by its weight, or with the penalty.

        ``answer``: log probabilities [B, C], whose loss is the cross-entropy in nats; or numbers in their unit [B],
        whose loss is the squared error in squared deviations of the target.
        """
        if self.unit is not None:
            number_B = ((answer - self.unit[0]) / self.unit[1]).float()
            held_B = number_B if self.settings.goal == "parity" else number_B - target_B
            told = between_groups(held_B.unsqueeze(1), groups_B, self.count).sum()
            return F.mse_loss(number_B, target_B) + self.strength * told
        each = F.nll_loss(answer.float(), target_B, reduction="none")
        if self.weight is not None:
            return (self.weight.to(each.device)[groups_B, target_B] * each).mean()
        return each.mean() + self.strength * self._told(answer.float().exp(), target_B, groups_B)

    def _told(self, p_BC: Tensor, target_B: Tensor, groups_B: Tensor) -> Tensor:
        """What the group tells of all answers; or of those to the rows that truly are of a class, mean over these."""
        if self.settings.goal == "parity":
            return told_by_group(p_BC, groups_B, self.count)
        total, rows = p_BC.sum() * 0, 0
        for code in range(p_BC.shape[1]) if self.positive is None else [self.positive]:
            mine = target_B == code
            p_B, own = p_BC[mine, code], int(mine.sum())
            both_BC = torch.stack([p_B, 1 - p_B], dim=1)
            total, rows = total + own * told_by_group(both_BC, groups_B[mine], self.count), rows + own
        return total / max(1, rows)


def reweighing(count_GC: np.ndarray) -> np.ndarray:
    """P(group) P(class) / P(group, class) [G, C]: weights by which neither tells the other (Kamiran & Calders 2012)."""
    expected = count_GC.sum(axis=1, keepdims=True) * count_GC.sum(axis=0) / count_GC.sum()
    return np.where(count_GC > 0, expected / np.maximum(count_GC, 1), 1.0)


def told_by_group(p_BC: Tensor, groups_B: Tensor, groups: int) -> Tensor:
    """How much the group tells of probabilities: the variance of their means by group, over their mean, summed over the
    classes (Pearson's mean square contingency of answers that are drawn; twice the nats it tells, where those are few).

    0 where every group has the same means; of two classes 1 where the group tells all.
    """
    middle_C = p_BC.mean(dim=0).detach().clamp(min=1e-3) if len(p_BC) else 1.0
    return (between_groups(p_BC, groups_B, groups) / middle_C).sum()


def between_groups(x_BC: Tensor, groups_B: Tensor, groups: int) -> Tensor:
    """The variance of the means of the groups, each group by its rows [C].

    What the means of so few rows vary by chance is taken off, so that a small batch asks for nothing more (the mean
    over batches is that over all rows).
    """
    n_G = torch.bincount(groups_B, minlength=groups).to(x_BC.dtype)
    there, rows = (n_G > 0).sum(), len(x_BC)
    if rows <= there or there < 2:
        return x_BC.sum(dim=0) * 0
    mean_GC = x_BC.new_zeros(groups, x_BC.shape[1]).index_add(0, groups_B, x_BC) / n_G.clamp(min=1).unsqueeze(1)
    within_C = ((x_BC - mean_GC[groups_B]) ** 2).sum(dim=0) / (rows - there)
    spread_C = (n_G.unsqueeze(1) * (mean_GC - x_BC.mean(dim=0)) ** 2).sum(dim=0) / rows
    return spread_C - (there - 1) / rows * within_C


def group_thresholds(
    p: np.ndarray, truth: np.ndarray, groups: np.ndarray, goal: str, strength: float, count: int
) -> tuple[np.ndarray, list[int]]:
    """The probability from which on each group is given the class, for equal rates and the best accuracy so.

    Args:
        p, truth, groups: of the watched rows [N]: probability of the class, whether it is true, the group.
        goal: parity (share of all rows) or opportunity (share of those that truly are of the class; Hardt 2016).
        strength: which part of the way from the rate at 0.5 to the common rate.

    Returns:
        thresholds [count], 0.5 for the groups of less than ``LEAST`` such rows; which groups those are.
    """
    compared = np.ones(len(p), bool) if goal == "parity" else truth.astype(bool)
    size = np.bincount(groups[compared], minlength=count)
    large = np.flatnonzero(size >= LEAST)
    found = np.full(count, 0.5)
    few = [g for g in range(count) if 0 < size[g] < LEAST or (size[g] == 0 and (groups == g).any())]
    if len(large) < 2:
        return found, few
    rates = np.linspace(0, 1, RATES)
    best, right = found, -1.0
    own = {g: np.sort(p[compared & (groups == g)])[::-1] for g in large.tolist()}
    for rate in rates:
        tried = found.copy()
        for g, scores in own.items():
            now = float((scores > 0.5).mean())
            tried[g] = _threshold(scores, now + strength * (rate - now))
        accuracy = float(((p > tried[groups]) == truth).mean())
        if accuracy > right:
            best, right = tried, accuracy
    return best, few


def _threshold(scores: np.ndarray, rate: float) -> float:
    """Above it lies the share ``rate`` of scores that go down."""
    above = round(rate * len(scores))
    higher = scores[above - 1] if above else 1.0
    lower = scores[above] if above < len(scores) else 0.0
    return float(np.clip((higher + lower) / 2, 1e-6, 1 - 1e-6))
