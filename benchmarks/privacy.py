"""What privacy costs: the same table and text task learnt without and at epsilon 8, 3 and 1, defaults otherwise.

``python benchmarks/privacy.py adult [EPSILON ...]`` (income, official test) or ``reviews`` (recommended, from the texts
alone). One JSON line a run; an epsilon of inf is none at all. Data: ../shared/data.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import weft

SHARED = Path("../shared/data")
OFF = ("clothing_id", "age", "rating", "positive_feedback_count", "division_name", "department_name", "class_name")
TASKS: dict[str, dict[str, Any]] = {
    "adult": {"data": {"source": str(SHARED / "adult.parquet"), "split": {"column": "split"}}, "target": "income"},
    "reviews": {
        "data": {"source": str(SHARED / "clothing_reviews.parquet"), "split": {"column": "split"}},
        "features": {"review_text": "text", "title": "text", **dict.fromkeys(OFF, "off")},
        "target": "recommended_ind", "model": {"width": 64},
    },
}  # fmt: skip


def main(task: str, *epsilons: str) -> None:
    for epsilon in map(float, epsilons or ("inf", "8", "3", "1")):
        training = {} if math.isinf(epsilon) else {"privacy": {"epsilon": epsilon}}
        settings = {**TASKS[task], "results": {"baselines": False, "explain": "off"}, "training": training}
        with tempfile.TemporaryDirectory() as folder:
            figures = weft.Pipeline(settings).run(out=Path(folder) / "run", quiet=True).figures
        metrics, account = figures["models"][0]["metrics"], figures.get("privacy") or {}
        line = {
            "task": task, "epsilon": epsilon, **{name: account.get(name) for name in ("spent", "delta", "noise")},
            **{name: metrics[name] for name in ("accuracy", "auc", "log_loss") if name in metrics},
            "parameters": figures["model"]["parameters"], "seconds": round(figures["seconds"]["model"]),
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
