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

from weft.features.targets import known
from weft.training_settings import FairnessSettings

PENALTY = 1.0
LEAST = 30
"""Watched rows that a group must have, of those that the goal compares, to have a threshold of its own."""
RATES = 1_001


@dataclass
class Fairness:
    """What a class model that learns is held to.

    groups: of every encoded row its group [N]. positive: the class that is looked for. weight: of each group and class
    [G, C], for reweighing.
    """

    settings: FairnessSettings
    groups: np.ndarray
    positive: int
    weight: Tensor

    @classmethod
    def of(
        cls, settings: FairnessSettings, groups: np.ndarray, positive: int, classes: int,
        truth: Callable[[np.ndarray], np.ndarray], learnt: np.ndarray,
    ) -> Fairness:  # fmt: skip
        """``learnt``: the rows that are learnt from; ``truth``: rows -> their codes."""
        codes = truth(learnt)
        there = known(codes)
        count = np.zeros((int(groups.max()) + 1, classes))
        np.add.at(count, (groups[learnt][there], codes[there]), 1)
        strength = 1.0 if settings.strength is None else settings.strength
        return cls(settings, groups, positive, torch.from_numpy(reweighing(count) ** strength).float())

    def loss(self, log_p_BC: Tensor, target_B: Tensor, groups_B: Tensor) -> Tensor:
        """Cross-entropy in nats, mean over the rows, each by its weight; or with the penalty."""
        each = F.nll_loss(log_p_BC.float(), target_B, reduction="none")
        if self.settings.how == "reweigh":
            return (self.weight.to(each.device)[groups_B, target_B] * each).mean()
        strength = PENALTY if self.settings.strength is None else self.settings.strength
        p_B = log_p_BC[:, self.positive].float().exp()
        if self.settings.goal == "opportunity":
            mine = target_B == self.positive
            p_B, groups_B = p_B[mine], groups_B[mine]
        return each.mean() + strength * told_by_group(p_B, groups_B, len(self.weight))


def reweighing(count_GC: np.ndarray) -> np.ndarray:
    """P(group) P(class) / P(group, class) [G, C]: weights by which neither tells the other (Kamiran & Calders 2012)."""
    expected = count_GC.sum(axis=1, keepdims=True) * count_GC.sum(axis=0) / count_GC.sum()
    return np.where(count_GC > 0, expected / np.maximum(count_GC, 1), 1.0)


def told_by_group(p_B: Tensor, groups_B: Tensor, groups: int) -> Tensor:
    """The variance of the mean probabilities of the groups, each group by its rows, over m (1 - m) of their mean m.

    0 where every group has the same mean, 1 where the group tells all. What the means of so few rows vary by chance is
    taken off, so that a small batch asks for nothing more (the mean over batches is that over all rows).
    """
    n_G = torch.bincount(groups_B, minlength=groups).to(p_B.dtype)
    there, rows = n_G > 0, len(p_B)
    if rows <= there.sum() or there.sum() < 2:
        return p_B.sum() * 0
    mean_G = torch.zeros_like(n_G).index_add(0, groups_B, p_B) / n_G.clamp(min=1)
    middle = p_B.mean()
    within = ((p_B - mean_G[groups_B]) ** 2).sum() / (rows - there.sum())
    between = (n_G * (mean_G - middle) ** 2).sum() / rows - (there.sum() - 1) / rows * within
    return between / (middle * (1 - middle)).detach().clamp(min=1e-3)


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
