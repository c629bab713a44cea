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
from tests.tables import FAST, mixed

import weft
from weft import memory
from weft.cli import call
from weft.data.table import Table
from weft.errors import SettingsError, TooManyBadRows, UsageError

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a step")
GROWTH = """
import json, sys
from pathlib import Path
import numpy as np
from weft import config, memory
from weft.data.plan import look
from weft.data.split import TRAIN
from weft.data.table import Table
from weft.features.batching import shuffled
from weft.features.fit import encode_rows, fit_columns
from weft.preprocess.ingest import ingest, make_cleaner
from weft.progress import Silent

memory.limit("320MB")
table, work, used = Table.open(sys.argv[1]), Path(sys.argv[2]), []
settings = config.from_mapping({"target": "y", "features": {"t": "text"}})
plan = look(settings, table)
cleaner = make_cleaner(settings, plan)
with memory.measured(used):
    clean, parts, found = ingest(settings, plan, table, cleaner, work / "c.arrow", work / "r.parquet", Silent())
with memory.measured(used):
    columns = fit_columns(settings, plan, clean, cleaner)
with memory.measured(used):
    store = encode_rows(columns, clean, work / "store", Silent())
train = clean.places(TRAIN)
with memory.measured(used):
    for batch in shuffled(train, store.lengths(), 256, 0, 0):
        store.take(batch)
with memory.measured(used):
    clean.take(np.sort(np.random.default_rng(0).choice(len(clean), 5_000, replace=False)), ["t", "x0"])
size = sum(f.stat().st_size for f in work.rglob("*") if f.is_file())
print(json.dumps({"peaks": [u.peak for u in used], "bytes": size, "rows": [found.read, len(clean) + found.rejected]}))
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


@LINUX
def test_what_each_step_holds_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """Of six times the rows, whose files grow by 120 MB, no step holds more than 60 MB beyond."""
    one = table_of(40_000)
    found: list[dict[str, Any]] = []
    for times in (1, 6):
        work = tmp_path / str(times)
        work.mkdir()
        pq.write_table(pa.concat_tables([one] * times), tmp_path / "t.parquet", row_group_size=1 << 20)
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(tmp_path / "t.parquet"), str(work)], capture_output=True, check=True
        )
        found.append(json.loads(done.stdout))
    small, large = found
    assert large["rows"] == [240_000, 240_000]
    assert large["bytes"] - small["bytes"] > 110e6
    growth = np.array(large["peaks"]) - np.array(small["peaks"])
    assert (growth < 60e6).all(), growth.tolist()


@LINUX
def test_pages_of_mapped_files_are_let_go_of(tmp_path: Path, bounded: None) -> None:
    (tmp_path / "f").write_bytes(np.random.default_rng(0).bytes(50_000_000))
    memory.release()
    memory.limit("80MB")  # an eighth of it may be pages
    numbers = memory.as_array(tmp_path / "f", np.dtype(np.uint8))
    before, total = memory.resident(), int(numbers.sum())
    assert memory.resident() - before > 40e6
    memory.release()
    assert memory.resident() - before < 15e6 and int(numbers.sum()) == total


@LINUX
def test_holes_between_what_is_held_are_given_back() -> None:
    memory.give_back()  # else the blocks lie in what earlier tests left
    memory.give_back_grown()
    blocks = [bytearray(100_000) for _ in range(4_000)]
    held = memory.resident()
    blocks = blocks[::50]
    assert memory.resident() > held - 50e6  # else the system needs no help
    memory.give_back_grown()
    assert memory.resident() < held - 250e6 and len(blocks) == 80


FREED = """
import resource
import numpy as np
from weft import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(400_000) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(4)))
memory.keep_freed()
print(min(faults() for _ in range(4)))
"""


@LINUX
def test_what_was_freed_is_there_for_the_next_batch() -> None:
    done = subprocess.run([sys.executable, "-c", FREED], check=True, capture_output=True, text=True)
    without, kept = map(int, done.stdout.split())
    # pages that the machine had to give; where it gives large ones there is nothing to save
    assert kept < 200 and (kept < without / 4 or without < 200)


@pytest.fixture
def bounded() -> Any:
    yield
    memory.limit(None)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("900mb", 9 * 10**8), ("1.5 GiB", 3 << 29), ("64KB", 64_000)]
)
def test_sizes_are_said_as_people_say_them(text: str, size: int) -> None:
    assert memory.parse(text) == size


@pytest.mark.parametrize("text", ["2", "two GB", "-1GB", "0GB", "", "2G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory: must be a size such as 2GB"):
        memory.parse(text)


def test_the_default_is_a_share_of_what_the_machine_has_left() -> None:
    assert memory.resident() < memory.bound() < 1 << 45


def test_a_model_beyond_the_bound_is_refused_before_anything_is_written(
    tmp_path: Path, bounded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(mixed(60), "t.parquet")
    Path("weft.yaml").write_text("data: {source: t.parquet}\ntarget: bought\nmodel: {width: 8192, layers: 2}\n")
    assert call(["run", "weft.yaml", "-o", "run", "--memory", "8GB"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "parameters needs about" in said and "the bound is 8.0 GB" in said and "--memory" in said
    assert not Path("run").exists()
    with pytest.raises(SettingsError, match=r"the bound is 8\.0 GB"):
        memory.require(9e9, "it")


def test_the_bound_changes_no_bit_of_a_run(tmp_path: Path, bounded: None) -> None:
    found = []
    for bound in ("3GB", "30GB"):
        memory.limit(bound)
        run = weft.train(mixed(300), "bought", out=tmp_path / bound, quiet=True, **FAST)
        found.append((run.path / "model.safetensors").read_bytes())
        told = run.figures["memory"]
        assert told["bound"] == memory.parse(bound) and told["steps"]["preprocess"]["rows"] == 300
        assert all(used["seconds"] >= 0 and used["peak_memory"] > 0 for used in told["steps"].values())
    assert found[0] == found[1]


def test_check_says_what_each_step_will_need(
    tmp_path: Path, bounded: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes on disk are those of the run; the memory is above what it takes and the libraries alone below."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(mixed(2_000), "t.parquet")
    Path("weft.yaml").write_text(
        "data: {source: t.parquet}\ntarget: bought\nmodel: {width: 16, layers: 1}\ntraining: {epochs: 1}\n"
    )
    assert call(["check", "weft.yaml", "--json", "--memory", "1MB"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "IT IS NOT ENOUGH" in told["words"]["memory"] and told["memory_bound"] == 10**6
    memory.limit(None)
    run = weft.train("t.parquet", "bought", quiet=True, model={"width": 16, "layers": 1}, training={"epochs": 1})
    for step, used in run.figures["memory"]["steps"].items():
        if step in told["memory_steps"]:
            assert used["peak_memory"] < told["memory_steps"][step]["memory_bytes"], step
    for step in ("preprocess", "features"):
        written, said = run.figures["memory"]["steps"][step]["written"], told["memory_steps"][step]["disk_bytes"]
        assert said < written < 3 * said + 600_000, step  # the tokenizer and codecs are written as well


class TestBadRows:
    def test_a_strict_run_stops_at_the_first_and_says_only_it(self, tmp_path: Path) -> None:
        lines = [f"{'junk' if i in (30, 60_000) else i},{'yes' if i % 2 else 'no'}" for i in range(80_000)]
        (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(lines) + "\n")
        with pytest.raises(TooManyBadRows, match=r"Got 1 of the first 64\.") as caught:
            weft.train(
                str(tmp_path / "t.csv"), "y", out=tmp_path / "run", quiet=True, data={"max_rejected": 0.0},
                features={"x": "number"},
            )  # fmt: skip
        assert str(caught.value).count("must be a number") == 1
        assert pq.read_table(tmp_path / "run" / "rejected.parquet").column("row").to_pylist() == [30]

    def test_a_table_that_says_its_length_is_given_up_as_soon_as_it_cannot_be_good(self, tmp_path: Path) -> None:
        words = ["junk" if i < 800 else str(i) for i in range(60_000)]
        pq.write_table(pa.table({"x": words, "y": ["yes", "no"] * 30_000}), tmp_path / "t.parquet")
        with pytest.raises(TooManyBadRows, match=r"Got 800 of the first 16,384\."):
            weft.train(str(tmp_path / "t.parquet"), "y", out=tmp_path / "run", quiet=True, features={"x": "number"})
        assert pq.read_metadata(tmp_path / "run" / "rejected.parquet").num_rows == 800


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_long_rows_come_a_few_at_a_time(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PIECE", 1 << 20)
    texts = ["x" * 50_000] * 300
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"t": texts}), path)
    else:
        rows = ["t", *texts] if ending == "csv" else [json.dumps({"t": t}) for t in texts]
        path.write_text("\n".join(rows) + "\n")
    sizes = [len(raw.rows) for raw in Table.open(path).batches()]
    assert sum(sizes) == 300 and max(sizes[1:]) <= 21 and max(sizes) <= 64
