"""Codes of some rows as tensors, and the order in which training visits the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weft.features.codecs import Ragged
from weft.features.store import TARGET, RowCodes


@dataclass
class Batch:
    """Codes as tensors: fixed fields [B], ragged ones [B, T] padded with -1 (weights with 0); ``target`` [B],
    of labels [B, L]."""

    columns: dict[str, dict[str, Tensor]]
    target: Tensor | None
    rows: int

    def to(self, device: torch.device | str) -> Batch:
        if str(device) == "cpu":
            return self
        columns = {c: {n: t.to(device) for n, t in fields.items()} for c, fields in self.columns.items()}
        return Batch(columns, None if self.target is None else self.target.to(device), self.rows)


def collate(codes: RowCodes, rows: int) -> Batch:
    """Tensors of the codes of ``rows`` rows."""
    columns = {
        column: {name: _tensor(array) for name, array in fields.items()}
        for column, fields in codes.items()
        if column != TARGET
    }
    target = _tensor(codes[TARGET]["value"]) if TARGET in codes else None
    return Batch(columns, target, rows)


def _tensor(array: np.ndarray | Ragged) -> Tensor:
    if not isinstance(array, Ragged):
        return torch.from_numpy(np.ascontiguousarray(array))
    lengths = array.lengths()
    nothing = 0 if array.values.dtype.kind == "f" else -1
    padded = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), nothing, array.values.dtype)
    padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = array.values
    return torch.from_numpy(padded)


def shuffled(rows: np.ndarray, lengths: np.ndarray | None, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Batches of one epoch: each row once, in an order that depends on ``seed`` and ``epoch`` only.

    Rows of like length share a batch (sorted inside windows of 32 batches) so that little is padding; the
    batches themselves come in random order. The last, smaller batch is kept.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = rows[random.permutation(len(rows))]
    if lengths is not None:
        window = 32 * size
        order = np.concatenate(
            [w[np.argsort(lengths[w], kind="stable")] for w in np.split(order, range(window, len(order), window))]
        )
    batches = np.split(order, range(size, len(order), size))
    if lengths is not None:
        batches = [batches[i] for i in random.permutation(len(batches))]
    return batches


def in_turn(rows: np.ndarray, lengths: np.ndarray | None, budget: int, fixed: int = 1) -> Iterator[np.ndarray]:
    """Batches for reading only: rows sorted by length, ``budget`` tokens each (padding counted)."""
    if lengths is None:
        size = max(1, budget // fixed)
        yield from np.split(rows, range(size, len(rows), size))
        return
    order = rows[np.argsort(lengths[rows], kind="stable")]
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and (end - start + 1) * (int(lengths[order[end]]) + fixed) <= budget:
            end += 1
        end = max(end, start + 1)
        yield order[start:end]
        start = end
