"""What the pass over a table makes of a batch: its rows cleaned, those without a target kept apart where a teacher
answers them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from weft.data.split import TRAIN, named_parts
from weft.data.table import RawBatch, Rejected
from weft.preprocess.clean import MISSING_TARGET, CleanBatch, Cleaner, Noticed
from weft.preprocess.duplicates import Marker


@dataclass
class Cleaned:
    """A batch cleaned for the model, with the columns read beside it and those of groups; its rows without a target,
    where such are kept; what tells its rows from others; what was noticed."""

    read: tuple[CleanBatch, dict[str, pa.Array], dict[str, pa.Array]]
    unlabelled: CleanBatch | None
    marks: dict[str, np.ndarray]
    noticed: Noticed


class CleanStep:
    """The step of the pass: a row bad for any of the cleaners is set aside. ``taught``: the target whose missing
    values are kept, and the column that says which rows are learnt from, if one does."""

    def __init__(
        self, cleaner: Cleaner, apart: Cleaner, groups: Cleaner, marker: Marker | None,
        taught: tuple[str, str | None] | None,
    ):  # fmt: skip
        self.cleaners, self.marker, self.taught = (cleaner, apart, groups), marker, taught

    def __call__(self, raw: RawBatch) -> Cleaned:
        cleaner = self.cleaners[0]
        done = [c(RawBatch(raw.rows, raw.batch, raw.rejected if c is cleaner else [], raw.folder)) if c.plans else None
                for c in self.cleaners]  # fmt: skip
        read = [batch for batch in done if batch is not None]
        both, rejected = read[0].rows, {r.row: r for batch in reversed(read) for r in batch.rejected}
        for batch in read[1:]:
            both = np.intersect1d(both, batch.rows)
        kept = [{} if b is None else b.chosen(np.isin(b.rows, both)).columns if len(b.rows) > len(both) else b.columns
                for b in done]  # fmt: skip
        clean = CleanBatch(both, kept[0], list(rejected.values()))
        unlabelled = None
        if self.taught is not None:
            clean, unlabelled, kept = self._told_apart(clean, kept, *self.taught)
        marks = {} if self.marker is None else self.marker(clean.columns)
        return Cleaned((clean, kept[1], kept[2]), unlabelled, marks, cleaner.told())

    def _told_apart(
        self, clean: CleanBatch, kept: list[dict[str, pa.Array]], target: str, column: str | None
    ) -> tuple[CleanBatch, CleanBatch, list[dict[str, pa.Array]]]:
        """The rows with a target, those without one, and the columns beside the first. What is judged must have one."""
        missing = clean.columns[target].is_null().to_numpy(zero_copy_only=False)
        learnt = missing
        if column is not None:
            learnt = missing & (named_parts(column, clean.rows, (clean.columns | kept[1])[column]) == TRAIN)
        bad = [Rejected(row, target, MISSING_TARGET, "") for row in clean.rows[missing & ~learnt].tolist()]
        some = pa.array(~missing)
        return (
            replace(clean.chosen(~missing), rejected=[*clean.rejected, *bad]),
            replace(clean.chosen(learnt), rejected=[]),
            [{name: array.filter(some) for name, array in columns.items()} for columns in kept],
        )
