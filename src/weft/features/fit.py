"""Codecs learnt from the training rows, then every row encoded once into a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft.config import FeatureSettings, Settings
from weft.data.plan import Plan
from weft.data.split import TRAIN, uniform
from weft.errors import DataError, SettingsError
from weft.features.codecs import CODECS, Codec, TextCodec
from weft.features.columns import Columns
from weft.features.store import Store, StoreWriter
from weft.features.targets import new_target
from weft.features.tokenizer import train_tokenizer
from weft.preprocess.clean import Cleaner
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
    start = letters = 0
    for batch in clean.batches():
        mine = clean.parts[start : start + len(batch.rows)] == TRAIN
        start += len(batch.rows)
        for codec in codecs:
            values = batch.columns[codec.name].filter(pa.array(mine))
            codec.observe(batch.rows[mine], values)
            letters += (pc.sum(pc.binary_length(values)).as_py() or 0) if codec.type == "text" else 0
        target.observe(batch.columns[plan.target].filter(pa.array(mine)))
    target.finish()
    texts = [codec.name for codec in codecs if codec.type == "text"]
    if texts and tokenizer is None:
        tokenizer = train_tokenizer(_texts(clean, texts, letters), lowercase=True)
    columns = Columns(cleaner, codecs, target, tokenizer)
    start = 0
    for batch in clean.batches() if texts else ():
        mine = clean.parts[start : start + len(batch.rows)] == TRAIN
        start += len(batch.rows)
        for codec in codecs:
            if isinstance(codec, TextCodec):
                codec.count(batch.columns[codec.name].filter(pa.array(mine)))
        if all(codec.counted for codec in codecs if isinstance(codec, TextCodec)):
            break
    for codec in codecs:
        codec.finish()
    if longest is not None:
        _share([codec for codec in codecs if isinstance(codec, TextCodec)], longest, settings)
    return columns


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


def _texts(clean: CleanRows, names: list[str], letters: int) -> Iterator[str]:
    """Training texts: all, or of more than ``LETTERS`` letters so many as are drawn."""
    start, share = 0, LETTERS / max(letters, 1)
    for batch in clean.batches():
        mine = clean.parts[start : start + len(batch.rows)] == TRAIN
        start += len(batch.rows)
        if share < 1:
            mine &= uniform(LETTERS, batch.rows) < share
        for name in names:
            yield from batch.columns[name].filter(pa.array(mine)).drop_null().to_pylist()
