"""Column dropout: in training whole columns of a row are now and then hidden, as if they were missing, so that the
model learns to do without each of them. What is hidden depends on (seed, epoch, row) only, as all augmentation does."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import uniform
from weft.errors import SettingsError
from weft.features.columns import Columns
from weft.features.ragged import Ragged
from weft.features.store import RowCodes


def column_dropout_problem(settings: Settings, plan: Plan) -> None:
    """Raises SettingsError where ``training.column_dropout`` has nothing to hide."""
    if settings.training.column_dropout and len(plan.types) < 2:
        raise SettingsError(
            ["training.column_dropout: hides some columns of a row and leaves others. The table has one. Remove it."]
        )


class ColumnDropout:
    """Codes of training rows in which each column is missing with probability ``share``, never all of them."""

    def __init__(self, columns: Columns, share: float, seed: int):
        self.share, self.seed = share, seed
        self.nothing = columns.nothing()
        self.names = sorted(self.nothing)

    def __call__(self, codes: RowCodes, rows: np.ndarray, epoch: int) -> RowCodes:
        """``codes`` of ``rows`` with some columns hidden; those handed in stay as they are."""
        keys = rows[:, None] * len(self.names) + np.arange(len(self.names))
        draws = uniform((self.seed << 32) + epoch + 1, keys)
        hidden = (draws < self.share) & (draws < draws.max(axis=1, keepdims=True))
        codes = dict(codes)
        for name, gone in zip(self.names, hidden.T, strict=True):
            if gone.any():
                codes[name] = {f: _without(a, gone, self.nothing[name][f]) for f, a in codes[name].items()}
        return codes


def _without(array: np.ndarray | Ragged, gone: np.ndarray, nothing: Any) -> np.ndarray | Ragged:
    if isinstance(array, Ragged):
        return array.first(np.where(gone, 0, array.lengths()))
    array = array.copy()
    array[gone] = nothing[0]
    return array
