"""``weft search RUN INDEX "QUERY"``"""

from __future__ import annotations

from pathlib import Path

from weft.cli import answer
from weft.errors import UsageError
from weft.exchange import open_text_model
from weft.inference.embed import Embedder, nearest


def search(run: Path, index: Path, query: str, /, *, top: int = 10, json: bool = False) -> None:
    """Find the rows of an index whose meaning is nearest to a query.

    Args:
        run: The model that made the index.
        index: The file that weft embed wrote.
        query: The words to look for, in any language the model reads.
        top: How many rows to show.
        json: One JSON object on stdout.
    """
    if top < 1:
        raise UsageError(f"--top: must be at least 1. Got {top}.")
    if not query.strip():
        raise UsageError("the query must hold words. Got an empty one.")
    vectors, _ = Embedder(open_text_model(run))([query])
    scores, rows = nearest(index, vectors[0], top)
    found = [{"score": round(float(s), 4), **r} for s, r in zip(scores, rows.to_pylist(), strict=True)]
    lines = []
    for entry in found:
        words = " | ".join(str(v) for k, v in entry.items() if k not in ("score", "row"))
        lines.append(f"{entry['score']:>7.3f}  row {entry['row']:<8} {words[:160]}")
    answer(json, {"query": query, "found": found}, lines)
