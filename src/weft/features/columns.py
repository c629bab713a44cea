"""Columns: all that turns raw rows into codes, saved as ``columns.json`` and ``tokenizer.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.table import RawBatch
from weft.data_settings import FeatureSettings
from weft.errors import CheckpointError
from weft.features.codecs import CODECS, Codec, TextCodec
from weft.features.store import TARGET, RowCodes
from weft.features.targets import Target, target_from
from weft.files import write_whole
from weft.preprocess.clean import CleanBatch, Cleaner

COLUMNS_FILE, TOKENIZER_FILE = "columns.json", "tokenizer.json"


class Columns:
    """The cleaner, a codec a column, the target's codec, and the tokenizer that text columns share."""

    def __init__(self, cleaner: Cleaner, codecs: Sequence[Codec], target: Target, tokenizer: Tokenizer | None):
        self.cleaner, self.codecs, self.target, self.tokenizer = cleaner, list(codecs), target, tokenizer
        for codec in self.codecs:
            if isinstance(codec, TextCodec):
                codec.tokenizer = tokenizer

    @property
    def types(self) -> dict[str, str]:
        return {codec.name: codec.type for codec in self.codecs}

    def encode(self, clean: CleanBatch, with_target: bool = False) -> RowCodes:
        """Codes of clean rows."""
        codes: RowCodes = {codec.name: codec.encode(clean.columns[codec.name]) for codec in self.codecs}
        if with_target:
            codes[TARGET] = {"value": self.target.encode(clean.columns[self.target.name])}
        return codes

    def nothing(self) -> RowCodes:
        """Codes of one row in which every column is missing."""
        names = [codec.name for codec in self.codecs]
        blank = RawBatch(np.zeros(1, np.int64), pa.record_batch([pa.nulls(1)] * len(names), names), [])
        cleaner = Cleaner({name: self.cleaner.plans[name] for name in names})
        return self.encode(cleaner(blank))

    def dumps(self) -> str:
        stored = {
            "format": 1,
            "cleaner": self.cleaner.to_dict(),
            "codecs": codecs_state(self.codecs),
            "target": self.target.state(),
        }
        return json.dumps(stored, ensure_ascii=False, indent=1) + "\n"

    def save(self, folder: Path) -> None:
        write_whole(folder / COLUMNS_FILE, self.dumps())
        if self.tokenizer is not None:
            write_whole(folder / TOKENIZER_FILE, self.tokenizer.to_str())

    @classmethod
    def load(cls, folder: Path) -> Columns:
        try:
            stored = json.loads((folder / COLUMNS_FILE).read_text(encoding="utf-8"))
            if stored["format"] != 1:
                raise CheckpointError(
                    f"{folder / COLUMNS_FILE}: must be of format 1. Got {stored['format']}. Use a newer Weft."
                )
            if "cleaner" not in stored:
                raise CheckpointError(f"{folder}: must be a run that reads rows of a table. Got one that recommends.")
            codecs = codecs_from(stored["codecs"])
            tokenizer = None
            if any(c.type == "text" for c in codecs):
                tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
                tokenizer.encode_special_tokens = True
            return cls(Cleaner.from_dict(stored["cleaner"]), codecs, target_from(stored["target"]), tokenizer)
        except (OSError, KeyError, TypeError, UnicodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{folder / COLUMNS_FILE}: must be what Weft wrote. Got: {error!r}.") from None


def codecs_state(codecs: Sequence[Codec]) -> list[dict[str, Any]]:
    """What codecs learnt, as JSON."""
    return [
        {
            "name": c.name,
            "type": c.type,
            "settings": c.settings.model_dump(exclude_none=True) if c.settings else None,
            "state": c.state(),
        }
        for c in codecs
    ]


def codecs_from(stored: Sequence[dict[str, Any]]) -> list[Codec]:
    """The codecs again."""
    codecs = []
    for entry in stored:
        settings = FeatureSettings(**entry["settings"]) if entry["settings"] else None
        codec = CODECS[entry["type"]](entry["name"], settings)
        codec.restore(entry["state"])
        codecs.append(codec)
    return codecs
