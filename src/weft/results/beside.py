"""A model and simpler ones on the same rows: what ``report.json`` holds of each, and who is ahead, how surely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weft.results.metrics import METRICS, Estimate, Weighted, difference, with_intervals


@dataclass
class Judged:
    """One model on the judged rows. ``key``: "weft" is ours."""

    key: str
    title: str
    estimates: dict[str, Estimate]
    metrics: dict[str, Weighted] = field(default_factory=dict)
    """The same as functions of the weights of the rows."""
    note: str = ""
    seconds: float = 0.0
    """Of training."""

    @classmethod
    def of(
        cls, key: str, title: str, metrics: dict[str, Weighted], rows: int, note: str = "", seconds: float = 0.0,
        width: int = 1,
    ) -> Judged:  # fmt: skip
        """With the intervals of the metrics; ``width`` as in :func:`with_intervals`."""
        return cls(key, title, with_intervals(metrics, rows, width=width), metrics, note, seconds)

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key, "title": self.title, "note": self.note, "seconds": round(self.seconds, 2),
            "metrics": {k: e.to_dict() for k, e in self.estimates.items()},
        }  # fmt: skip


def beside(ours: Judged, others: Sequence[Judged], rows: int, keys: Sequence[str]) -> dict[str, Any]:
    """All models, our differences to each of the others in ``keys`` (more is better), and who is ahead in words."""
    gaps = {o.key: {k: difference(ours.metrics, o.metrics, k, rows) for k in keys} for o in others}
    lines = []
    for key in keys if others else ():
        rival = max(others, key=lambda o: o.metrics[key](np.ones(rows)))
        gap = gaps[rival.key][key]
        how = "within chance of" if gap.low <= 0 <= gap.high else "better than" if gap.value > 0 else "worse than"
        lines.append(
            f"In {METRICS[key].title} it is {how} the best simple way ({rival.title}): a difference of "
            f"{100 * gap.value:+.1f} points (95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f})."
        )
    return {
        "models": [m.to_dict() for m in (ours, *others)], "verdict": {"lines": lines},
        "differences": {o: {k: e.to_dict() for k, e in gap.items()} for o, gap in gaps.items()},
    }  # fmt: skip
