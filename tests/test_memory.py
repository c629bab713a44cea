"""The bound on memory: what it says, what refuses it, and that what is held does not grow with the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GROWTH = """
import sys
from pathlib import Path
from weft import config, memory
from weft.data.plan import look
from weft.data.table import Table
from weft.features.batching import shuffled
from weft.features.fit import encode_rows, fit_columns
from weft.data.split import TRAIN
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent
import json

memory.limit("900MB")
table, work = Table.open(sys.argv[1]), Path(sys.argv[2])
settings = config.from_mapping({"target": "y", "features": {"t": "text"}})
plan = look(settings, table)
cleaner = make_cleaner(settings, plan)
used = []
with memory.measured(used):
    clean, parts, found = ingest(settings, plan, table, cleaner, work / "c.arrow", work / "r.parquet", Silent())
with memory.measured(used):
    columns = fit_columns(settings, plan, clean, cleaner)
with memory.measured(used):
    store = encode_rows(columns, clean, work / "store", Silent())
train = clean.places(TRAIN)
with memory.measured(used):
    for batch in shuffled(train, store.lengths(), 4_096, 0, 0):
        store.take(batch)
print(json.dumps({"peaks": [u.peak for u in used], "bytes": sum(f.stat().st_size for f in work.rglob("*") if f.is_file()),
                  "rows": [found.read, len(clean) + found.rejected]}))
"""


def table_of(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(500)])
    drawn = words[random.integers(0, 500, (rows, 12))]
    numbers = {f"x{i}": random.standard_normal(rows) for i in range(6)}
    numbers["x0"][:: rows // 10] = np.inf
    return pa.table({
        "t": [" ".join(row) for row in drawn], **numbers, "y": np.where(numbers["x1"] > 0, "yes", "no"),
    })  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a step is told by Linux only")
def test_what_each_step_holds_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Of four times the rows (whose files grow by more than the margin) no step holds more than 50 MB beyond."""
    one = table_of(100_000)
    found: list[dict[str, Any]] = []
    for times in (1, 4):
        work = tmp_path / str(times)
        work.mkdir()
        pq.write_table(pa.concat_tables([one] * times), tmp_path / "t.parquet", row_group_size=1 << 20)
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(tmp_path / "t.parquet"), str(work)], capture_output=True, check=True
        )
        found.append(json.loads(done.stdout))
    small, large = found
    assert large["rows"] == [400_000, 400_000]
    assert large["bytes"] - small["bytes"] > 150e6
    growth = np.array(large["peaks"]) - np.array(small["peaks"])
    print(small, large)
    assert (growth < 50e6).all(), growth.tolist()
