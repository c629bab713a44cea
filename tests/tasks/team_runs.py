"""Runs of losses that look beyond a row, by one process or by those that torchrun starts (``FOLDER``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tests.tables import numeric, pictured
from tests.tasks.test_pair_task import table as pairs
from tests.tasks.test_ranking_task import log

from weft import pipeline, processes
from weft.config import from_mapping
from weft.data.table import Table
from weft.features.batching import Batch
from weft.progress import Silent
from weft.tasks import ranking
from weft.training import private, regularise
from weft.training.parallel import Helped


def grouped() -> pa.Table:
    """Rows of three groups, one of them rare, and of two classes, one of them rare."""
    table = numeric(200)
    group = np.random.default_rng(1).choice(["a", "b", "c"], 200, p=[0.6, 0.3, 0.1])
    rare = np.where(table["y"].to_numpy() > 7.5, "rare", "usual")
    return (
        table.drop_columns(["y", "label"])
        .append_column("label", pa.array(rare))
        .append_column("group", pa.array(group))
    )


NUMBERS = {"a": "number", "b": "number", "c": "number", "group": "off"}
RANKING = {"target": {"column": "item", "type": "ranking", "user": "user", "time": "when"}}
PAIRS = {"target": {"column": "zh", "type": "embedding"}, "features": {"en": "text"}}
LABEL = {"target": "label", "features": NUMBERS, "model": {"copies": 1}}
JOBS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ranking": (log, RANKING),
    "ranking of drawn items": (log, RANKING | {"training": {"parallel": {"shard": True}}}),
    "embedding": (pairs, PAIRS),
    "embedding in shards": (pairs, PAIRS | {"training": {"parallel": {"shard": True}}}),
    "private": (grouped, LABEL | {"training": {"privacy": {"epsilon": 2}, "batch_rows": 20}}),
    "mixup": (grouped, LABEL | {"training": {"mixup": 0.4, "class_weight": "balanced"}}),
    "cutmix": (lambda: pictured(100).select(["photo", "side"]), {"target": "side", "training": {"cutmix": 1.0}}),
    "penalty": (grouped, LABEL | {"training": {"fairness": {"by": "group", "how": "penalty"}}}),
    "consistency": (grouped, LABEL | {"training": {"consistency": 2.0, "class_weight": "balanced"}}),
}
BASE = {"model": {"width": 16, "layers": 1, "dropout": 0.0}, "results": {"baselines": False}}
TRAINING = {"epochs": 1, "batch_rows": 24, "precision": "float32", "learning_rate": 5e-3}
"""24 rows do not divide the rows of any: the last step of an epoch has few."""


twice = regularise._twice


def unlike(batch: Batch) -> Batch:
    """Every row twice, the second time a little otherwise, as dropout would have it, the same in all processes."""
    both = twice(batch)
    for fields in both.columns.values():
        fields["value"][batch.rows :] += 0.3
    return both


def train(name: str, folder: Path) -> None:
    make, given = JOBS[name]
    settings = {key: {**BASE.get(key, {}), **given.get(key, {})} for key in ("model", "results")}
    settings |= {"training": {**TRAINING, **given.get("training", {})}}
    settings |= {key: given[key] for key in ("target", "features") if key in given}
    ranking.FULL, ranking.DRAWN = (2, 6) if "drawn" in name else (20_000, 4_096)
    # the same rows and the same noise in every run
    private.secrets.token_bytes = bytes  # type: ignore[assignment]
    regularise._twice = unlike
    pipeline.run(from_mapping(settings), Table.of(make()), folder / name, Silent())


def main() -> None:
    from weft.training.team import joined

    with joined():
        for name in JOBS:
            try:
                train(name, Path(sys.argv[1]))
            except Helped:
                assert processes.number()
            else:
                assert not processes.number()


if __name__ == "__main__":
    main()
