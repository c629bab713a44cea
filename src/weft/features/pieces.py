"""Documents cut into pieces that fit the context, and pieces packed into rows.

A document longer than the context is cut at another place in every epoch, so that each of its tokens is seen at
each place of a context. Several pieces share a row of a batch (packing; Krell 2021): ``segments_BT`` says which
is whose, and a model that honours it never reads from one into another.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from weft.data.split import uniform
from weft.features.documents import Documents, Marks

IGNORED = -100
"""A target that does not count in the loss."""
MASKED_SHARE = 0.15


@dataclass
class TextBatch:
    """Tokens to read and what each place must say.

    ids_BT: int64, what is read; 0 where a place is empty.
    targets_BT: int64, what the place must say, IGNORED where nothing is asked.
    segments_BT: int64, 1, 2, ... for the pieces of a row, 0 for an empty place; None: each row is one full piece.
    prefix_BT: bool, True for the source that every token may read; None: there is none.
    """

    ids_BT: Tensor
    targets_BT: Tensor
    segments_BT: Tensor | None = None
    prefix_BT: Tensor | None = None

    def to(self, device: torch.device | str) -> TextBatch:
        return self if str(device) == "cpu" else self._each(lambda tensor: tensor.to(device))

    def row(self, place_1: Tensor) -> TextBatch:
        """One row alone."""
        return self._each(lambda tensor: tensor[place_1])

    def _each(self, change: Callable[[Tensor], Tensor]) -> TextBatch:
        return replace(self, **{name: change(tensor) for name, tensor in vars(self).items() if tensor is not None})


@dataclass
class Piece:
    """Part of a document: what is read [T], what is asked [T], and how many of its first tokens are the source."""

    ids: np.ndarray
    targets: np.ndarray
    prefix: int = 0


class Cuts:
    """Numbers for all pieces of some documents, and where each begins and ends.

    Args:
        rows: numbers of the documents in their store.
        lengths: tokens of each.
        context: the longest piece.
    """

    def __init__(self, rows: np.ndarray, lengths: np.ndarray, context: int):
        self.context = context
        count = np.where(lengths > context, -(-lengths // context) + 1, 1)
        self.document = np.repeat(rows, count)
        self._length = np.repeat(lengths, count)
        self._place = np.arange(len(self.document)) - np.repeat(np.cumsum(count) - count, count)

    def __len__(self) -> int:
        return len(self.document)

    def lengths(self) -> np.ndarray:
        """Tokens of each piece at most."""
        return np.minimum(self._length, self.context)

    def some(self, tokens: int, seed: int) -> np.ndarray:
        """Numbers of pieces that hold about so many tokens, drawn from all; of fewer tokens all pieces."""
        lengths = self.lengths()
        if lengths.sum() <= tokens:
            return np.arange(len(self))
        drawn = np.random.default_rng(seed).permutation(len(self))
        return np.sort(drawn[: np.searchsorted(np.cumsum(lengths[drawn]), tokens) + 1])

    def spans(self, pieces: np.ndarray, seed: int = 0, epoch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """First token and the one after the last; ``epoch`` None: cut from the beginning on.

        The first and the last piece of a document that is cut may be empty.
        """
        length, place = self._length[pieces], self._place[pieces]
        shift = np.zeros(len(pieces), np.int64)
        if epoch is not None:
            draw = uniform(seed + 1_000_003 * (epoch + 1), self.document[pieces])
            shift = (draw * self.context).astype(np.int64)
        cut = length > self.context
        start = np.where(cut, (place - 1) * self.context + shift, 0)
        stop = np.where(cut, start + self.context, length)
        return np.clip(start, 0, length), np.clip(stop, 0, length)


class OneEach:
    """One piece of each document that is asked for, another one every time.

    Args:
        owner: whose each piece is [N], ascending.
    """

    def __init__(self, owner: np.ndarray, seed: int):
        self.owners, self._first, self._count = np.unique(owner, return_index=True, return_counts=True)
        self._seed = seed

    def pieces(self, owners: np.ndarray, time: int) -> np.ndarray:
        """Numbers of pieces of some owners, as drawn at a ``time``."""
        place = np.searchsorted(self.owners, owners)
        draw = uniform(self._seed + 1_000_003 * (time + 1), owners)
        return self._first[place] + (draw * self._count[place]).astype(np.int64)


class Corpus:
    """Documents, a batch of pieces at a time.

    Args:
        masked: ids below this number may take the place of a hidden token; None: the next token is asked for.
        pack: several pieces may share a row.
    """

    def __init__(
        self, documents: Documents, marks: Marks, context: int, seed: int = 0, masked: int | None = None,
        pack: bool = True,
    ):  # fmt: skip
        self.documents, self.marks, self.context, self.seed = documents, marks, context, seed
        self.masked, self.pack = masked, pack

    def cuts(self, rows: np.ndarray) -> Cuts:
        # a writer's first token takes the place of its last, which is only asked for; a reader's is one more
        first = self.masked is not None and self.marks.begin is not None
        return Cuts(rows, self.documents.lengths()[rows], self.context - first)

    def owners(self, cuts: Cuts) -> np.ndarray:
        """The row of the table that each piece is of."""
        return cuts.document

    def batch(self, cuts: Cuts, numbers: np.ndarray, epoch: int | None) -> TextBatch:
        """Pieces as rows; in an epoch packed, else a row each in their order, an empty one too."""
        starts, stops = cuts.spans(numbers, self.seed, epoch)
        places = zip(cuts.document[numbers], starts, stops, strict=True)
        pieces = [self._piece(document, start, stop, epoch) for document, start, stop in places]
        if epoch is None or not self.pack:
            return padded(pieces)
        return packed([p for p in pieces if len(p.ids)], self.context)

    def _piece(self, document: int, start: int, stop: int, epoch: int | None) -> Piece:
        tokens = self.documents.tokens
        first = tokens.offsets[document]
        # a tokenizer without a first token: the one before the piece is read, and nothing before the first
        before = int(start > 0) if self.marks.begin is None and self.masked is None else 0
        ids = np.asarray(tokens.values[first + start - before : first + stop]).astype(np.int64)
        return self._hidden(ids, epoch) if self.masked is not None else self._next(ids)

    def _next(self, ids: np.ndarray) -> Piece:
        if self.marks.begin is None or not len(ids):
            return Piece(ids[:-1], ids[1:])
        return Piece(np.concatenate([[self.marks.begin], ids[:-1]]), ids)

    def _hidden(self, ids: np.ndarray, epoch: int | None) -> Piece:
        """15 % of the tokens are asked for: 8 in 10 of them are masked, 1 is another token, 1 stays (Devlin 2019).

        Which, depends on the seed, the epoch and the piece's own tokens: not on the batch it comes in.
        """
        assert self.masked is not None and self.marks.mask is not None
        if not len(ids):
            return Piece(ids, ids)
        random = np.random.Generator(np.random.Philox(key=[self.seed, hash_of(epoch, ids)]))
        asked = random.random(len(ids)) < MASKED_SHARE
        if not asked.any():
            asked[random.integers(len(ids))] = True
        how = random.random(len(ids))
        read = np.where(asked & (how < 0.8), self.marks.mask, ids)
        read = np.where(asked & (how >= 0.9), random.integers(0, self.masked, len(ids)), read)
        targets = np.where(asked, ids, IGNORED)
        if self.marks.begin is None:
            return Piece(read, targets)
        return Piece(np.concatenate([[self.marks.begin], read]), np.concatenate([[IGNORED], targets]))


def hash_of(epoch: int | None, ids: np.ndarray) -> int:
    """One number for some tokens in an epoch, the same whenever it is asked for."""
    digest = hashlib.blake2b(np.asarray(ids, np.int64).tobytes(), digest_size=8, salt=b"%d" % (epoch or 0))
    return int.from_bytes(digest.digest(), "little") >> 1


def packed(pieces: Sequence[Piece], context: int) -> TextBatch:
    """Pieces side by side in as few rows of at most ``context`` tokens as first-fit finds, the longest first."""
    if not pieces:
        pieces = [Piece(np.zeros(1, np.int64), np.full(1, IGNORED))]
    order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids))
    rows: list[list[Piece]] = []
    room: list[int] = []
    for i in order:
        size = len(pieces[i].ids)
        place = next((r for r, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append([])
            room.append(max(context, size))
            place = len(rows) - 1
        rows[place].append(pieces[i])
        room[place] -= size
    return _batch(rows)


def padded(pieces: Sequence[Piece]) -> TextBatch:
    """A row a piece."""
    return _batch([[piece] for piece in pieces])


def _batch(rows: Sequence[Sequence[Piece]]) -> TextBatch:
    width = max(1, *(sum(len(p.ids) for p in row) for row in rows))
    shape = (len(rows), width)
    ids, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    segments, prefix = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for r, row in enumerate(rows):
        start = 0
        for number, piece in enumerate(row, start=1):
            stop = start + len(piece.ids)
            ids[r, start:stop], targets[r, start:stop], segments[r, start:stop] = piece.ids, piece.targets, number
            prefix[r, start : start + piece.prefix] = True
            start = stop
    return TextBatch(
        torch.from_numpy(ids), torch.from_numpy(targets),
        None if (segments == 1).all() else torch.from_numpy(segments),
        torch.from_numpy(prefix) if prefix.any() else None,
    )  # fmt: skip
