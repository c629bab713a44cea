"""The training rows most like a row, as the model sees them: the cosine of the states that its head reads.

A person may judge by these what it learnt from: whether they are like the row at all, and whether their answers agree
with what it says (Papernot & McDaniel 2018).

Shape suffixes: R rows explained, N training rows, S numbers of a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from weft.data.split import TRAIN, uniform
from weft.data.table import Table
from weft.features.batching import Batch
from weft.features.codecs import Codec
from weft.features.columns import Columns
from weft.inference.predict import Predictor, read_codes
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.results.explain.players import in_words

MOST_ROWS = 10_000
"""Training rows that are looked at, drawn at random where there are more."""
MOST_LETTERS = 200
_SEED = 17  # of the rows looked at; not that of a split, whose draws these would follow


@dataclass(frozen=True)
class Neighbour:
    """A training row: its number in the table, its cosine with the row explained, its answer, and what it holds."""

    row: int
    likeness: float
    truth: str | float | list[str]
    cells: dict[str, str]


@dataclass(frozen=True)
class Nearest:
    """The training rows most like one row, the nearest first; found among ``seen`` of ``of`` training rows."""

    neighbours: list[Neighbour]
    seen: int
    of: int

    def agreeing(self, answer: str | float) -> int:
        """How many have this answer; of numbers 0."""
        return sum(answer in n.truth if isinstance(n.truth, list) else n.truth == answer for n in self.neighbours)

    def disagrees(self, answer: str | float) -> bool:
        """Whether most of them have another answer; of a number, whether it lies beyond all of theirs."""
        truths = [n.truth for n in self.neighbours if isinstance(n.truth, float)]
        if isinstance(answer, float):
            return bool(truths) and not min(truths) <= answer <= max(truths)
        return 2 * self.agreeing(answer) < len(self.neighbours)


def find_nearest(predictor: Predictor, rows: CleanBatch, table: Table, parts: np.ndarray, k: int) -> list[Nearest]:
    """Of each row its ``k`` nearest training rows; they are read batch by batch.

    Args:
        table: what the model was trained on.
        parts: of each of its rows TRAIN, VALID or TEST.
    """
    columns, model = predictor.columns, predictor.model
    of = int((parts == TRAIN).sum())
    below = MOST_ROWS / max(1, of)
    asked = states(model, columns, rows)
    best: list[list[Neighbour]] = [[] for _ in asked]
    seen = 0
    for batch in predictor.clean(table, True, lambda n: (parts[n] == TRAIN) & (uniform(_SEED, n) < below)):
        if not len(batch.rows):
            continue
        likeness_RN = asked @ states(model, columns, batch).T
        seen += len(batch.rows)
        for r, likeness in enumerate(likeness_RN):
            first = np.argsort(-likeness, kind="stable")[:k].tolist()
            found = best[r] + [_neighbour(columns, batch, i, float(likeness[i])) for i in first]
            best[r] = sorted(found, key=lambda n: -n.likeness)[:k]
    return [Nearest(found, seen, of) for found in best]


def states(model: RowModels, columns: Columns, rows: CleanBatch) -> np.ndarray:
    """What the head sees of rows [R, S], of length one; of several copies one after the other."""

    @torch.no_grad()
    def read(batch: Batch) -> Tensor:
        model.eval()
        each = [F.normalize(copy.read(copy.embedding(batch.columns)).float(), dim=-1) for copy in model.each()]
        return torch.cat(each, dim=-1) / len(each) ** 0.5

    found = read_codes(model, columns.encode(rows), len(rows.rows), read)
    assert found is not None
    return found


def _neighbour(columns: Columns, batch: CleanBatch, place: int, likeness: float) -> Neighbour:
    cells = {c.name: _cell(c, batch.columns[c.name][place].as_py()) for c in columns.codecs if c.type != "image"}
    return Neighbour(int(batch.rows[place]), likeness, batch.columns[columns.target.name][place].as_py(), cells)


def _cell(codec: Codec, value: Any) -> str:
    told = ", ".join(str(event["item"]) for event in value) if isinstance(value, list) else in_words(codec, value)
    return told if len(told) <= MOST_LETTERS else told[: MOST_LETTERS - 1] + "…"
