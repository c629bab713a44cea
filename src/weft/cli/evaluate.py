"""``weft evaluate RUN DATA``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import Json, Memory, answer
from weft.inference.predict import without_in_words
from weft.memory import limit
from weft.results.abstention import abstention_in_words
from weft.results.metrics import METRICS
from weft.runs.opening import open_run


def evaluate(
    run: Path,
    data: str,
    /,
    *,
    allow_missing: bool = False,
    all_rows: bool = False,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Judge a run on a table that holds the target; a language model on texts.

    Args:
        run: The run folder.
        data: File, glob, folder or address. On the very data of the training only the test rows count.
        allow_missing: Go on without a column even if another of a like name may be it.
        all_rows: Judge on every row even on the data of the training (too good to be true).
    """
    limit(memory)
    found = open_run(run).evaluate(data, allow_missing, all_rows)
    lines = [f"{found['rows']:,} rows ({found['part']})"]
    if found.get("absent"):
        lines.append(without_in_words(found["absent"]))
    if found["rejected"]:
        lines.append(f"{found['rejected']:,} rows set aside")
    lines += found.get("said", [])
    if found.get("unknown_class"):
        lines.append(f"{found['unknown_class']:,} rows of a class that training never saw, not judged")
    for key, e in found["metrics"].items():
        metric = METRICS[key]
        scale, unit, digits = (100, " %", ".1f") if metric.percent else (1, "", ".4g")
        value, low, high = ("–" if e[k] is None else format(scale * e[k], digits) for k in ("value", "low", "high"))
        lines.append(f"{metric.title:<18} {value:>8}{unit}  ({low} to {high})   {metric.meaning}")
    if found.get("declines"):
        lines += abstention_in_words(found["declines"])
    answer(json, found, lines)
