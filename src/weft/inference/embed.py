"""Vectors of texts, and the nearest of them to a query.

A vector is the mean of the states of all tokens of a text (a reader's; Reimers & Gurevych 2019) or the state of
its last token (a writer's, which alone has seen the whole), scaled to length one, so that the product of two
vectors is their cosine. Search is exact: every vector of the index is compared, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

from weft.data.table import Table, shown
from weft.errors import DataError, UsageError, did_you_mean, listing
from weft.features.batching import in_turn
from weft.models.pretrained import TextModel
from weft.preprocess.clean import Cleaner, ColumnPlan

TOKEN_BUDGET = 8_192
VECTOR = "vector"


@dataclass
class Embedded:
    """Vectors [N, D] of some rows, and how many of their texts were longer than the model reads."""

    rows: np.ndarray
    vectors: np.ndarray
    kept: pa.RecordBatch
    cut: int


class Embedder:
    """Turns texts into vectors with the text model of a checkpoint."""

    def __init__(self, source: TextModel):
        self.source = source
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = source.model.to(self.device).eval()
        self.width = source.backbone.width
        self.how = "mean" if source.backbone.attention == "reading" else "last"

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[np.ndarray, int]:
        """Vectors [N, D] of length one, in the texts' order, and how many texts were cut.

        An empty text has the vector of the model's own tokens around nothing, or zeros where there are none.
        """
        encodings = self.source.tokenizer.encode_batch(texts, add_special_tokens=True)
        longest = self.source.longest or 8_192
        ids = [e.ids for e in encodings]
        cut = sum(len(i) > longest for i in ids)
        # the closing token of a text that is cut stays at its end
        ids = [i if len(i) <= longest else [*i[: longest - 1], i[-1]] for i in ids]
        vectors = np.zeros((len(texts), self.width), np.float32)
        lengths = np.array([len(i) for i in ids], np.int64)
        for rows in in_turn(np.flatnonzero(lengths), lengths, TOKEN_BUDGET):
            most = int(lengths[rows].max())
            batch = torch.zeros(len(rows), most, dtype=torch.int64)
            for place, row in enumerate(rows):
                batch[place, : lengths[row]] = torch.tensor(ids[row])
            mask = torch.arange(most) < torch.from_numpy(lengths[rows])[:, None]
            found = self.model.pooled(batch.to(self.device), mask.to(self.device), how=self.how)  # type: ignore[arg-type]
            vectors[rows] = F.normalize(found.float(), dim=1).cpu().numpy()
        return vectors, cut

    def table(self, table: Table, column: str, keep: tuple[str, ...] = ()) -> Iterator[Embedded]:
        """Vectors of a column, batch by batch; rows whose cell is not readable text are left out."""
        cleaner = Cleaner({column: ColumnPlan("text")})
        names = list(dict.fromkeys([column, *keep]))
        for raw in table.batches(names, rows=1_024):
            clean = cleaner(raw)
            vectors, cut = self([t or "" for t in clean.columns[column].to_pylist()])
            places = pa.array(np.searchsorted(raw.rows, clean.rows))
            kept = shown(raw.batch.select(list(keep)), table.columns).take(places)
            yield Embedded(clean.rows, vectors, kept, cut)


def check_columns(table: Table, names: Sequence[str]) -> None:
    """Raises DataError for the first of the names that the table lacks."""
    for name in names:
        if name not in table.columns:
            raise DataError(f"{table.name}: there is no column '{name}'.{did_you_mean(name, table.columns)}")


def text_column(table: Table, guesses: dict[str, str]) -> str:
    """The only column that holds texts. Raises UsageError where there are none or several."""
    texts = [name for name, kind in guesses.items() if kind == "text"]
    if len(texts) != 1:
        raise UsageError(
            f"{table.name}: say which column to read with --column. Of {listing(table.columns)}, "
            f"{listing(texts)} hold texts."
        )
    return texts[0]


def nearest(index: Path, query: np.ndarray, count: int) -> tuple[np.ndarray, pa.Table]:
    """The ``count`` rows of an index with the highest cosine to ``query`` [D], best first: scores and rows.

    Raises:
        DataError: the file is no index, or was made by a model of another width.
    """
    try:
        file = pq.ParquetFile(index)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{index}: must be a Parquet file that `weft embed` wrote. Got: {error}.") from None
    kind = file.schema_arrow.field(VECTOR).type if VECTOR in file.schema_arrow.names else None
    if kind is None or not pa.types.is_fixed_size_list(kind):
        raise DataError(f"{index}: must hold a column '{VECTOR}', as `weft embed` writes it. Got no such column.")
    if kind.list_size != len(query):
        raise DataError(
            f"{index}: vectors must be of the width of the model, {len(query)}. Got {kind.list_size}. "
            f"Search with the model that made the index."
        )
    scores, rows = np.zeros(0, np.float32), None
    for batch in file.iter_batches(batch_size=65_536):
        place = batch.schema.get_field_index(VECTOR)
        vectors = batch.column(place).flatten().to_numpy().reshape(-1, len(query))
        found = pa.Table.from_batches([batch]).remove_column(place)
        rows = found if rows is None else pa.concat_tables([rows, found])
        scores = np.concatenate([scores, vectors @ query])
        best = np.argsort(-scores, kind="stable")[:count]
        scores, rows = scores[best], rows.take(pa.array(best))
    if rows is None or not len(rows):
        raise DataError(f"{index}: must hold rows. Got none.")
    return scores, rows
