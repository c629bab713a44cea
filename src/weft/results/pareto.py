"""What several models of the same work cost and give, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from weft.features.columns import Columns
from weft.inference.predict import predict_codes
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch

FEW = 32
"""Rows that a model answers before its time is taken: its first call takes longer."""


@dataclass(frozen=True)
class Point:
    """What a model of a kind costs and gives."""

    kind: str
    quality: float | None
    """The run's figure on validation rows; None where nothing can be judged."""
    loss: float | None
    """Points of it that are lost beside the first."""
    milliseconds: float | None
    """CPU time a row."""
    megabytes: float


@dataclass(frozen=True)
class Figure:
    """What models are judged by."""

    title: str
    higher: bool
    share: bool

    def loss(self, before: float, after: float) -> float:
        """Points: of a share hundredths of the whole, else of what it was."""
        lost = (before - after) if self.higher else (after - before)
        return 100 * lost / (1.0 if self.share else abs(before) or 1.0)


def timed_answers(
    columns: Columns, model: RowModels, batches: Sequence[CleanBatch], exact: bool = False
) -> tuple[np.ndarray, float]:
    """What a model says of clean rows, and CPU milliseconds a row; what makes codes of them is not counted."""
    few = batches[0].chosen(np.arange(len(batches[0].rows)) < FEW)
    predict_codes(model, columns.encode(few), len(few.rows), exact)
    codes = [(columns.encode(batch), len(batch.rows)) for batch in batches]
    started = time.process_time()
    output = np.concatenate([predict_codes(model, read, rows, exact) for read, rows in codes])
    return output, 1000 * (time.process_time() - started) / max(1, len(output))


def pareto(kind: str, figure: Figure | None, rows: int, points: Sequence[Point]) -> dict[str, Any]:
    """As a report holds it; ``kind``: which of the points its run is."""
    title = None if figure is None else figure.title
    return {"kind": kind, "figure": title, "rows": rows, "points": [asdict(p) for p in points]}


def pareto_lines(found: dict[str, Any]) -> list[str]:
    """What each kind costs and gives, a line each."""
    figure = f"{found['figure']} ({found['rows']:,} rows)" if found["figure"] else "not measured"
    lines = [f"{'':10} {'MB':>9}  {'ms a row':>9}  {figure}"]
    for place, point in enumerate(found["points"]):
        told = ""
        if point["quality"] is not None:
            told = f"{point['milliseconds']:9.3f}  {point['quality']:.4f}"
            told += f"  ({0.0 - point['loss']:+.2f} points)" if place else ""
        lines.append(f"{point['kind']:10} {point['megabytes']:9.1f}  {told}".rstrip())
    return lines
