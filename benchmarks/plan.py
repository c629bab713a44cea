"""What `weft check` and `weft plan FILE --probe 20` foretell beside what the run then takes: memory and seconds.

    uv run python benchmarks/plan.py [rows rnn letters poems minilm pictures table]

One JSON line a configuration. Every command is a process of its own. Runs end by their epochs (no early stopping); the
measured seconds are those of all steps as the report has them, the memory is the most that was resident at any step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from images import parts, write
from machine import DATA, minilm


def sources(folder: Path, name: str) -> tuple[str, list[str]]:
    """The pipeline file of a configuration (its table is written into ``folder``), and settings laid over it."""
    table = folder / "table.parquet"
    if name in ("rows", "rnn"):
        pq.write_table(pq.read_table(DATA / "clothing_reviews.parquet").slice(0, 3_000), table)
        return f"data: {{source: {table}}}\ntarget: recommended_ind\n", {
            "rows": ["training.epochs=3"], "rnn": ["model.backbone=rnn", "training.epochs=2"],
        }[name]  # fmt: skip
    if name == "letters":
        return f"data: {{source: {DATA / 'shakespeare.txt'}}}\ntarget: {{next_token: text}}\n", [
            "model.width=128", "model.layers=4", "training.epochs=1",
        ]  # fmt: skip
    if name == "poems":
        pq.write_table(pq.read_table(DATA / "poems_zh.parquet").slice(0, 4_000), table)
        return f"data: {{source: {table}}}\ntarget: {{next_token: text}}\n", [
            "model.width=256", "training.epochs=1",
        ]  # fmt: skip
    if name == "minilm":
        rows = pacsv.read_csv(DATA / "banking77_train.csv").take(pa.array(range(0, 10_003, 10)))
        pq.write_table(rows, table)
        return (
            f"data: {{source: {table}}}\nfeatures: {{text: text}}\ntarget: category\nmodel: {{from: {minilm()}}}\n",
            [],
        )
    if name == "pictures":
        found = {part: (x[:1_000], y[:1_000]) for part, (x, y) in parts("test").items()}
        write(found, table, 1_000)
        return f"data: {{source: {table}, split: {{column: part}}}}\ntarget: item\n", ["training.epochs=8"]
    return f"data: {{source: {DATA / 'adult.parquet'}}}\ntarget: income\n", ["training.epochs=1"]


def command(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "weft", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def once(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        text, changes = sources(Path(folder), name)
        file = Path(folder) / "weft.yaml"
        file.write_text(text)
        over = [word for change in [*changes, "training.patience=1000000"] for word in ("--set", change)]
        check = command("check", str(file), *over)
        plan = command("plan", str(file), "--probe", "20", *over)["rehearsed"]
        run = command("run", str(file), "-o", str(Path(folder) / "run"), *over)
    steps = run["memory"]["steps"]
    memory, seconds = max(s["peak_memory"] for s in steps.values()), sum(s["seconds"] for s in steps.values())
    return {
        "benchmark": "plan", "configuration": name, "memory_mb": round(memory / 1e6), "seconds": round(seconds, 1),
        "check_mb": round(check["memory_bytes"] / 1e6), "plan_mb": round(plan["memory_bytes"] / 1e6),
        "plan_seconds": round(plan["seconds"], 1), "check_seconds": round(check["seconds_at_most"], 1),
        "memory_error": round(plan["memory_bytes"] / memory - 1, 3),
        "time_error": round(plan["seconds"] / seconds - 1, 3),
        "cpu_seconds": run["energy"]["cpu_seconds"], "plan_cpu_seconds": round(plan["cpu_seconds"], 1),
        "cpu_error": round(plan["cpu_seconds"] / run["energy"]["cpu_seconds"] - 1, 3),
        "check_error": round(check["memory_bytes"] / memory - 1, 3), "rehearsed_rows": plan["rows"],
        "by_step": {n: [round(s["peak_memory"] / 1e6), round(plan["steps"][n]["memory_bytes"] / 1e6),
                        s["seconds"], round(plan["steps"][n]["seconds"], 1)] for n, s in steps.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["rows", "rnn", "letters", "poems", "minilm", "pictures", "table"])
    for name in parser.parse_args().names:
        print(json.dumps(once(name)), flush=True)


if __name__ == "__main__":
    print(json.dumps({"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS")}), file=sys.stderr)
    main()
