"""A table larger than memory through every step: peak resident memory and rows a second of each, at two sizes.

    uv run python benchmarks/memory.py make /big/table.parquet --rows 20000000
    uv run python benchmarks/memory.py weft /big/table.parquet --memory 2GB --minutes 1
    uv run python benchmarks/memory.py peer /big/table.parquet --limit 2GB

``make`` recombines real rows as a stream: sentences of the clothing reviews three at a time, Adult's numbers with noise
and its categories; a figure in ten thousand is infinite, so that rows are set aside. Pages are not compressed and row
groups are of a million rows. The answer follows the sentences' recommendations and the income, with noise.

``weft`` runs ``weft run`` and ``weft predict`` as commands, each a process of its own, and prints what they say of
their steps beside the peak that the system saw (``ru_maxrss``: the process with all mapped pages). ``peer`` is what one
writes with pandas and scikit-learn: read the table, hash the texts, fit a linear model; it is stopped where more than
the limit is resident.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from weft.memory import parse

DATA = Path("../shared/data")
GROUP = 1_000_000
NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
CATEGORIES = (
    "workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country",
)  # fmt: skip
NOISE = 8
BAD = 10_000


def sources() -> tuple[pa.Array, np.ndarray, pa.Table]:
    """Sentences, whether their review recommends, and the rows of Adult."""
    reviews = pq.read_table(DATA / "clothing_reviews.parquet", columns=["review_text", "recommended_ind"])
    said, liked = [], []
    for text, good in zip(*(c.to_pylist() for c in reviews.columns), strict=True):
        for sentence in re.split(r"(?<=[.!?])\s+", text or ""):
            if 20 <= len(sentence) <= 160:
                said.append(sentence.strip())
                liked.append(good)
    return pa.array(said, pa.string()), np.array(liked, np.float64), pq.read_table(DATA / "adult.parquet")


def pieces(rows: int) -> Any:
    """The table, a row group at a time."""
    said, liked, adult = sources()
    rich = (pc.equal(adult.column("income"), ">50K")).to_numpy().astype(np.float64)
    columns = {n: adult.column(n).cast(pa.string()).combine_chunks() for n in CATEGORIES}
    figures = {n: adult.column(n).to_numpy().astype(np.float64) for n in NUMBERS}
    for number, start in enumerate(range(0, rows, GROUP)):
        random, count = np.random.default_rng([7, number]), min(GROUP, rows - start)
        chosen = random.integers(0, len(said), (3, count))
        person = random.integers(0, len(rich), count)
        parts = [said.take(pa.array(c)) for c in chosen]
        table = {"review": pc.binary_join_element_wise(*parts, " ")}
        for name, values in figures.items():
            table[name] = pa.array(values[person] * (1 + 0.05 * random.standard_normal(count)))
        for place in range(NOISE):
            table[f"measure_{place}"] = pa.array(random.standard_normal(count))
        spoilt = table["measure_0"].to_numpy().copy()
        spoilt[(start + np.arange(count)) % BAD == BAD - 1] = np.inf
        table["measure_0"] = pa.array(spoilt)
        table |= {name: values.take(pa.array(person)) for name, values in columns.items()}
        score = 2 * rich[person] + liked[chosen].sum(axis=0) + 0.7 * random.standard_normal(count)
        table["answer"] = pa.array(np.where(score > 3, "yes", "no"))
        yield pa.table(table)


def make(path: Path, rows: int) -> None:
    writer, size = None, 0
    for table in pieces(rows):
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table, row_group_size=GROUP)
        size += table.nbytes
    assert writer is not None
    writer.close()
    print(json.dumps({"rows": rows, "file_bytes": path.stat().st_size, "arrow_bytes": size}))


def settings(path: Path, minutes: float) -> str:
    return f"""
data: {{source: {path}, split: {{test: 0.05, valid: 0.05}}}}
features: {{review: {{type: text, max_tokens: 16}}}}
target: answer
model: {{width: 16, layers: 1, heads: 2}}
training: {{minutes: {minutes}, batch_rows: 1024}}
"""


def command(*words: str) -> tuple[dict[str, Any], float, int]:
    """The JSON that a command prints, its seconds, and its peak resident memory in bytes."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _CHILD, *words, "--json"], stdout=subprocess.PIPE, check=True)
    last, peak = done.stdout.decode().rsplit("PEAK", 1)
    return json.loads(last), time.monotonic() - start, int(peak)


