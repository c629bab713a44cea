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
from weft.features.targets import ClassTarget, NumberTarget, Target
from weft.models.row import GroupShift
from weft.preprocess.ingest import GROUP, CleanRows
from weft.preprocess.letters import Letters
from weft.results.audit.words import groups_section
from weft.results.outcomes import Outcomes
from weft.results.summary import positive_class
from weft.training.fairness import Fairness
from weft.training_settings import FairnessSettings

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
        SettingsError: the way has no meaning for the target, or the model does not read what tells the groups.
        DataError: a column has one value.
    """
    fair, target = settings.training.fairness, columns.target
    if fair is None:
        return None, None
    if problem := _meaningless(fair, bool(settings.target.declines), target):
        raise SettingsError([f"training.fairness: {problem}"])
    positive = positive_class(target, settings.target.positive)
    place = members(clean, np.arange(len(clean)), types, fair.by)[-1].place.astype(np.int16)
    assert isinstance(target, (ClassTarget, NumberTarget))
    held = Fairness.of(fair, place, target, positive, store.target, learnt)
    if fair.how != "thresholds" or positive is None:
        return held, None
    return held, GroupShift(_codes(columns, fair.by), positive)


def _meaningless(fair: FairnessSettings, declines: bool, target: Target) -> str | None:
    """Why this way has no meaning for a target, and what to do."""
    name = f"the target '{target.name}'"
    if declines:
        return f"is for answers to every row. Of {name} some are declined. Remove it, or coverage and out_of_scope."
    if not isinstance(target, (ClassTarget, NumberTarget)):
        return f"is for one class or number a row. Got {name} of several labels a row. Remove it."
    if fair.how == "reweigh" and isinstance(target, NumberTarget):
        return f"reweigh counts rows of each class. Got {name}, a number. Take how: penalty."
    if fair.how == "thresholds" and not (isinstance(target, ClassTarget) and len(target.classes) == 2):
        return f"thresholds are for a target of two classes. Got {name}, which is not one. Take how: penalty."
    return None


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
    settings: Settings, types: dict[str, str], clean: CleanRows, judged: np.ndarray, said: Outcomes
) -> dict[str, Any] | None:
    """The figures of groups that ``results.fairness`` asks for, or else those of the training; None where neither does.

    ``judged``: rows of which this is ``said``.
    """
    asked = settings.results.fairness or settings.training.fairness
    if asked is None:
        return None
    return groups_section(members(clean, judged, types, asked.by), said)
