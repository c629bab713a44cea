"""A text written from others: the source's tokens, a separator, the target's, an end (Liu 2018; Dong 2019).

Several source columns stand one after the other, each followed by a separator. The longest source and the longest
target are settled once, from the training rows; what is longer loses its end, in training as at prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft import engine
from weft.data.split import TRAIN
from weft.errors import SettingsError
from weft.features.documents import Marks, encode_texts
from weft.features.examples import Example, joined
from weft.features.tokenizer import SEPARATOR
from weft.preprocess.clean import CleanBatch
from weft.preprocess.ingest import CleanRows

LEAST_CONTEXT, CONTEXT = 64, 512
"""Tokens of a source and its target together, by default: at least, at most."""


@dataclass(frozen=True)
class Pairing:
    """How rows become sources, and where their targets begin and end."""

    sources: tuple[str, ...]
    target: str
    begin: int | None
    separator: tuple[int, ...]
    end: int
    source_room: int
    """Tokens of a source at most, with what begins it and its separators."""
    target_room: int
    """Tokens of a target at most, with its end."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "separator", tuple(self.separator))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def source(self, columns: Sequence[Sequence[int]]) -> tuple[list[int], int]:
        """The tokens that are read before a target is written, and how many were cut from the ends of the columns."""
        first = [] if self.begin is None else [self.begin]
        room = self.source_room - len(first) - len(columns) * len(self.separator)
        keep = _shares([len(c) for c in columns], room)
        ids = first + [i for c, k in zip(columns, keep, strict=True) for i in [*c[:k], *self.separator]]
        return ids, sum(map(len, columns)) - sum(keep)

    def encode(self, columns: dict[str, pa.Array], tokenizer: Tokenizer) -> list[tuple[list[int], int]]:
        """The source of each row, and how many of its tokens were cut; a missing text is an empty one."""
        found = [encode_texts([t or "" for t in columns[name].to_pylist()], tokenizer) for name in self.sources]
        return [self.source([ids.tolist() for ids in row]) for row in zip(*found, strict=True)]


def separator_of(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token made for it, or a line end in a tokenizer that has none."""
    own = tokenizer.token_to_id(SEPARATOR)
    return (own,) if own is not None else tuple(tokenizer.encode("\n", add_special_tokens=False).ids)


def fit_pairing(
    clean: CleanRows, sources: Sequence[str], target: str, tokenizer: Tokenizer, marks: Marks, end: int,
    context: int | None, longest: int | None, target_room: int | None,
) -> tuple[Pairing, int]:  # fmt: skip
    """The pairing for some cleaned rows, and the context: tokens of a source and its target at most.

    Args:
        end: the token that ends a target.
        context: as it is set; None: by the training rows, at most ``CONTEXT``.
        longest: what the model can read, if it has a limit.
        target_room: as it is set; None: by the training rows.

    Raises:
        SettingsError: the target leaves no room for a source.
    """
    separator = separator_of(tokenizer)
    fixed = (marks.begin is not None) + len(sources) * len(separator)
    read, written = _training_lengths(clean, sources, target, tokenizer)
    read, written = read + fixed, written + 1
    if context is None:
        usual = int(np.quantile(read + written, 0.999, method="higher"))
        context = int(np.clip(-(-usual // 8) * 8, LEAST_CONTEXT, CONTEXT))
    context = min(context, longest) if longest else context
    if target_room is None:
        most, free = int(written.max()), context - int(read.max())
        target_room = most + (free - most) // 2 if most <= free else min(most, max(free, context // 2))
    if context - target_room < fixed + len(sources):
        raise SettingsError(
            [f"target.max_tokens: must leave room for a source in a context of {context:,}. Got {target_room:,}. "
             f"Lower it, or raise features.{sources[0]}.max_tokens."]
        )  # fmt: skip
    return Pairing(tuple(sources), target, marks.begin, separator, end, context - target_room, target_room), context


@dataclass
class PairCounts:
    """Rows whose source or target lost its end."""

    sources: int = 0
    targets: int = 0

    def in_words(self) -> list[str]:
        found = ((self.sources, "sources"), (self.targets, "texts to write"))
        return [f"cut: {count:,} {what} were too long and lost their end" for count, what in found if count]


def pair_examples(clean: CleanRows, pairing: Pairing, tokenizer: Tokenizer, counts: PairCounts) -> Iterator[Example]:
    """An example a row, in order; ``counts`` grows with what was cut."""
    step, names = partial(_examples, pairing, tokenizer), [*pairing.sources, pairing.target]
    yield from joined(engine.over(step, clean.batches(names=names)), counts)


def _examples(pairing: Pairing, tokenizer: Tokenizer, batch: CleanBatch) -> tuple[int, list[Example], PairCounts]:
    counts = PairCounts()
    return len(batch.rows), list(examples_of(batch.columns, pairing, tokenizer, counts)), counts


def examples_of(
    columns: dict[str, pa.Array], pairing: Pairing, tokenizer: Tokenizer, counts: PairCounts
) -> Iterator[Example]:
    """An example a row of some columns, counted from 0. A target that was cut is not asked to end."""
    texts = columns[pairing.target].to_pylist()
    targets = encode_texts(texts, tokenizer, pairing.end)
    for i, (source, cut) in enumerate(pairing.encode(columns, tokenizer)):
        target = targets[i].tolist()
        counts.sources += cut > 0
        counts.targets += len(target) > pairing.target_room
        target = target[: pairing.target_room]
        asked = [False] * len(source) + [True] * len(target)
        yield Example(i, source + target, asked, len(source), texts[i])


def _training_lengths(
    clean: CleanRows, sources: Sequence[str], target: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the sources and of the target of each training row."""
    names = [*sources, target]
    found = list(engine.over(partial(_lengths, names, tokenizer), clean.batches(TRAIN, names)))
    return np.concatenate([read for read, _ in found]), np.concatenate([written for _, written in found])


def _lengths(names: Sequence[str], tokenizer: Tokenizer, batch: CleanBatch) -> tuple[np.ndarray, np.ndarray]:
    texts = ([text or "" for text in batch.columns[name].to_pylist()] for name in names)
    sizes = [encode_texts(some, tokenizer).lengths() for some in texts]
    return np.sum(sizes[:-1], axis=0), sizes[-1]


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """How much of each fits ``room`` together: the longest give up first."""
    keep, left = [0] * len(lengths), max(0, room)
    for place, i in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        keep[i] = min(lengths[i], left // (len(lengths) - place))
        left -= keep[i]
    return keep
