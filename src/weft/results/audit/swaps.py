"""Counterfactual tests of texts: the same row with another identity in its words (Garg 2019, Kusner 2017).

A model that treats people alike answers both the same way, unless the identity truly matters to the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from weft.data.split import uniform
from weft.features.identities import Identities
from weft.preprocess.clean import CleanBatch
from weft.results.audit.figures import LEAST, mean_of
from weft.results.audit.words import Said
from weft.results.groups import SMALL

MOST_ROWS = 1_000
"""Rows of each kind of identity that are asked about: the first that name it."""
MOST_SEEN = 100_000
WAYS = 4
"""Other identities that a row's words are changed to, drawn by the row's number."""
EXAMPLES = 3
_SEED = 29
_MOVED = (
    "{kind}: with the words of another group, its answer for {of} moves by {gap:.1f} points on average ({low:.1f} to "
    "{high:.1f}), and {flips:.1%} of the answers become another ({rows:,} rows)."
)
_MOVED_NUMBER = (
    "{kind}: with the words of another group, its answer moves by {gap:.4g} on average ({low:.4g} to {high:.4g}; "
    "{rows:,} rows)."
)
_MOVED_SURE = (
    "{kind}: with the words of another group, how sure it is of its answer moves by {gap:.1f} points on average "
    "({low:.1f} to {high:.1f}), and {flips:.1%} of the answers become another ({rows:,} rows)."
)
_MORE = "With {word} in the place of another it says {of} more often, by {gap:.1f} points ({low:.1f} to {high:.1f})."
_LESS = "With {word} in the place of another it says {of} less often, by {gap:.1f} points ({low:.1f} to {high:.1f})."
_HIGHER = "With {word} in the place of another it says more, by {gap:.4g} ({low:.4g} to {high:.4g})."
_LOWER = "With {word} in the place of another it says less, by {gap:.4g} ({low:.4g} to {high:.4g})."
_FEW = "{kind}: only {rows:,} rows name it, so that the figures may be chance."
_NOTE = (
    "Words were changed by our own English and Chinese lists in rows that name an identity ({named:,} of {seen:,} "
    "looked at). A change may matter rightly (a mother of twins); look at the examples before judging."
)
Predict = Callable[[dict[str, pa.Array], int], np.ndarray]
"""Clean columns of some rows -> answers [N, C] or [N]."""


@dataclass
class _Asked:
    """A row and one change of it: kind, from and to which group, of which row, and the answers to both."""

    kind: str
    a: int
    b: int
    row: int
    texts: tuple[str, str]
    before: Any = None
    after: Any = None


def swaps_section(
    batches: Iterable[CleanBatch], texts: Sequence[str], predict: Predict, classes: Sequence[str], of: int | None
) -> dict[str, Any] | None:
    """How answers move when identity words are exchanged; None where no row names an identity.

    Args:
        batches: cleaned rows with every column that the model reads.
        texts: the text columns, which are changed alike.
        classes: of the target; empty where it is a number.
        of: the class whose probability is followed; None: the one that the row is given.
    """
    words, asked, seen, named = Identities(), [], 0, 0
    counts: dict[str, int] = {}
    for batch in batches:
        changes: list[_Asked] = []
        places: list[int] = []
        cells = {name: batch.columns[name].to_pylist() for name in texts}
        for place, number in enumerate(batch.rows.tolist()):
            own = [cells[name][place] or "" for name in texts]
            chosen = _drawn(words.swaps(own), number)
            named += bool(chosen)
            chosen = [c for c in chosen if counts.get(c[0], 0) < MOST_ROWS]
            for kind in {c[0] for c in chosen}:
                counts[kind] = counts.get(kind, 0) + 1
            for kind, a, b in chosen:
                changed = " ".join(words.swapped(text, kind, a, b) for text in own)
                changes.append(_Asked(kind, a, b, number, (" ".join(own), changed)))
                places.append(place)
        seen += len(batch.rows)
        if changes:
            _ask(changes, places, batch, texts, predict, words)
            asked += changes
        if seen >= MOST_SEEN:
            break
    if not asked:
        return None
    kinds = [_kind(kind, [c for c in asked if c.kind == kind], words, classes, of) for kind in sorted(counts)]
    said = [sentence for found in kinds for sentence in _in_words(found)]
    whole = _kind("", asked, words, classes, of)
    return {"seen": seen, "named": named, "kinds": kinds, **{k: whole[k] for k in ("of", "gap", "flips")},
            "said": [*said, (_NOTE, {"named": named, "seen": seen})]}  # fmt: skip


def _drawn(ways: list[tuple[str, int, int]], row: int) -> list[tuple[str, int, int]]:
    """At most ``WAYS`` changes of each kind."""
    keys = uniform(_SEED, row * 1_000 + np.arange(len(ways)))
    taken: dict[str, int] = {}
    found = []
    for place in np.argsort(keys).tolist():
        kind = ways[place][0]
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= WAYS:
            found.append(ways[place])
    return found


def _ask(
    changes: list[_Asked], places: list[int], batch: CleanBatch, texts: Sequence[str], predict: Predict,
    words: Identities,
) -> None:  # fmt: skip
    """Fill in the answers to the rows as they are and as they are changed."""
    own = {name: array.take(pa.array(places)) for name, array in batch.columns.items()}
    other = dict(own)
    for name in texts:
        cells = own[name].to_pylist()
        other[name] = pa.array(
            [t and words.swapped(t, c.kind, c.a, c.b) for t, c in zip(cells, changes, strict=True)], pa.string()
        )
    for change, before, after in zip(changes, predict(own, len(places)), predict(other, len(places)), strict=True):
        change.before, change.after = before, after


def _kind(kind: str, asked: list[_Asked], words: Identities, classes: Sequence[str], of: int | None) -> dict[str, Any]:
    """The figures of one kind of identity ("": of all). A row's changes are one: its mean."""
    before, after = (np.stack([np.asarray(getattr(c, n), np.float64) for c in asked]) for n in ("before", "after"))
    rows = np.array([c.row for c in asked])
    flips = np.zeros(len(asked))
    if classes:
        flips = (before.argmax(axis=1) != after.argmax(axis=1)).astype(np.float64)
        place = before.argmax(axis=1) if of is None else np.full(len(asked), of)
        before, after = (x[np.arange(len(asked)), place] for x in (before, after))
    moved = after - before
    order = np.argsort(-np.abs(moved), kind="stable")[:EXAMPLES]
    shifts = []
    for group in sorted({c.b for c in asked if c.kind == kind}):
        mine = np.array([c.b == group for c in asked])
        shifts.append({
            "word": words.name(kind, group), "word_zh": words.name(kind, group, ascii=False),
            "rows": len(np.unique(rows[mine])), "shift": mean_of(_by_row(moved[mine], rows[mine])).to_dict(),
        })  # fmt: skip
    return {
        "kind": kind, "rows": len(np.unique(rows)), "swaps": len(asked), "of": None if of is None else classes[of],
        "number": not classes, "gap": mean_of(_by_row(np.abs(moved), rows)).to_dict(),
        "flips": mean_of(_by_row(flips, rows)).to_dict(), "shifts": shifts,
        "examples": [
            {"text": asked[i].texts[0], "changed": asked[i].texts[1],
             "before": float(before[i]), "after": float(after[i])}
            for i in order.tolist()
        ],
    }  # fmt: skip


