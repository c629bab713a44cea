"""Private memory of every step of a language task on text of any size.

    uv run python benchmarks/large_text.py --megabytes 1200 --minutes 0.5

The text is made up: words drawn by Zipf's law from 60,000 and numbers between them, so that new words never end, in
sentences. One JSON line: of each step the peak of RssAnon in megabytes, seconds and CPU seconds (all threads). Mapped
files are not counted: the system takes them back when it needs the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

FOLLOWS = {"data": "preprocess", "preprocess": "features", "features": "model", "best": "inference",
           "inference": "results", "results": "end"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=0.5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_text(folder / "text.txt", given.megabytes * 10**6)
        (folder / "weft.yaml").write_text(
            f"data: {{source: {folder / 'text.txt'}}}\ntarget: {{next_token: text}}\n"
            f"model: {{width: 64, layers: 2}}\ntraining: {{minutes: {given.minutes}}}\n"
        )
        command = [sys.executable, "-m", "weft", "run", str(folder / "weft.yaml"), "-o", str(folder / "run")]
        steps = watched(command, folder / "run/work/store")
        print(json.dumps({"benchmark": "large_text", "megabytes": given.megabytes, "steps": steps}))


def write_text(path: Path, size: int) -> None:
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    share = 1 / np.arange(1, 27)
    words = sorted(
        {"".join(random.choice(letters, random.integers(2, 11), p=share / share.sum())) for _ in range(60_000)}
    )
    random.shuffle(words)
    edges = np.cumsum(1 / np.arange(1, len(words) + 1) ** 1.05)
    known = len(words)
    with path.open("w") as stream:
        while stream.tell() < size:
            drawn = np.searchsorted(edges, random.random(140_000) * edges[-1])
            drawn = np.where(random.random(140_000) < 0.03, random.integers(10**5, 10**9, 140_000), drawn)
            for number, line in enumerate(drawn.reshape(-1, 14).tolist()):
                said = " ".join([words[i] if i < known else str(i) for i in line])
                stream.write(said + (".\n" if number % 5 == 0 else ". "))


def watched(command: list[str], encoded: Path) -> dict[str, dict[str, float]]:
    """Peak private memory, seconds and CPU seconds of each step, by the lines that the run prints.

    Of the features, "learn" is over and "encode" begins when the folder ``encoded`` is there.
    """
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    now, ticks = ["data"], os.sysconf("SC_CLK_TCK")
    steps: dict[str, dict[str, float]] = {}
    process = Path(f"/proc/{run.pid}")

    def poll() -> None:
        before, cpu_before = time.monotonic(), 0.0
        while run.poll() is None:
            found = re.search(r"RssAnon:\s+(\d+)", (process / "status").read_text())
            user, system = (process / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
            clock, cpu = time.monotonic(), (int(user) + int(system)) / ticks
            if found:
                name = now[0] if now[0] != "features" else "encode" if encoded.exists() else "learn"
                step = steps.setdefault(name, {"megabytes": 0.0, "seconds": 0.0, "cpu_seconds": 0.0})
                step["megabytes"] = max(step["megabytes"], int(found[1]) / 1e3)
                step["seconds"] = round(step["seconds"] + clock - before, 3)
                step["cpu_seconds"] = round(step["cpu_seconds"] + cpu - cpu_before, 3)
            before, cpu_before = clock, cpu
            time.sleep(0.1)

    threading.Thread(target=poll, daemon=True).start()
    assert run.stderr is not None
    for line in run.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        first = line.split()[0] if line.strip() else ""
        now[0] = FOLLOWS.get(first, now[0])
    if run.wait():
        raise SystemExit("the run failed")
    return steps


if __name__ == "__main__":
    main()
