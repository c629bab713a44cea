"""Vectors of texts.

A vector is the mean of the states of all tokens of a text (a reader's; Reimers & Gurevych 2019) or the state of
its last token (a writer's, which alone has seen the whole), scaled to length one, so that the product of two
vectors is their cosine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from weft.data.columns import SAMPLE_ROWS, guess
from weft.data.table import RawBatch, Rejected, Table
from weft.errors import UsageError, listing
from weft.features.batching import in_turn, padded_ids, tokens_to_read
from weft.features.ragged import Ragged
from weft.features.twins import whole_texts
from weft.inference.output import kept
from weft.inference.predict import Reader
from weft.models.backbone import best_device
from weft.models.pretrained import TextModel
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.letters import Redactor

ROWS_AT_ONCE = 1_024


@dataclass
class TextRows:
    """Some rows of a column of texts, None where one is missing; the kept columns; the rows set aside; the number
    after the last of them."""

    rows: np.ndarray
    texts: list[str | None]
    kept: dict[str, pa.Array]
    rejected: list[Rejected]
    end: int


@dataclass
class Embedded(TextRows):
    """... with their vectors [N, D], and how many of the texts were longer than the model reads."""

    vectors: np.ndarray
    cut: int


class Embedder:
    """Turns texts into vectors with the text model of a checkpoint, their personal data replaced where it learnt so."""

    def __init__(self, source: TextModel, redact: Redactor | None = None):
        self.source, self.redact = source, redact
        self.device = best_device()
        self.model = source.model.to(self.device).eval()
        self.width = source.backbone.width
        self.how = "mean" if source.backbone.attention == "reading" else "last"

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[np.ndarray, int]:
        """Vectors [N, D] of length one, in the texts' order, and how many texts were cut.

        An empty text has the vector of the model's own tokens around nothing, or zeros where there are none.
        """
        if self.redact is not None:
            texts = [self.redact.text(text) for text in texts]
        ids, cut = whole_texts(texts, self.source.tokenizer, self.source.longest or 8_192)
        tokens, vectors = Ragged.of(ids), np.zeros((len(texts), self.width), np.float32)
        lengths = tokens.lengths()
        for rows in in_turn(np.flatnonzero(lengths), lengths, tokens_to_read(self.width, self.device)):
            batch, mask = padded_ids(tokens, rows)
            found = self.model.pooled(batch.to(self.device), mask.to(self.device), how=self.how)  # type: ignore[arg-type]
            vectors[rows] = F.normalize(found.float(), dim=1).cpu().numpy()
        return vectors, cut

    def table(self, table: Table, column: str) -> Iterator[Embedded]:
        """Vectors of a column, batch by batch; a missing text has that of an empty one."""
        for _, some in text_reader(table, column).over(table):
            yield self.rows(some)

    def rows(self, some: TextRows) -> Embedded:
        """Vectors of some rows."""
        vectors, cut = self([t or "" for t in some.texts])
        return Embedded(some.rows, some.texts, some.kept, some.rejected, some.end, vectors, cut)


def text_reader(table: Table, column: str, keep: tuple[str, ...] = ()) -> Reader[TextRows]:
    """How the texts of a column are read; rows whose cell is not readable text are set aside."""
    table.require((column, *keep))
    cleaner, kinds = Cleaner({column: ColumnPlan("text")}), table.columns

    def read(raw: RawBatch) -> TextRows:
        clean = cleaner(raw)
        texts, cells = clean.columns[column].to_pylist(), kept(kinds, keep, raw, clean.rows)
        return TextRows(clean.rows, texts, cells, clean.rejected, raw.end(0))

    return Reader(list(dict.fromkeys([column, *keep])), ROWS_AT_ONCE, read)


def text_column(table: Table) -> str:
    """The only column that holds texts. Raises UsageError where there are none or several."""
    head = table.sample(SAMPLE_ROWS)
    texts = [name for name in table.columns if guess(name, head.column(name)).type == "text"]
    if len(texts) != 1:
        raise UsageError(
            f"{table.name}: say which column to read with --column. Of {listing(table.columns)}, "
            f"{listing(texts)} hold texts."
        )
    return texts[0]
