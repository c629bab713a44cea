"""Codecs learnt from the training rows, then every row encoded once into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft.config import FeatureSettings, Settings
from weft.data.plan import Plan
from weft.data.split import TRAIN
from weft.errors import DataError, SettingsError
from weft.features.codecs import CODECS, Codec, TextCodec
from weft.features.columns import Columns
from weft.features.store import Store, StoreWriter
from weft.features.targets import Target, new_target
from weft.features.tokenizer import texts_of, train_tokenizer
from weft.preprocess.clean import CleanBatch, Cleaner
from weft.preprocess.ingest import CleanRows
from weft.progress import Silent

LETTERS = 20_000_000
"""Of the training texts for a tokenizer of 8,192 tokens: some 2,400 for each."""


def fit_columns(
    settings: Settings, plan: Plan, clean: CleanRows, cleaner: Cleaner, tokenizer: Tokenizer | None = None,
    longest: int | None = None,
) -> Columns:  # fmt: skip
    """Codecs that have seen the training rows and no other; the tokenizer learns from a part of long tables.

    ``tokenizer`` is that of a checkpoint, whose rows may have ``longest`` tokens in all; default: one is trained.
    """
    codecs = new_codecs(plan.types, settings.features)
    target = new_target(plan.target_type, settings.target)
    tokenizer = fit_codecs(codecs, lambda names: clean.batches(TRAIN, names), tokenizer, target)
    columns = Columns(cleaner, codecs, target, tokenizer)
    if longest is not None:
        _share([codec for codec in codecs if isinstance(codec, TextCodec)], longest, settings)
    return columns


def fit_codecs(
    codecs: Sequence[Codec], batches: Callable[[Sequence[str]], Iterable[CleanBatch]],
    tokenizer: Tokenizer | None = None, target: Target | None = None,
) -> Tokenizer | None:  # fmt: skip
    """Let codecs see the columns of ``batches`` go by, texts three times; the tokenizer that their texts share."""
    names, letters = [*(codec.name for codec in codecs), *([target.name] if target else [])], 0
    for batch in batches(names):
        for codec in codecs:
            values = batch.columns[codec.name]
            codec.observe(batch.rows, values)
            letters += (pc.sum(pc.binary_length(values)).as_py() or 0) if codec.type == "text" else 0
        if target is not None:
            target.observe(batch.columns[target.name])
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
        for batch in clean.batches():
            writer.append(columns.encode(batch, with_target=True), len(batch.rows))
            bar.advance(len(batch.rows))
    return writer.close()
