"""Groups of rows in a run: what training holds the model to, and the section of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from weft.config import Settings
from weft.errors import SettingsError, listing
from weft.features.categories import FIRST, CategoryCodec
from weft.features.columns import Columns
from weft.features.groups import GroupColumns, Members
from weft.features.store import Store
from weft.features.targets import ClassTarget
from weft.models.row import GroupShift
from weft.preprocess.ingest import GROUP, CleanRows
from weft.preprocess.letters import Letters
from weft.results.audit.groups import groups_section
from weft.results.summary import positive_class
from weft.training.fairness import Fairness

AT_ONCE = 1 << 16
MOST_THRESHOLDS = 1_000


def members(clean: CleanRows, rows: np.ndarray, types: dict[str, str], by: list[str]) -> list[Members]:
    """The groups of some cleaned rows, by each column and by all at once."""
    groups = GroupColumns(by, {name: types[name] for name in by}, Letters("off"))
    codes = []
    for some in np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
        cells = clean.take(some, [GROUP + name for name in by])
        codes.append(groups.codes({name: cells[GROUP + name] for name in by}))
    return groups.members(np.concatenate(codes))


def fair_training(
    settings: Settings, columns: Columns, types: dict[str, str], clean: CleanRows, store: Store, learnt: np.ndarray
) -> tuple[Fairness | None, GroupShift | None]:
    """What training is held to by ``training.fairness``, and where the thresholds of groups will be kept.

    Args:
        types: of the columns of groups.
        learnt: rows that are learnt from.

    Raises:
        SettingsError: the target has no class that is looked for, or the model does not read what tells the groups.
        DataError: a column has one value.
    """
    fair, target = settings.training.fairness, columns.target
    if fair is None:
        return None, None
    positive = positive_class(target, settings.target.positive)
    if positive is None or not isinstance(target, ClassTarget) or settings.target.declines:
        got = "rows are declined" if settings.target.declines else f"'{target.name}' is not one"
        raise SettingsError(
            [f"training.fairness: is for a target of two classes, all answered. Got: {got}. Remove it."]
        )
    place = members(clean, np.arange(len(clean)), types, fair.by)[-1].place.astype(np.int16)
    held = Fairness.of(fair, place, positive, len(target.classes), store.target, learnt)
    return held, GroupShift(_codes(columns, fair.by), positive) if fair.how == "thresholds" else None


def _codes(columns: Columns, by: list[str]) -> dict[str, int]:
    """Of each column how many codes it has."""
    known = {codec.name: codec for codec in columns.codecs if isinstance(codec, CategoryCodec)}
    odd = [name for name in by if name not in known]
    if odd:
        raise SettingsError(
            [f"training.fairness.by: a threshold for each group needs categories that the model reads. Got "
             f"{listing(odd)}. Say features: {{{odd[0]}: category}}, or take reweigh or penalty."]
        )  # fmt: skip
    found = {name: len(known[name].categories) + FIRST for name in by}
    if np.prod(list(found.values())) > MOST_THRESHOLDS:
        raise SettingsError(
            [f"training.fairness.by: must make at most {MOST_THRESHOLDS:,} groups. Name fewer columns."]
        )
    return found


def fairness_section(
    settings: Settings, columns: Columns, types: dict[str, str], clean: CleanRows, judged: np.ndarray,
    output: np.ndarray, truth: np.ndarray, positive: int | None, thresholds: np.ndarray | None,
) -> dict[str, Any] | None:  # fmt: skip
    """The figures of groups that ``results.fairness`` asks for, or else those of the training; None where neither does.

    ``judged``: rows whose outputs and truth these are.
    """
    asked = settings.results.fairness or settings.training.fairness
    if asked is None:
        return None
    parts = members(clean, judged, types, asked.by)
    return groups_section(parts, columns.target, output, truth, positive, thresholds)
