"""Texts of which a part is asked for: what is written from a source, or the answers of a dialogue.

An example holds all its tokens, what begins it and what ends it included, and says of each whether it must be said.
It is one piece: what is too long was cut before (``weft.features.pairs``, ``weft.features.dialogues``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft.features.codecs import Codes, Ragged
from weft.features.documents import BYTES, LETTERS, TOKENS, Documents, Marks
from weft.features.pieces import IGNORED, Corpus, Cuts, Piece
from weft.features.store import Store, StoreWriter

ASKED, PREFIX, ROW = "asked", "prefix", "row"
COLUMN = "example"
AT_ONCE = 4_096


@dataclass
class Example:
    """One text. ``row``: the cleaned row it is of; ``prefix``: how many of its first tokens are a source."""

    row: int
    ids: list[int]
    asked: list[bool]
    prefix: int
    said: str
    """The text that is asked for."""


@dataclass
class Examples(Documents):
    """Examples on disk: ``tokens`` of each, ``letters`` and ``bytes`` of what is asked [N]."""

    asked: Ragged
    prefix: np.ndarray
    row: np.ndarray

    @classmethod
    def mapped(cls, store: Store) -> Examples:
        """Those of a store, mapped and not read."""
        return cls(*(store.field(COLUMN, name) for name in (TOKENS, LETTERS, BYTES, ASKED, PREFIX, ROW)))

    @classmethod
    def held(cls, examples: Iterable[Example]) -> Examples:
        """Examples in memory."""
        chosen = list(examples)
        return cls(
            Ragged.of([e.ids for e in chosen], np.uint32), np.array([len(e.said) for e in chosen], np.int64),
            np.array([len(e.said.encode("utf-8")) for e in chosen], np.int64),
            Ragged.of([e.asked for e in chosen], np.uint8), np.array([e.prefix for e in chosen], np.int32),
            np.array([e.row for e in chosen], np.int64),
        )  # fmt: skip

    def lengths(self) -> np.ndarray:
        """Tokens of each that are read: all but the last."""
        return np.maximum(0, np.diff(self.tokens.offsets) - 1)

    def answers(self) -> int:
        """Tokens that are asked for, in all examples."""
        return int(self.asked.values.sum())


class ExampleCorpus(Corpus):
    """Examples, a batch at a time. ``prefixed``: every token of a text may read all of its source."""

    documents: Examples

    def __init__(self, examples: Examples, marks: Marks, context: int, seed: int, prefixed: bool, pack: bool):
        super().__init__(examples, marks, context, seed, pack=pack)
        self.prefixed = prefixed

    def owners(self, cuts: Cuts) -> np.ndarray:
        return self.documents.row[cuts.document]

    def _piece(self, document: int, start: int, stop: int, epoch: int | None) -> Piece:
        ids, asked = self.documents.tokens[document].astype(np.int64), self.documents.asked[document] > 0
        prefix = int(self.documents.prefix[document]) if self.prefixed else 0
        return Piece(ids[:-1], np.where(asked[1:], ids[1:], IGNORED), prefix)


def joined(found: Iterable[tuple[int, list[Example], Any]], counts: Any) -> Iterator[Example]:
    """The examples of batches of so many rows, in order; what was counted of each is added to ``counts``."""
    first = 0
    for rows, examples, own in found:
        for example in examples:
            example.row += first
            yield example
        first += rows
        for name, value in vars(own).items():
            before = getattr(counts, name)
            setattr(counts, name, before + value if isinstance(value, int) else before or value)


def write_examples(examples: Iterable[Example], folder: Path) -> Examples:
    """Put examples into ``folder``, a few thousand in memory at once."""
    writer = StoreWriter(folder)
    waiting: list[Example] = []

    def write() -> None:
        found = Examples.held(waiting)
        fields: Codes = {TOKENS: found.tokens, ASKED: found.asked, LETTERS: found.letters, BYTES: found.bytes,
                         PREFIX: found.prefix, ROW: found.row}  # fmt: skip
        writer.append({COLUMN: fields}, len(waiting))
        waiting.clear()

    for example in examples:
        waiting.append(example)
        if len(waiting) == AT_ONCE:
            write()
    write()
    return Examples.mapped(writer.close())
