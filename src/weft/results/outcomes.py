"""What a model says of rows beside what is true of them: the one thing that all figures of rows are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weft.features.targets import ClassTarget, LabelsTarget, NumberTarget, Target
from weft.results.labels import label_metrics
from weft.results.metrics import Weighted, class_metrics, number_metrics


@dataclass(frozen=True)
class Outcomes:
    """Answers to N rows whose truth is known.

    Args:
        output: probabilities [N, C], a column more where the model may decline; or numbers [N] in the target's unit.
        truth: codes of classes [N], labels [N, L], or standardised numbers [N].
        positive: of two classes the one that is looked for.
        thresholds: from which probability on a label is given [L].
    """

    target: Target
    output: np.ndarray
    truth: np.ndarray
    positive: int | None = None
    thresholds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: np.ndarray) -> Outcomes:
        return replace(self, output=self.output[rows], truth=self.truth[rows])

    def said(self, output: np.ndarray, thresholds: np.ndarray | None = None) -> Outcomes:
        """What another model says of the same rows."""
        return replace(self, output=output, thresholds=thresholds)

    @property
    def classes(self) -> list[str]:
        """Classes or labels; none of a number."""
        return self.target.classes

    @property
    def probabilities(self) -> np.ndarray:
        """Of the classes or labels [N, C]."""
        return self.output[:, : len(self.classes)]

    @property
    def given(self) -> np.ndarray:
        """The class that is answered [N], or which labels are given [N, L]."""
        return self.probabilities.argmax(axis=1) if self.thresholds is None else self.output >= self.thresholds

    @property
    def true_numbers(self) -> np.ndarray:
        """In the target's unit [N]."""
        assert isinstance(self.target, NumberTarget)
        return in_unit(self.target, self.truth)

    @property
    def wrong(self) -> np.ndarray:
        """Of each row [N] 1 or 0; of a number its distance from the truth."""
        if isinstance(self.target, NumberTarget):
            return np.abs(self.output - self.true_numbers)
        missed = self.given != self.truth
        return (missed.any(axis=1) if missed.ndim == 2 else missed).astype(np.float64)

    @property
    def surprise(self) -> np.ndarray:
        """At the truth of each row [N], in nats; of a number its distance."""
        if isinstance(self.target, NumberTarget):
            return self.wrong
        p = np.clip(self.probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
        if isinstance(self.target, ClassTarget):
            return -np.log(p[np.arange(len(p)), self.truth])
        return -np.where(self.truth.astype(bool), np.log(p), np.log1p(-p)).sum(axis=1)

    @property
    def width(self) -> int:
        """Numbers that a metric reads of each row."""
        return self.truth.shape[1] if self.truth.ndim == 2 else 1

    def metrics(self) -> dict[str, Weighted]:
        """The metrics of the target's type; classes are judged as if every row were answered."""
        if isinstance(self.target, NumberTarget):
            return number_metrics(self.output, self.true_numbers)
        if isinstance(self.target, LabelsTarget):
            assert self.thresholds is not None
            return label_metrics(self.output, self.truth, self.thresholds)
        return class_metrics(self.probabilities.astype(np.float64), self.truth, self.positive)

    def named(self, answer: Any) -> str:
        """A class, or labels [L], as a person reads it; "" where there is no label."""
        if isinstance(self.target, ClassTarget):
            return self.classes[int(answer)]
        return ", ".join(np.array(self.classes)[answer.astype(bool)])


def in_unit(target: NumberTarget, truth: np.ndarray) -> np.ndarray:
    """Standardised numbers [N] in the target's unit."""
    return truth.astype(np.float64) * target.deviation + target.mean
