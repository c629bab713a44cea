"""Which rows of a table a run is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weft.data.split import NAMES, TEST, VALID
from weft.data.table import Table
from weft.errors import CheckpointError


def split_of(folder: Path) -> np.ndarray:
    """The part of every row of a run's data. Raises CheckpointError where the file holds anything but numbers."""
    try:
        return np.load(folder / "split.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{folder / 'split.npy'}: must hold the split that Weft wrote. Got: {error}") from None


@dataclass(frozen=True)
class JudgedRows:
    """Of the very data of the training the rows that were kept apart (``parts``: what each row is for), else all."""

    parts: np.ndarray | None
    part: int = TEST

    @classmethod
    def of(cls, folder: Path, figures: dict[str, Any], source: Table, everything: bool) -> JudgedRows:
        """Those of a run's ``folder``; ``everything``: all rows, also of its own data."""
        if everything or source.fingerprint() != figures["data"]["fingerprint"]:
            return cls(None)
        parts = split_of(folder)
        return cls(parts, TEST if (parts == TEST).any() else VALID)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """A mask of those among some rows, by their numbers."""
        return np.ones(len(rows), bool) if self.parts is None else self.parts[rows] == self.part

    def words(self) -> str:
        return "all rows" if self.parts is None else f"{NAMES[self.part]} rows of the training data"
