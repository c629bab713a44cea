"""Codecs learnt from the training rows, then every row encoded once into a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft import engine
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import TRAIN
from weft.data_settings import FeatureSettings
from weft.errors import DataError, SettingsError
from weft.features.codecs import CODECS, Codec, TextCodec
from weft.features.columns import Columns
from weft.features.store import RowCodes, Store, StoreWriter
from weft.features.targets import Target, new_target
from weft.features.tokenizer import texts_of, tokenizer_of_words, train_tokenizer, words_of
from weft.preprocess.clean import CleanBatch, Cleaner
from weft.preprocess.ingest import UNLABELLED, CleanRows
from weft.progress import Silent

Batches = Callable[[Sequence[str]], Iterable[CleanBatch]]
"""The rows to learn from, by the names of the columns."""
LETTERS = 20_000_000
"""Of the training texts for a tokenizer of 8,192 tokens: some 2,400 for each."""


def fit_columns(
    settings: Settings, plan: Plan, clean: CleanRows, cleaner: Cleaner, tokenizer: Tokenizer | None = None,
    longest: int | None = None, owners: np.ndarray | None = None,
) -> Columns:  # fmt: skip
    """Codecs that have seen the rows that are learnt from, labelled or not, and no other; the tokenizer learns from a
    part of long tables.

    ``tokenizer`` is that of a checkpoint, whose rows may have ``longest`` tokens in all; default: one is trained.
    ``owners``: whose each of the cleaned rows is, where they learn apart and what they learnt is put together.
    """
    codecs = new_codecs(plan.types, settings.features)
    target = new_target(plan.target_type, settings.target)
    learnt = [] if owners is None else np.unique(owners[clean.parts == TRAIN]).tolist()
    if owners is None or len(learnt) == 1:
        tokenizer = fit_codecs(codecs, lambda names: clean.batches((TRAIN, UNLABELLED), names), tokenizer, target)
    else:
        each = [partial(clean.batches, TRAIN, only=owners == owner) for owner in learnt]
        tokenizer = fit_apart(codecs, target, each, tokenizer)
    columns = Columns(cleaner, codecs, target, tokenizer)
    if longest is not None:
        _share([codec for codec in codecs if isinstance(codec, TextCodec)], longest, settings)
    return columns


def fit_codecs(
    codecs: Sequence[Codec], batches: Batches, tokenizer: Tokenizer | None = None, target: Target | None = None
) -> Tokenizer | None:
    """Let codecs see the columns of ``batches`` go by, texts three times; the tokenizer that their texts share."""
    names, letters = [*(codec.name for codec in codecs), *([target.name] if target else [])], 0
    if engine.spread():
        for some, answers, more in engine.over(partial(_observed, codecs, target), batches(names)):
            letters += more
            for codec, other in zip(codecs, some, strict=True):
                codec.join(other)
            if target is not None:
                target.merge(answers)
    else:
        letters = sum(_observe(codecs, target, batch) for batch in batches(names))
    if target is not None:
        target.finish()
    texts = [codec for codec in codecs if isinstance(codec, TextCodec)]
    names = [codec.name for codec in texts]
    if texts and tokenizer is None:
        tokenizer = train_tokenizer(texts_of(batches(names), names, LETTERS / max(letters, 1), LETTERS), lowercase=True)
    for codec in texts:
        codec.tokenizer = tokenizer
    for batch in batches(names) if texts else ():
        for codec in texts:
            codec.count(batch.columns[codec.name])
        if all(codec.counted for codec in texts):
            break
    for codec in codecs:
        codec.finish()
    return tokenizer


def _observed(
    codecs: Sequence[Codec], target: Target | None, batch: CleanBatch
) -> tuple[Sequence[Codec], Target | None, int]:
    """Copies of codecs and target that have seen a batch; the letters of its texts."""
    codecs, target = deepcopy((codecs, target))
    return codecs, target, _observe(codecs, target, batch)


def _observe(codecs: Sequence[Codec], target: Target | None, batch: CleanBatch) -> int:
    """Let codecs and target see a batch; the letters of its texts."""
    letters = 0
    for codec in codecs:
        values = batch.columns[codec.name]
        codec.observe(batch.rows, values)
        letters += (pc.sum(pc.binary_length(values)).as_py() or 0) if codec.type == "text" else 0
    if target is not None:
        target.observe(batch.columns[target.name])
    return letters


def fit_apart(
    codecs: Sequence[Codec], target: Target, each: Sequence[Batches], tokenizer: Tokenizer | None = None
) -> Tokenizer | None:
    """As :func:`fit_codecs`, where ``each`` owner lets its own codecs see its own rows: what these have finished with
    is put together, and of texts how often words came that two of an owner's texts hold."""
    texts = [codec.name for codec in codecs if isinstance(codec, TextCodec)]
    if texts and tokenizer is None:
        words: Counter[str] = Counter()
        for batches in each:
            letters = sum(pc.sum(pc.binary_length(b.columns[n])).as_py() or 0 for b in batches(texts) for n in texts)
            most = LETTERS // len(each)
            words.update(words_of(texts_of(batches(texts), texts, most / max(letters, 1), most), lowercase=True))
        tokenizer = tokenizer_of_words(words, lowercase=True)
    blank = deepcopy((codecs, target))
    for number, batches in enumerate(each):
        own, answers = deepcopy(blank) if number else (codecs, target)
        for batch in batches([target.name]):
            answers.observe(batch.columns[target.name])
        fit_codecs(own, batches, tokenizer)
        if number:
            target.merge(answers)
            for codec, other in zip(codecs, own, strict=True):
                codec.merge(other)
    target.finish()
    return tokenizer


def new_codecs(types: Mapping[str, str], features: Mapping[str, FeatureSettings]) -> list[Codec]:
    """A codec a column, in the order of their names."""
    return [CODECS[kind](name, features.get(name)) for name, kind in sorted(types.items())]


def _share(codecs: list[TextCodec], longest: int, settings: Settings) -> None:
    """Let each text column have its share of the ``longest`` tokens that a checkpoint reads of a row."""
    places = (longest - 1) // len(codecs) - 1  # one for the reading token, one after each text
    if places < 4:
        raise DataError(
            f"model.from: the checkpoint reads {longest} tokens a row, which must hold {len(codecs)} text "
            f"columns. Set some of them off, or take a checkpoint with more positions."
        )
    for codec in codecs:
        given = settings.features.get(codec.name)
        if given is not None and given.max_tokens is not None and given.max_tokens > places:
            raise SettingsError(
                [f"features.{codec.name}.max_tokens: the checkpoint reads at most {places:,} tokens of each text "
                 f"column. Got {given.max_tokens:,}. Lower it, or leave it out."]
            )  # fmt: skip
        codec.max_tokens = min(codec.max_tokens, places)


def encode_rows(columns: Columns, clean: CleanRows, folder: Path, say: Silent) -> Store:
    """Encode every cleaned row, in order."""
    writer = StoreWriter(folder)
    with say.bar("encoding", len(clean)) as bar:
        for codes, rows in engine.over(partial(_encoded, columns), clean.batches()):
            writer.append(codes, rows)
            bar.advance(rows)
    return writer.close()


def _encoded(columns: Columns, batch: CleanBatch) -> tuple[RowCodes, int]:
    return columns.encode(batch, with_target=True), len(batch.rows)
