"""Statistics of a stream: a sample that does not depend on the batches, mean and deviation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from weft.data.split import uniform

SAMPLE = 100_000


class Sampler:
    """The ``size`` values with the lowest draw by row number: one sample whatever the batches' order."""

    def __init__(self, size: int = SAMPLE):
        self.size = size
        self._draws = np.zeros(0)
        self._values: np.ndarray = np.zeros(0, dtype=object)

    def add(self, rows: np.ndarray, values: np.ndarray | pa.Array) -> None:
        draws = uniform(0, rows)
        if len(self._draws) >= self.size:
            chosen = draws < self._draws[-1]
            draws, values = draws[chosen], values.filter(chosen) if isinstance(values, pa.Array) else values[chosen]
        if isinstance(values, pa.Array):
            values = np.array(values.to_pylist(), dtype=object)
        self._keep(draws, values)

    def join(self, other: Sampler) -> None:
        """Be that of both streams."""
        self._keep(other._draws, other._values)

    def _keep(self, draws: np.ndarray, values: np.ndarray) -> None:
        self._draws = np.concatenate([self._draws, draws])
        self._values = np.concatenate([self._values.astype(values.dtype, copy=False), values])
        order = np.argsort(self._draws, kind="stable")[: self.size]
        self._draws, self._values = self._draws[order], self._values[order]

    def values(self) -> np.ndarray:
        return self._values


class Moments:
    """Count, mean and deviation of a stream (Chan, Golub & LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self._m2 = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        if len(values):
            mean = float(values.mean())
            self._join(len(values), mean, float(((values - mean) ** 2).sum()))

    def merge(self, other: Moments) -> None:
        """Be those of both streams."""
        if other.count:
            self._join(other.count, other.mean, other._m2)

    def _join(self, count: int, mean: float, m2: float) -> None:
        total, gap = self.count + count, mean - self.mean
        self._m2 += m2 + gap * gap * self.count * count / total
        self.mean += gap * (count / total)  # of a first part exactly its own
        self.count = total

    @property
    def deviation(self) -> float:
        return float(np.sqrt(self._m2 / self.count)) if self.count else 0.0
