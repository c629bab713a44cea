"""Shadow models: what an attacker trains to tell whom a run remembers (Shokri 2017, Carlini 2022).

Each is a run of the same settings on a random half of the rows that the run learnt from or was judged on; of two in
turn each row is in one and not in the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weft import pipeline
from weft.data.split import TEST, TRAIN, VALID, uniform
from weft.data.table import Table, shown
from weft.data_settings import SplitSettings
from weft.errors import UsageError
from weft.progress import Silent
from weft.runs.judged import split_of
from weft.runs.leaks import Shadow
from weft.runs.run import Run

COLUMN = "weft_split"


def train_shadows(run: Run, source: Table, count: int, folder: Path, say: Silent | None = None) -> list[Shadow]:
    """Train ``count`` of them (even) into an empty ``folder``; each costs what the run cost.

    Raises:
        UsageError: the table is not that of the run's training, or the count is odd.
    """
    if count < 2 or count % 2:
        raise UsageError(f"--shadows: must be even, as each row is learnt by one of two. Got {count}. Say 4, say.")
    if source.fingerprint() != run.figures["data"]["fingerprint"]:
        raise UsageError(f"--shadows: {source.name} must be the very data of the training. It is not.")
    parts = split_of(run.path)
    found = []
    for number in range(count):
        half = uniform(1_000 + number // 2, np.arange(len(parts))) < 0.5
        learnt = np.isin(parts, (TRAIN, TEST)) & (half if number % 2 else ~half)
        words = np.where(parts == VALID, "valid", np.where(learnt, "train", "test"))
        path = folder / f"shadow-{number}.parquet"
        _write(source, words, path)
        data = run.settings.data.model_copy(
            update={"source": str(path), "format": None, "split": SplitSettings(column=COLUMN)}
        )
        training = run.settings.training.model_copy(update={"seed": run.settings.training.seed + number + 1})
        results = run.settings.results.model_copy(update={"baselines": False, "explain": "off"})
        if "task" in run.figures:
            results = results.model_copy(update={"explain": None})
        settings = run.settings.model_copy(update={"data": data, "training": training, "results": results})
        if say is not None:
            say.step("shadow", f"{number + 1} of {count}")
        found.append(Shadow(pipeline.run(settings, out=folder / f"shadow-{number}", say=say), learnt))
    return found


def _write(source: Table, words: np.ndarray, path: Path) -> None:
    """The table with a column that says what each row is for."""
    writer = None
    for raw in source.batches(list(source.columns), rows=4_096):
        batch = shown(raw.batch, source.columns)
        rows = pa.table({**{n: batch.column(i) for i, n in enumerate(batch.schema.names)},
                         COLUMN: pa.array(words[raw.rows])})  # fmt: skip
        writer = writer or pq.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    if writer is not None:
        writer.close()
