"""What personal data a table holds, by column and kind; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from weft.data.personal import KINDS
from weft.data.pictures import pixel_type
from weft.data.table import Table, shown
from weft.files import json_text
from weft.preprocess.letters import Redactor


class Survey:
    """Values of each kind in each column of so many rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._redactor = Redactor(KINDS)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        self.rows += batch.num_rows
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            texts = _texts(array)
            if texts is not None:
                self._redactor(texts, name)

    @property
    def found(self) -> dict[str, dict[str, int]]:
        """Column -> kind -> values, the most frequent kind first."""
        columns: dict[str, dict[str, int]] = {}
        for (column, kind), count in self._redactor.found.most_common():
            columns.setdefault(column, {})[kind] = count
        return columns

    def in_words(self, replaced: Sequence[str] = (), read: Collection[str] | None = None) -> list[str]:
        """A line a column; ``replaced``: kinds that are, ``read``: the columns that a run reads."""
        lines = []
        for column, kinds in self.found.items():
            left = [kind for kind in kinds if kind not in replaced]
            what = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
            end = "left out" if read is not None and column not in read else f"{', '.join(left)} NOT replaced"
            lines.append(f"{column}: {what}; {end if left or end == 'left out' else 'replaced'}")
        return lines


def survey(table: Table, rows: int | None = None) -> Survey:
    """Look through a table, batch by batch; of ``rows`` only the first."""
    found = Survey()
    shown_batches = (shown(raw.batch, table.columns) for raw in table.batches())
    for batch in shown_batches if rows is None else table.head(rows).to_batches():
        found.add(batch)
    return found


def _texts(array: pa.Array) -> pa.Array | None:
    """The cells as texts; None where they are none: fractions, times, pictures."""
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if pa.types.is_integer(kind):
        return pc.cast(array, pa.string())
    if pa.types.is_nested(kind) and pixel_type(kind) is None and not _holds_bytes(kind):
        return pa.array([None if cell is None else json_text(cell) for cell in array.to_pylist()], pa.string())
    return None


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(pa.types.is_binary(field.type) for field in kind)
