"""Rows with pictures as the report shows them: some that came out right, and the surest of those that did not."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from weft.features.targets import ClassTarget, LabelsTarget, Target

RIGHT, WRONG = 6, 12
MOST_PIXELS = 96  # a side, so that the page stays small


def chosen_rows(target: Target, output: np.ndarray, truth: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Places of the rows to show: of the right ones some from all over, of the wrong ones the surest.

    Of numbers the nearest and the farthest. ``output`` and ``truth`` as they are judged.
    """
    if isinstance(target, ClassTarget):
        found = output[:, : len(target.classes)]
        right, sure = found.argmax(axis=1) == truth, found.max(axis=1)
    elif isinstance(target, LabelsTarget):
        assert thresholds is not None
        gap = np.abs((output >= thresholds).astype(int) - truth).sum(axis=1)
        right, sure = gap == 0, gap.astype(float)
    else:
        sure = np.abs(output - (truth.astype(np.float64) * target.deviation + target.mean))
        right = sure <= np.median(sure)
    good, bad = np.flatnonzero(right), np.flatnonzero(~right)
    spread = np.unique(np.linspace(0, len(good) - 1, RIGHT).astype(int)) if len(good) else good
    return np.concatenate([good[spread], bad[np.argsort(-sure[bad], kind="stable")[:WRONG]]])


def shown(
    target: Target, output: np.ndarray, truth: np.ndarray, thresholds: np.ndarray | None, pictures: dict[str, list]
) -> list[dict[str, Any]]:
    """Of each row what it truly is, what was predicted, whether that is right, and its pictures as data addresses.

    ``pictures``: of each image column the picture [S, S] or [S, S, 3] of every row, None where there is none.
    """
    rows = []
    for place, (out, true) in enumerate(zip(output, truth, strict=True)):
        told: dict[str, Any]
        if isinstance(target, ClassTarget):
            best = int(out[: len(target.classes)].argmax())
            told = {"truth": target.classes[true], "prediction": target.classes[best], "right": bool(best == true),
                    "probability": float(out[best])}  # fmt: skip
        elif isinstance(target, LabelsTarget):
            given = out >= thresholds
            told = {"truth": _names(target, true > 0), "prediction": _names(target, given),
                    "right": bool((given == (true > 0)).all()), "probability": None}  # fmt: skip
        else:
            real = float(true) * target.deviation + target.mean
            told = {"truth": f"{real:.4g}", "prediction": f"{float(out):.4g}", "right": None, "probability": None}
        sources = [{"column": n, "source": data_address(p[place])} for n, p in pictures.items() if p[place] is not None]
        rows.append({**told, "pictures": sources})
    return rows


def _names(target: LabelsTarget, there: np.ndarray) -> str:
    return ", ".join(np.array(target.classes)[there]) or "none"


def data_address(pixels: np.ndarray) -> str:
    """A picture [S, S] or [S, S, 3] within the page itself."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
