"""The figures of a run for each group of rows: per language, or any column that says to which group a row belongs.

A group of few rows gets its figures too, with an interval as wide as they leave it, and is marked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from weft.features.groups import MISSING, MOST_GROUPS, OTHERS
from weft.results.metrics import with_intervals
from weft.results.outcomes import Outcomes

SHOWN = {"class": ("accuracy", "f1"), "labels": ("micro_f1", "macro_f1"), "number": ("mae", "r2")}
SMALL = 100
LEAST_SHARE = 0.05
SAMPLE = 1_000
LETTERS = 200
_STANDARD = {"yue": "zh", "wuu": "zh", "pcm": "en"}
"""Close relatives that short texts are taken for, counted with the language they are written like."""


def by_group(names: Sequence[str | None], said: Outcomes) -> list[dict[str, Any]]:
    """Rows, two metrics with intervals, and whether the group is small: of each group, the largest first."""
    given = [MISSING if name is None else name for name in names]
    kept = {name for name, _ in Counter(given).most_common(MOST_GROUPS)}
    groups = np.array([name if name in kept else OTHERS for name in given], object)
    table = []
    for name, rows in Counter(groups.tolist()).most_common():
        metrics = said[groups == name].metrics()
        found = with_intervals({key: metrics[key] for key in SHOWN[said.target.type]}, rows, width=said.width)
        table.append(
            {"group": name, "rows": rows, "small": rows < SMALL, "metrics": {k: e.to_dict() for k, e in found.items()}}
        )
    return table


def languages(texts: Sequence[pa.Array]) -> list[str | None] | None:
    """The language of each row by its texts, as an ISO code; None where they are (nearly) all of one.

    Those of less than a twentieth of the rows are counted as others: of short texts a few are always mistaken.
    """
    joined = [" ".join(filter(None, cells))[:LETTERS] for cells in zip(*(t.to_pylist() for t in texts), strict=True)]
    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    if len(joined) > SAMPLE:
        drawn = np.random.default_rng(0).choice(len(joined), SAMPLE, replace=False)
        if len(_common(_named(model, [joined[i] for i in drawn]))) < 2:
            return None
    found = _named(model, joined)
    common = _common(found)
    return [name if name is None or name in common else OTHERS for name in found] if len(common) > 1 else None


def _named(model: LanguageIdentifier, texts: Sequence[str]) -> list[str | None]:
    said = (model.classify(text)[0] if any(map(str.isalpha, text)) else None for text in texts)
    return [None if name is None else _STANDARD.get(name, name) for name in said]


def _common(names: Sequence[str | None]) -> set[str]:
    return {n for n, count in Counter(names).items() if n is not None and count >= LEAST_SHARE * len(names)}
