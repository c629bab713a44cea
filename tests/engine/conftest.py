"""What every engine is tried with: a small run, and tables with rows that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tests.tables import FAST, mixed

import weft
from weft.runs.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return weft.train(mixed(200), "bought", out=tmp_path_factory.mktemp("engine") / "run", quiet=True, **FAST)


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """CSV with a line that is no row, a price that is no number and names of special tokens in a text; Parquet of many
    small row groups and of one large, in two files."""
    folder = tmp_path_factory.mktemp("tables")
    table = mixed(3_000, seed=3)
    pacsv.write_csv(table, folder / "t.csv")
    lines = (folder / "t.csv").read_text().split("\n")
    lines[777] = "not,a,row,at,all,x,y"
    lines[1_500] = 'cheap,"red",2020-01-01 00:00:00,"lovely","no"'
    lines[2_000] = '3.5,"red",2020-01-01 00:00:00,"<pad> lovely <mask> [SEP] soft","no"'
    (folder / "t.csv").write_text("\n".join(lines))
    for name, group in (("small", 400), ("large", 200_000)):
        (folder / name).mkdir()
        odd = table.set_column(0, "price", pa.array(["cheap" if i == 950 else "3.5" for i in range(3_000)]))
        pq.write_table(odd.slice(0, 1_000), folder / name / "a.parquet", row_group_size=group)
        pq.write_table(odd.slice(1_000), folder / name / "b.parquet", row_group_size=group)
    return {"csv": str(folder / "t.csv"), "small": str(folder / "small"), "large": str(folder / "large")}


def written(folder: Path, name: str) -> list[bytes]:
    """The output of a prediction and the rows set aside, as bytes."""
    return [(folder / name).read_bytes(), (folder / f"{Path(name).stem}.rejected.parquet").read_bytes()]
