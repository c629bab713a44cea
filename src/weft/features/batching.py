"""Codes of some rows as tensors, and the order in which training visits the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.data.split import mixed
from weft.features.ragged import Ragged
from weft.features.store import TARGET, Lengths, RowCodes

WINDOW = 32  # batches
ROUNDS = 6


@dataclass
class Batch:
    """Codes as tensors: fixed fields [B], ragged ones [B, T] padded with -1 (weights with 0); ``target`` [B],
    of labels [B, L]."""

    columns: dict[str, dict[str, Tensor]]
    target: Tensor | None
    rows: int
    groups: Tensor | None = None
    """To which group each row belongs [B], where training treats groups alike."""
    reads: Tensor | None = None
    """What a frozen checkpoint reads of each row [B, R], where that is known."""
    taught: Tensor | None = None
    """What a teacher answers [B, C] or [B], where one is learnt from."""

    def to(self, device: torch.device | str) -> Batch:
        if str(device) == "cpu":
            return self
        rest = (None if t is None else t.to(device) for t in (self.target, self.groups, self.reads, self.taught))
        return Batch(each_field(self.columns, lambda t: t.to(device)), next(rest), self.rows, *rest)

    def row(self, place_1: Tensor) -> Batch:
        """One row alone."""
        target, reads = (None if t is None else t[place_1] for t in (self.target, self.reads))
        return Batch(each_field(self.columns, lambda t: t[place_1]), target, 1, reads=reads)


def each_field(codes: Mapping[str, Mapping[str, Any]], change: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
    """The fields of some columns, each changed."""
    return {column: {name: change(array) for name, array in fields.items()} for column, fields in codes.items()}


def collate(codes: RowCodes, rows: int, multiple: int = 1) -> Batch:
    """Tensors of the codes of ``rows`` rows, ragged ones of a width that is a multiple of ``multiple``."""
    columns = each_field(codes, lambda array: _tensor(array, multiple))
    target = columns.pop(TARGET, None)
    return Batch(columns, None if target is None else target["value"], rows)


def _tensor(array: np.ndarray | Ragged, multiple: int = 1) -> Tensor:
    if not isinstance(array, Ragged):
        return torch.from_numpy(np.ascontiguousarray(array))
    lengths = array.lengths()
    nothing = 0 if array.values.dtype.kind == "f" else -1
    width = -(-max(1, int(lengths.max(initial=0))) // multiple) * multiple
    padded = np.full((len(lengths), width), nothing, array.values.dtype)
    padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = array.values
    return torch.from_numpy(padded)


def padded_ids(ids: Ragged, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Some rows of ids as int64 [B, T], 0 where a row is over, and which places hold one [B, T]."""
    found = _tensor(ids.take(rows))
    return found.clamp(min=0), found >= 0


def shuffled(
    rows: np.ndarray, lengths: np.ndarray | Lengths | None, size: int, seed: int, epoch: int, first: int = 0
) -> Iterator[np.ndarray]:
    """Batches of one epoch, from the ``first`` on: each row once, in an order that depends on ``seed`` and ``epoch``
    only.

    Rows of like length share a batch (sorted inside windows of ``WINDOW`` batches, whose batches come in random order)
    so that little is padding. The last batch of all may be smaller. Nothing is held but a window.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    keys = random.integers(0, 1 << 63, ROUNDS, np.uint64)
    span = WINDOW * size
    for window in range(first // WINDOW, -(-len(rows) // span)):
        order = rows[permuted(np.arange(window * span, min(len(rows), (window + 1) * span)), len(rows), keys)]
        if lengths is not None:
            order = order[np.argsort(lengths[order], kind="stable")]
        batches = np.split(order, range(size, len(order), size))
        if lengths is not None:
            turns = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, window, 0, 0]))
            batches = [batches[i] for i in turns.permutation(len(batches))]
        yield from batches[max(0, first - window * WINDOW) :]


def permuted(places: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
    """Where a random permutation of ``count`` things puts those at ``places``, without memory of the others.

    A Feistel network (Luby & Rackoff 1988) over the next power of four, a round for each of ``keys``; what falls
    outside goes through it again (cycle walking: Black & Rogaway 2002).
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    found, todo = places.astype(np.uint64), np.arange(len(places))
    while len(todo):
        left, right = found[todo] >> half, found[todo] & low
        for key in keys:
            left, right = right, left ^ (mixed(right ^ key) & low)
        found[todo] = left << half | right
        todo = todo[found[todo] >= count]
    return found.astype(np.int64)


TOKENS_AT_ONCE = 32_768  # of a batch that is only read, on an accelerator
CACHED = 2**18  # numbers in the states of a batch, each thread's: more do not stay in its caches between two layers


def tokens_to_read(width: int, device: str) -> int:
    """How many tokens of this width to read at once. On CPUs 512 of MiniLM's (384 wide) take 0.4 of the time of
    32,768 at once, each."""
    return TOKENS_AT_ONCE if device != "cpu" else max(512, CACHED // width) * torch.get_num_threads()


def in_turn(
    rows: np.ndarray, lengths: np.ndarray | Lengths | None, budget: int, fixed: int = 1
) -> Iterator[np.ndarray]:
    """Batches for reading only: rows sorted by length, ``budget`` tokens each (padding counted)."""
    if lengths is None:
        size = max(1, budget // fixed)
        yield from np.split(rows, range(size, len(rows), size))
        return
    sizes = lengths[rows]
    by_length = np.argsort(sizes, kind="stable")
    order, sizes = rows[by_length], sizes[by_length]
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and (end - start + 1) * (int(sizes[end]) + fixed) <= budget:
            end += 1
        end = max(end, start + 1)
        yield order[start:end]
        start = end
