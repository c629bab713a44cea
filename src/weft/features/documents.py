"""Texts as token ids on disk: what a language model learns from, mapped into memory a piece at a time.

A document is the ids of a text and the one that ends it. What begins a text is put before every piece of a
document when it is read (``weft.features.pieces``), so it is not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft import engine
from weft.data.split import TRAIN
from weft.features.codecs import Codes, Ragged
from weft.features.store import Store, StoreWriter
from weft.features.tokenizer import (
    END,
    WRITING,
    begin_with,
    character_tokenizer,
    mask_token,
    slices,
    texts_of,
    train_tokenizer,
)
from weft.preprocess.ingest import CleanRows
from weft.progress import Silent

AT_ONCE = 1 << 21
"""Letters whose tokens are in memory at once as they come from the tokenizer."""
Said = Callable[[Iterator[str]], Iterator[str]]
TOKENS, LETTERS, BYTES = "tokens", "letters", "bytes"
LEARN_LETTERS = 200_000_000
"""Letters from which a tokenizer is learnt; of more, a sample of the documents."""


@dataclass
class Documents:
    """The token ids of some texts, and the size of each in letters and UTF-8 bytes [N]."""

    tokens: Ragged
    letters: np.ndarray
    bytes: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer, end: int | None) -> Documents:
        """The ids of each text, with ``end`` after them."""
        sizes = np.array([[len(t), len(t.encode("utf-8"))] for t in texts], np.int64).reshape(-1, 2)
        return cls(encode_texts(texts, tokenizer, end), sizes[:, 0], sizes[:, 1])

    @classmethod
    def stored(cls, store: Store, column: str) -> Documents:
        """Those of a column of a store, mapped and not read."""
        return cls(*(store.field(column, name) for name in (TOKENS, LETTERS, BYTES)))

    def lengths(self) -> np.ndarray:
        """Tokens of each."""
        return self.tokens.lengths()


@dataclass(frozen=True)
class Marks:
    """The ids that stand around a text, or None where a tokenizer has none."""

    begin: int | None
    end: int | None
    mask: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Marks:
        """As the tokenizer itself puts them around a text; a tokenizer of Weft's knows its names."""
        encoding = tokenizer.encode("a", add_special_tokens=True)
        plain = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        begin = encoding.ids[plain[0] - 1] if plain and plain[0] > 0 else None
        last = encoding.ids[plain[-1] + 1] if plain and plain[-1] + 1 < len(encoding.ids) else None
        end = tokenizer.token_to_id(END)
        return cls(begin, last if end is None else end, mask_token(tokenizer))


def learn_tokenizer(
    clean: CleanRows, names: Sequence[str], vocabulary: int | str | None, seed: int, said: Said = iter,
    scale: float = 1.0,
) -> Tokenizer:  # fmt: skip
    """A tokenizer for writing, from the training texts of some columns.

    Args:
        vocabulary: the most tokens, or "characters"; None: by the amount of text, 1,024 to 32,768.
        said: the texts of a column's cells, where they are not the texts themselves.
        scale: how many times as much text there is, where these are only its first rows.
    """
    letters = sum(len(text) for text in said(texts_of(clean.batches(TRAIN, names), names)))
    share = LEARN_LETTERS / max(1, letters)
    # by the seed's own draws the test rows are the lowest
    texts = said(texts_of(clean.batches(TRAIN, names), names, share, seed + 2))
    if vocabulary == "characters":
        tokenizer = character_tokenizer(texts)
    else:
        if vocabulary is None:  # each token should be seen often: some five hundred letters for each
            vocabulary = int(2 ** np.clip(np.round(np.log2(max(scale * letters, 1) / 500)), 10, 15))
        pieces = (piece for text in texts for piece in slices(text))
        tokenizer = train_tokenizer(pieces, int(vocabulary), special=WRITING)
    begin_with(tokenizer, END)
    return tokenizer


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, end: int | None = None) -> Ragged:
    """The ids of each text, with ``end`` after them."""
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    offsets = np.zeros(len(texts) + 1, np.int64)
    found: list[np.ndarray] = []
    pieces = [(number, piece) for number, text in enumerate(texts) for piece in slices(text)]
    for start, stop in _bounded(np.array([len(piece) for _, piece in pieces], np.int64)):
        group = pieces[start:stop]
        for (number, _), encoding in zip(
            group, tokenizer.encode_batch_fast([piece for _, piece in group], add_special_tokens=False), strict=True
        ):
            found.append(np.array(encoding.ids, dtype))
            offsets[number + 1] += len(encoding)
    values = np.concatenate(found) if found else np.zeros(0, dtype)
    if end is not None:
        values = np.insert(values, np.cumsum(offsets[1:]), end)
        offsets[1:] += 1
    return Ragged(values, np.cumsum(offsets))


def _bounded(letters: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of groups of texts that hold at most ``AT_ONCE`` letters, or one text."""
    start = 0
    while start < len(letters):
        stop = start + max(1, int(np.searchsorted(np.cumsum(letters[start:]), AT_ONCE, side="right")))
        yield start, stop
        start = stop


def encode_documents(
    clean: CleanRows, name: str, tokenizer: Tokenizer, end: int | None, folder: Path, say: Silent,
    more: Sequence[str] = (),
) -> Documents:  # fmt: skip
    """Every text once, in order, into ``folder``; then some ``more``."""
    writer = StoreWriter(folder)

    def pieces() -> Iterator[pa.Array]:
        for batch in clean.batches(names=[name]):
            texts = batch.columns[name]
            for start, stop in _bounded(pc.utf8_length(texts).to_numpy()):
                yield texts.slice(start, stop - start)
        if more:
            yield pa.array(more)

    with say.bar("encoding", len(clean) + len(more)) as bar:
        for codes, count in engine.over(partial(_codes, tokenizer, end), pieces()):
            writer.append({name: codes}, count)
            bar.advance(count)
    return Documents.stored(writer.close(), name)


def _codes(tokenizer: Tokenizer, end: int | None, texts: pa.Array) -> tuple[Codes, int]:
    found = Documents.of(texts.to_pylist(), tokenizer, end)
    return {TOKENS: found.tokens, LETTERS: found.letters, BYTES: found.bytes}, len(texts)
