"""Pairs of texts that belong together, as token ids: what a model of vectors learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from weft.features.codecs import Codes, Ragged
from weft.features.store import Store, StoreWriter
from weft.preprocess.ingest import CleanRows
from weft.progress import Silent

QUERY, DOCUMENT = "query", "document"
ROWS_AT_ONCE = 4_096


def whole_texts(texts: Sequence[str], tokenizer: Tokenizer, longest: int) -> tuple[list[list[int]], int]:
    """The ids of each text with the tokenizer's own around it, and how many were cut to ``longest``.

    The closing token of a text that is cut stays at its end.
    """
    ids = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=True)]
    cut = sum(len(i) > longest for i in ids)
    return [i if len(i) <= longest else [*i[: longest - 1], i[-1]] for i in ids], cut


def encode_pairs(
    clean: CleanRows, query: str, document: str, tokenizer: Tokenizer, longest: int, folder: Path, say: Silent
) -> tuple[Store, int]:
    """Every pair once, in order, into ``folder``; and how many texts were cut.

    Beside its ``tokens`` each text has a number that is the ``same`` for the same text.
    """
    writer, cut = StoreWriter(folder), 0
    with say.bar("encoding", len(clean)) as bar:
        for batch in clean.batches():
            for start in range(0, len(batch.rows), ROWS_AT_ONCE):
                fields: dict[str, Codes] = {}
                for name, column in ((QUERY, query), (DOCUMENT, document)):
                    texts = batch.columns[column].slice(start, ROWS_AT_ONCE).to_pylist()
                    ids, longer = whole_texts(texts, tokenizer, longest)
                    cut += longer
                    fields[name] = {"tokens": Ragged.of(ids), "same": np.array([_name(t) for t in texts], np.int64)}
                writer.append(fields, len(texts))
                bar.advance(len(texts))
    return writer.close(), cut


def _name(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") >> 1
