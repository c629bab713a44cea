"""Rows with pictures as the report shows them: some that came out right, and the surest of those that did not."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from weft.features.targets import ClassTarget, LabelsTarget, NumberTarget
from weft.results.outcomes import Outcomes

RIGHT, WRONG = 6, 12
MOST_PIXELS = 96  # a side, so that the page stays small


def chosen_rows(said: Outcomes) -> np.ndarray:
    """Places of the rows to show: of the right ones some from all over, of the wrong ones the surest.

    Of numbers the nearest and the farthest.
    """
    wrong = said.wrong
    right, sure = wrong == 0, wrong
    if isinstance(said.target, ClassTarget):
        sure = said.probabilities.max(axis=1)
    elif isinstance(said.target, LabelsTarget):
        sure = (said.given != said.truth).sum(axis=1).astype(float)
    else:
        right = wrong <= np.median(wrong)
    good, bad = np.flatnonzero(right), np.flatnonzero(~right)
    spread = np.unique(np.linspace(0, len(good) - 1, RIGHT).astype(int)) if len(good) else good
    return np.concatenate([good[spread], bad[np.argsort(-sure[bad], kind="stable")[:WRONG]]])


def shown(said: Outcomes, pictures: dict[str, list]) -> list[dict[str, Any]]:
    """Of each row what it truly is, what was predicted, whether that is right, and its pictures as data addresses.

    ``pictures``: of each image column the picture [S, S] or [S, S, 3] of every row, None where there is none.
    """
    rows, wrong = [], said.wrong
    for place in range(len(said)):
        told: dict[str, Any]
        if isinstance(said.target, NumberTarget):
            real, out = said.true_numbers[place], float(said.output[place])
            told = {"truth": f"{real:.4g}", "prediction": f"{out:.4g}", "right": None, "probability": None}
        else:
            truth, given = (said.named(part[place]) or "none" for part in (said.truth, said.given))
            sure = float(said.probabilities[place].max()) if isinstance(said.target, ClassTarget) else None
            told = {"truth": truth, "prediction": given, "right": not wrong[place], "probability": sure}
        sources = [{"column": n, "source": data_address(p[place])} for n, p in pictures.items() if p[place] is not None]
        rows.append({**told, "pictures": sources})
    return rows


def data_address(pixels: np.ndarray) -> str:
    """A picture [S, S] or [S, S, 3] within the page itself."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