def _by_row(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The mean of each row's values."""
    _, place, counts = np.unique(rows, return_inverse=True, return_counts=True)
    return np.bincount(place, values) / counts


def _in_words(found: dict[str, Any]) -> list[Said]:
    kind, scale = found["kind"], 1 if found["number"] else 100
    said: list[Said] = []
    if found["gap"]["low"] is not None:
        ends = {n: scale * found["gap"][k] for n, k in (("gap", "value"), ("low", "low"), ("high", "high"))}
        values = {"kind": kind, "rows": found["rows"], "flips": found["flips"]["value"], "of": found["of"], **ends}
        said.append((_MOVED_NUMBER if found["number"] else _MOVED if found["of"] else _MOVED_SURE, values))
    if found["rows"] < SMALL:
        said.append((_FEW, {"kind": kind, "rows": found["rows"]}))
    sure = [s for s in found["shifts"] if s["rows"] >= LEAST and s["shift"]["low"] is not None]
    sure = [s for s in sure if not s["shift"]["low"] <= 0 <= s["shift"]["high"] and (found["of"] or found["number"])]
    for s in sorted(sure, key=lambda s: -abs(s["shift"]["value"]))[:2]:
        up, (low, high) = s["shift"]["value"] > 0, sorted(scale * abs(s["shift"][k]) for k in ("low", "high"))
        phrase = (_HIGHER if up else _LOWER) if found["number"] else (_MORE if up else _LESS)
        values = {"word": s["word"], "of": found["of"], "gap": scale * abs(s["shift"]["value"])}
        said.append((phrase, {**values, "low": low, "high": high}))
    return said
