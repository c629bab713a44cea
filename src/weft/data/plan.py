"""The plan of a table: the type of each column, the target's, what is left out and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from weft.config import Settings
from weft.data import columns as kinds
from weft.data.histories import history_separator, is_history
from weft.data.labels import guess_labels, guess_separator, is_labels, kind_in_words
from weft.data.personal import masked
from weft.data.pictures import PicturePlan, kind_of, needs_range
from weft.data.table import Table
from weft.data_settings import FeatureSettings
from weft.errors import DataError, SettingsError, did_you_mean, listing

LOOKED_AT = 2_000
"""First rows in which a text that comes again, or the format of a time, is looked for."""


@dataclass
class Plan:
    """What the look at the data decided: the type of each column used, and why the others are not."""

    target: str
    target_type: str
    target_reason: str = ""
    types: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    formats: dict[str, str | None] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    """Columns read beside the model's (for the split or the report), and as what."""
    separator: str | None = None
    """Between the labels of a target's text cells."""
    pictures: dict[str, PicturePlan] = field(default_factory=dict)
    """How the columns of pictures are read."""
    separators: dict[str, str | None] = field(default_factory=dict)
    """Between the items of a history's text cells."""
    groups: dict[str, str] = field(default_factory=dict)
    """Columns that say to which group a row belongs, for the report or for fairness, each a category or a number."""

    def use(self, name: str, kind: str, reason: str) -> None:
        """Read a column."""
        self.types[name], self.reasons[name] = kind, reason

    def to_dict(self) -> dict[str, Any]:
        """For a person or a program that asks before a run."""
        return {
            "target": self.target, "target_type": self.target_type, "target_reason": self.target_reason,
            "columns": {n: {"type": t, "reason": self.reasons.get(n, "as set")} for n, t in self.types.items()},
            "left_out": self.left_out, "warnings": self.warnings,
        }  # fmt: skip


def look(settings: Settings, table: Table) -> Plan:
    """Guess what is not said, from a sample of the rows. Raises DataError, SettingsError with all problems."""
    head = table.sample(kinds.SAMPLE_ROWS)
    if problems := absent(settings, table) + _unreadable(settings, table):
        raise SettingsError(problems)
    target = settings.target.name
    if head.num_rows == 0:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    if all(v is None or v != v or kinds.says_missing(str(v)) for v in head.column(target).to_pylist()):
        raise DataError(
            f"{table.name}: the target '{target}' is missing in every row looked at. Choose another target."
        )
    plan = _plan_target(settings, head.column(target))
    if settings.training.class_weight is not None and plan.target_type != "class":
        raise SettingsError(
            [f"training.class_weight: is for a target of classes. '{target}' is {kind_in_words(plan.target_type)}. "
             f"Remove it."]
        )  # fmt: skip
    for name in table.columns:
        if name != target:
            _add_column(plan, settings, table, name, head)
    classes = len(set(head.column(target).to_pylist())) if plan.target_type == "class" else 0
    if classes > max(20, 0.5 * head.num_rows):
        plan.warnings.append(
            f"the target '{target}' has {classes:,} classes in {head.num_rows:,} rows: nearly every row is a class of "
            f"its own, of which nothing can be learnt. Choose another target, or set target.type: number"
        )
    if settings.results.language is not None:
        plan.groups[settings.results.language] = "category"
    plan.groups |= group_types(table, settings.grouped_by)
    if not plan.types:
        reasons = "; ".join(f"'{n}': {r}" for n, r in plan.left_out.items())
        raise DataError(f"{table.name}: no column is left to read beside the target. {reasons or 'There is no other'}.")
    add_split(plan, settings)
    if (redact := settings.preprocess.redact) is not None:  # what a column always holds may be a name
        plan.left_out = {name: masked(reason, redact.kinds) for name, reason in plan.left_out.items()}
        plan.warnings = [masked(warning, redact.kinds) for warning in plan.warnings]
    return plan


def _unreadable(settings: Settings, table: Table) -> list[str]:
    """A problem for each column that cannot be read as is said."""
    target, problems = settings.target.name, []
    if target in settings.features and settings.features[target].type != "off":
        problems.append(f"features.{target}: the target cannot be read as well. Remove it from features.")
    for name, what in ((target, "the target"), *((f, f"features.{f}") for f in settings.features)):
        given = settings.features.get(name)
        if name not in table.columns or (given and given.type == "off"):
            continue
        kind = table.columns[name]
        if given and given.type == "image":
            problems += _picture_problems(table.name, name, given, kind)
        elif (kinds.readable(kind) and not pa.types.is_nested(kind)) or (
            name != target and given and given.type == "sequence" and is_history(kind)
        ):
            continue
        elif name != target or settings.target.type not in (None, "labels") or not is_labels(kind):
            problems.append(f"{table.name}: {what} '{name}' must hold single values. Got {kind}.")
    return problems + [
        f"features.{name}.vocabulary: is for texts that are written (target.next_token). Remove it."
        for name, given in settings.features.items() if given.vocabulary is not None
    ]  # fmt: skip


