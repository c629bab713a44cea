"""The smallest change that flips the answer: which words left out, or which values changed, and to what.

Every single change is tried at once; while none flips the answer the best is kept and the next is tried beside it,
and what turns out not to be needed is taken back (Wachter 2018, as greedy search over changes a person can make).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from weft.features.codecs import CategoryCodec, Codec, NumberCodec, TextCodec
from weft.preprocess.clean import CleanBatch
from weft.results.explain.game import Games
from weft.results.explain.players import in_words

MOST_CHANGES = 4
MOST_WORDS = 64
MOST_VALUES = 16
CLEARLY = 0.01  # by so much another answer must be more probable


@dataclass(frozen=True)
class Change:
    """A word left out (``to`` is None), or a value that becomes another."""

    column: str
    was: str
    to: str | None
    value: object = None
    word: int | None = None
    size: float = 0.0
    """How far it goes: of a number the share of its quantiles that lie between; a word less is the least."""


@dataclass(frozen=True)
class Counterfactual:
    """The changes, and the class that the model then names with its probability."""

    changes: tuple[Change, ...]
    answer: int
    probability: float


def counterfactual(games: Games, clean: CleanBatch, row: int) -> Counterfactual | None:
    """For one row of a model of classes; None where no few changes flip the answer, or the model gives numbers."""
    if games.model.kind != "class":
        return None
    was = int(games.output[row].argmax())
    choices = _choices(games, clean, row)
    taken: list[Change] = []
    for _ in range(MOST_CHANGES):
        free = [c for c in choices if all((c.column, c.word) != (t.column, t.word) for t in taken)]
        if not free:
            return None
        output = _predict(games, clean, row, [[*taken, c] for c in free])
        best = int(output[:, was].argmin())
        flipped = np.flatnonzero(output.max(axis=1) - output[:, was] > CLEARLY)
        if len(flipped):
            best = min(flipped.tolist(), key=lambda i: (free[i].size, output[i, was]))
        taken.append(free[best])
        if len(flipped):
            return _fewest(games, clean, row, taken, was)
    return None


def _fewest(games: Games, clean: CleanBatch, row: int, taken: list[Change], was: int) -> Counterfactual:
    """Without the changes that are not needed."""
    for change in taken[:-1]:
        fewer = [c for c in taken if c is not change]
        output = _predict(games, clean, row, [fewer])[0]
        if output.max() - output[was] > CLEARLY:
            taken = fewer
    output = _predict(games, clean, row, [taken])[0]
    return Counterfactual(tuple(taken), int(output.argmax()), float(output.max()))


def _choices(games: Games, clean: CleanBatch, row: int) -> list[Change]:
    found: list[Change] = []
    for codec in games.players.columns.codecs:
        cell = clean.columns[codec.name][row].as_py()
        players = games.players.parts[codec.name].players[row]
        if isinstance(codec, TextCodec):
            found += [Change(codec.name, p.shown, None, word=i) for i, p in enumerate(players[:MOST_WORDS])]
            continue
        shown, values = in_words(codec, cell), _values(codec)
        here = np.searchsorted(np.array(values), cell) if isinstance(cell, float) else None
        for place, value in enumerate(values):
            if (told := in_words(codec, value)) != shown:
                far = 0.5 if here is None else abs(place - here) / len(values)
                found.append(Change(codec.name, shown, told, value, size=float(far)))
    return found


def _values(codec: Codec) -> Sequence[object]:
    """Values that a cell could have instead: quantiles of the training rows, or its most frequent categories."""
    if isinstance(codec, CategoryCodec):
        return codec.categories[:MOST_VALUES]
    if not isinstance(codec, NumberCodec) or not len(codec.edges):
        return ()
    values = np.unique(np.concatenate([codec.edges * codec.deviation + codec.mean, codec.spikes]))
    chosen = values[np.unique(np.linspace(0, len(values) - 1, MOST_VALUES).round().astype(int))]
    return [float(f"{v:.6g}") for v in chosen]


def _predict(games: Games, clean: CleanBatch, row: int, changed: list[list[Change]]) -> np.ndarray:
    """What the model says [N, C] of a row with each list of changes made."""
    columns: dict[str, pa.Array] = {}
    for codec in games.players.columns.codecs:
        cells = [clean.columns[codec.name][row].as_py()] * len(changed)
        for place, changes in enumerate(changed):
            mine = [c for c in changes if c.column == codec.name]
            if isinstance(codec, TextCodec) and mine:
                part = games.players.words[codec.name]
                present = np.ones(len(part.players[row]), bool)
                present[[c.word for c in mine if c.word is not None]] = False
                cells[place] = part.text(row, present)
            elif mine:
                cells[place] = mine[-1].value
        columns[codec.name] = pa.array(cells, clean.columns[codec.name].type)
    codes = games.players.columns.encode(CleanBatch(np.arange(len(changed)), columns, []))
    return games.output_of(codes, len(changed))