_CHILD = """
import resource, sys
from weft.cli import call
code = call(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def weft(path: Path, bound: str, minutes: float) -> None:
    work = path.with_suffix(".run")
    shutil.rmtree(work, ignore_errors=True)
    file, out = path.with_suffix(".yaml"), path.with_suffix(".predictions.parquet")
    file.write_text(settings(path, minutes))
    rows = pq.ParquetFile(path).metadata.num_rows
    check, _, _ = command("check", str(file), "--memory", bound)
    found, seconds, peak = command("run", str(file), "-o", str(work), "--memory", bound)
    print(json.dumps({
        "what": "run", "rows": rows, "bytes": path.stat().st_size, "seconds": round(seconds), "peak": peak,
        "steps": found["memory"]["steps"], "predicted": check["memory_steps"], "disk": check["disk_bytes"],
        "data": {k: found["data"][k] for k in ("rows", "used", "rejected")}, "headline": found["headline"],
    }), flush=True)  # fmt: skip
    done, seconds, peak = command("predict", str(work), str(path), "-o", str(out), "--memory", bound)
    assert (
        done["rows"]
        == rows
        == done["predicted"] + done["rejected"]
        == pq.ParquetFile(out).metadata.num_rows
        + (pq.ParquetFile(done["rejected_output"]).metadata.num_rows if done["rejected"] else 0)
    )
    print(json.dumps({
        "what": "predict", "rows": rows, "seconds": round(seconds), "peak": peak, "used": done["used"],
    }), flush=True)  # fmt: skip


_PEER = """
import json, resource, sys, time
limit = int(sys.argv[2])
import numpy as np, pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler
start, step = time.monotonic(), "read"
def say(**more):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"what": "pandas + scikit-learn", "limit": limit, "step": step, "peak": peak,
                      "seconds": round(time.monotonic() - start), **more}), flush=True)
say(done=True)
try:
    frame = pd.read_parquet(sys.argv[1])
    say(done=True)
    step = "features"
    frame = frame[np.isfinite(frame["measure_0"])]
    numbers = list(frame.select_dtypes("number").columns)
    words = [c for c in frame.columns if c not in (*numbers, "review", "answer")]
    blocks = [HashingVectorizer(n_features=2**18).fit_transform(frame["review"])]
    say(done=True, block="texts")
    blocks.append(OneHotEncoder(handle_unknown="ignore").fit_transform(frame[words]))
    say(done=True, block="categories")
    blocks.append(sparse.csr_matrix(StandardScaler().fit_transform(frame[numbers])))
    x = sparse.hstack(blocks).tocsr()
    say(done=True, block="all")
    step = "train"
    train = np.random.default_rng(0).random(x.shape[0]) < 0.9
    y = (frame["answer"] == "yes").to_numpy()
    model = SGDClassifier(loss="log_loss", max_iter=5).fit(x[train], y[train])
    say(done=True, accuracy=float(model.score(x[~train], y[~train])))
except (MemoryError, Exception) as error:
    say(done=False, error=f"{type(error).__name__}: {str(error)[:200]}")
"""


def peer(path: Path, limit: int) -> None:
    """Runs until it is done, or until more than ``limit`` bytes are resident: a container would stop it then."""
    words = [sys.executable, "-W", "ignore", "-c", _PEER, str(path), str(limit)]
    child, start, over = subprocess.Popen(words), time.monotonic(), 0
    while child.poll() is None:
        time.sleep(0.02)
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
        if limit and found and int(found[1]) * 1024 > limit:
            over = int(found[1]) * 1024
            child.kill()
            child.wait()
    seconds = round(time.monotonic() - start)
    if over or child.returncode:
        print(json.dumps({"limit": limit, "stopped_at": over, "seconds": seconds, "exit": child.returncode}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "weft", "peer"))
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--limit", default="")
    parser.add_argument("--minutes", type=float, default=1.0)
    given = parser.parse_args()
    if given.what == "make":
        make(given.table, given.rows)
    elif given.what == "weft":
        weft(given.table, given.memory, given.minutes)
    else:
        peer(given.table, parse(given.limit) if given.limit else 0)


if __name__ == "__main__":
    print(json.dumps({"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")}), file=sys.stderr)
    main()