def _picture_problems(table: str, name: str, given: FeatureSettings, kind: pa.DataType) -> list[str]:
    if kind_of(kind) is None and not pa.types.is_null(kind):
        return [f"{table}: features.{name} must hold paths, bytes or arrays of pictures. Got {kind}."]
    if needs_range(kind) and given.range is None:
        return [f"features.{name}.range: arrays of {kind} must say what is black and white, as in range: [0, 1]."]
    return []


def _add_column(plan: Plan, settings: Settings, table: Table, name: str, head: pa.Table) -> None:
    """Whether a column beside the target is read, and as what."""
    given, split = settings.features.get(name), settings.data.split
    guess = kinds.guess(name, head.column(name))
    if given is not None and given.type == "off":
        plan.left_out[name] = "as set"
    elif given is None and name == split.column:
        plan.left_out[name] = "it is the split"
    elif given is None and guess.type == "off":
        plan.left_out[name] = guess.reason
    else:
        plan.use(name, *((given.type, "as set") if given is not None else (guess.type, guess.reason)))
        if plan.types[name] == "image":
            plan.pictures[name] = PicturePlan(given.size, given.range) if given else PicturePlan()
            return
        if warning := kinds.leaks(name, head.column(name), head.column(plan.target)):
            plan.warnings.append(warning)
    if plan.types.get(name) == "sequence":
        plan.separators[name] = separator_of(settings, table, name, head)
    if plan.types.get(name) == "time" or name == split.time:
        texts = [str(v) for v in head.column(name).drop_null().slice(0, LOOKED_AT).to_pylist()]
        plan.formats[name] = kinds.time_format([v for v in texts if not kinds.says_missing(v)])
        if plan.formats[name] is None and is_text(table, name):
            raise DataError(
                f"{table.name}: the time column '{name}' must hold dates in one known format such as 2026-11-21 or "
                f"2026-11-21T08:30. Got {texts[0] if texts else 'nothing'!r}. Set features.{name}: category."
            )


def _plan_target(settings: Settings, column: Any) -> Plan:
    """The plan with what the target is, and nothing else yet."""
    given = settings.target
    guess = guess_labels(column) if given.declines is None else None
    guess = guess or kinds.guess_target(column)
    kind, reason = given.type or guess.type, "as set" if given.type else guess.reason
    if given.declines is not None or given.separator is not None:
        kind = "class" if given.declines is not None else "labels"
        reason = reason if guess.type == kind or given.type else "as set"
    plan = Plan(given.name, kind, reason)
    if kind == "labels":
        plan.separator = given.separator or guess_separator(given.name, column)
        if plan.separator is not None:
            guessed = "" if given.separator else ", guessed: target.separator says another"
            plan.target_reason += f"; {plan.separator!r} stands between the labels of a cell{guessed}"
    return plan


def absent(settings: Settings, table: Table) -> list[str]:
    """A problem for each column that the settings name and the table lacks."""
    split, target = settings.data.split, settings.target
    named = [
        ("target", target.name),
        *((f"target.{n}", getattr(target, n)) for n in ("user", "time")),
        *((f"features.{f}", f) for f in settings.features),
        ("results.language", settings.results.language),
        *((f"{where}.fairness.by", n) for where, f in settings.fairness.items() for n in f.by),
        *((f"data.split.{way}", getattr(split, way)) for way in ("column", "by", "time")),
    ]
    return [no_column(table, name, where) for where, name in named if name and name not in table.columns]


def no_column(table: Table, name: str, where: str) -> str:
    """What is said of a column that a table lacks."""
    return (
        f"{table.name}: there is no column '{name}' ({where}).{did_you_mean(name, table.columns)} "
        f"It has {listing(table.columns, 20)}."
    )


def add_split(plan: Plan, settings: Settings) -> None:
    """The column that the rows are split by is read beside the others."""
    split = settings.data.split
    for how, kind in ((split.column, "category"), (split.by, "category"), (split.time, "time")):
        if how is not None and plan.types.get(how) != kind:
            plan.extra[how] = kind


def separator_of(settings: Settings, table: Table, name: str, head: Any) -> str | None:
    """What stands between the items of the cells of a history, as set or by its first rows."""
    given = settings.features.get(name)
    if given is not None and given.separator is not None:
        return given.separator
    cells = head.column(name).drop_null().to_pylist() if is_text(table, name) else None
    return None if cells is None else history_separator([str(cell) for cell in cells])


def is_text(table: Table, name: str) -> bool:
    return str(table.columns[name]) in ("string", "binary")


def group_types(table: Table, by: Sequence[str]) -> dict[str, str]:
    """Each column of groups as a category or a number.

    Raises:
        DataError: the table lacks one, or it holds neither.
    """
    found = {}
    head = table.head(LOOKED_AT)
    for name in by:
        if name not in table.columns:
            raise DataError(
                f"{table.name}: there is no column '{name}' to group by.{did_you_mean(name, table.columns)} It has "
                f"{listing(table.columns, 20)}."
            )
        guess = kinds.guess(name, head.column(name))
        if guess.type in ("text", "image", "sequence", "time") or not kinds.readable(table.columns[name]):
            raise DataError(
                f"{table.name}: column '{name}' must hold categories or numbers to group by. It {guess.reason}. Name "
                f"another column."
            )
        found[name] = "number" if guess.type == "number" else "category"
    return found
