"""What a language model must beat: n-grams over the same tokens of the same texts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from weft.features.pieces import Corpus, Cuts
from weft.results.beside import Judged
from weft.results.language import Surprise, estimates
from weft.results.ngrams import NGram

MOST_TOKENS = 2_000_000
"""Learnt from at most; a table of n-grams grows with them."""
FEW_KINDS = 1_024
"""Kinds of token below which they are letters, and longer n-grams pay."""


def ngram_models(
    corpus: Corpus, train: np.ndarray, cuts: Cuts, numbers: np.ndarray, vocabulary: int, seed: int
) -> list[dict[str, Any]]:
    """Single tokens and n-grams learnt from the documents ``train``, asked for the pieces ``numbers`` of ``cuts``."""
    best = 7 if vocabulary < FEW_KINDS else 5
    found = []
    total = int(corpus.documents.lengths()[train].sum())
    note = f"learnt from {MOST_TOKENS:,} of {total:,} tokens" if total > MOST_TOKENS else ""
    for order, title in ((1, "Single tokens"), (best, f"{best}-grams (Kneser-Ney)")):
        started = time.monotonic()
        model = NGram(vocabulary, order, MOST_TOKENS).fit(_documents(corpus, train, total > MOST_TOKENS, seed))
        seconds = time.monotonic() - started
        lost = _asked(model, corpus, cuts, numbers)
        estimated = estimates(lost, masked=False)
        found.append(Judged(f"ngram{order}", title, estimated, note=note, seconds=seconds).to_dict())
    return found


def _documents(corpus: Corpus, train: np.ndarray, drawn: bool, seed: int) -> Iterator[np.ndarray]:
    tokens, begin = corpus.documents.tokens, corpus.marks.begin
    order = np.random.default_rng(seed).permutation(train) if drawn else train
    for document in order:
        ids = np.asarray(tokens.values[tokens.offsets[document] : tokens.offsets[document + 1]]).astype(np.int64)
        yield ids if begin is None else np.concatenate([[begin], ids])


def _asked(model: NGram, corpus: Corpus, cuts: Cuts, numbers: np.ndarray) -> Surprise:
    """The same tokens that the language model is asked for, each after the tokens of its document before it."""
    tokens, begin = corpus.documents.tokens, corpus.marks.begin
    nats, asked = np.zeros(len(numbers)), np.zeros(len(numbers), np.int64)
    starts, stops = cuts.spans(numbers)
    for place, (document, start, stop) in enumerate(zip(cuts.document[numbers], starts, stops, strict=True)):
        first, before = tokens.offsets[document], max(0, start - model.order)
        ids = np.asarray(tokens.values[first + before : first + stop]).astype(np.int64)
        if before == 0 and begin is not None:
            ids = np.concatenate([[begin], ids])
        count = stop - start - (start == 0 and begin is None)
        if count > 0:
            nats[place] = -model.log_probabilities(ids)[-count:].sum()
            asked[place] = count
    return Surprise.of(corpus, cuts, numbers, nats, asked)
