"""The plan of a table: the type of each column, the target's, what is left out and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from weft.config import FeatureSettings, Settings, SplitSettings
from weft.data import columns as kinds
from weft.data.dialogues import is_dialogue
from weft.data.histories import history_separator, is_history, looks_like_history
from weft.data.labels import guess_labels, guess_separator, is_list, kind_in_words
from weft.data.personal import masked
from weft.data.pictures import PicturePlan, kind_of, needs_range
from weft.data.table import Table
from weft.errors import DataError, SettingsError, did_you_mean, listing
from weft.yaml_text import scalar

LOOKED_AT = 2_000
"""First rows in which a text that comes again, or the format of a time, is looked for."""


@dataclass
class Plan:
    """What the look at the data decided: the type of each column used, and why the others are not."""

    types: dict[str, str]
    reasons: dict[str, str]
    left_out: dict[str, str]
    target: str
    target_type: str
    target_reason: str
    warnings: list[str]
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


def look(settings: Settings, table: Table) -> Plan:
    """Guess what is not said, from a sample of the rows. Raises DataError, SettingsError with all problems."""
    head = table.sample(kinds.SAMPLE_ROWS)
    target, split = settings.target.name, settings.data.split
    problems = _absent(settings, table)
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
        elif name != target or settings.target.type not in (None, "labels") or not is_list(kind):
            problems.append(f"{table.name}: {what} '{name}' must hold single values. Got {kind}.")
    for name, given in settings.features.items():
        if given.vocabulary is not None:
            problems.append(
                f"features.{name}.vocabulary: is for texts that are written (target.next_token). Remove it."
            )
    if problems:
        raise SettingsError(problems)
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
        if name == target:
            continue
        given = settings.features.get(name)
        guess = kinds.guess(name, head.column(name))
        if given is not None and given.type == "off":
            plan.left_out[name] = "as set"
        elif given is None and name == split.column:
            plan.left_out[name] = "it is the split"
        elif given is None and guess.type == "off":
            plan.left_out[name] = guess.reason
        else:
            plan.types[name] = given.type if given is not None else guess.type
            plan.reasons[name] = "as set" if given is not None else guess.reason
            if plan.types[name] == "image":
                plan.pictures[name] = PicturePlan(given.size, given.range) if given else PicturePlan()
                continue
            warning = kinds.leaks(name, head.column(name), head.column(target))
            if warning:
                plan.warnings.append(warning)
        if plan.types.get(name) == "sequence":
            plan.separators[name] = separator_of(settings, table, name, head)
        if plan.types.get(name) == "time" or name == split.time:
            texts = [str(v) for v in head.column(name).drop_null().slice(0, 2_000).to_pylist()]
            plan.formats[name] = kinds.time_format([v for v in texts if not kinds.says_missing(v)])
            if plan.formats[name] is None and _is_text(table, name):
                raise DataError(
                    f"{table.name}: the time column '{name}' must hold dates in one known format such as 2026-11-21 or "
                    f"2026-11-21T08:30. Got {texts[0] if texts else 'nothing'!r}. Set features.{name}: category."
                )
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
    _add_split(settings, plan)
    if (redact := settings.preprocess.redact) is not None:  # what a column always holds may be a name
        plan.left_out = {name: masked(reason, redact.kinds) for name, reason in plan.left_out.items()}
        plan.warnings = [masked(warning, redact.kinds) for warning in plan.warnings]
    return plan


def _picture_problems(table: str, name: str, given: FeatureSettings, kind: pa.DataType) -> list[str]:
    if kind_of(kind) is None and not pa.types.is_null(kind):
        return [f"{table}: features.{name} must hold paths, bytes or arrays of pictures. Got {kind}."]
    if needs_range(kind) and given.range is None:
        return [f"features.{name}.range: arrays of {kind} must say what is black and white, as in range: [0, 1]."]
    return []


def look_texts(settings: Settings, table: Table) -> Plan:
    """The plan of a task of texts alone: its column, and those of the split. Raises as :func:`look`."""
    target = settings.target.name
    problems = _absent(settings, table)
    for name, given in settings.features.items():
        if name != target and given.type != "off":
            problems.append(f"features.{name}: only '{target}' is read to learn its tokens. Remove it.")
        elif name == target and given.type != "text":
            problems.append(f"features.{name}: must be text, whose tokens are learnt. Got {given.type}.")
    dialogue = settings.target.task == "dialogue"
    kind = table.columns.get(target)
    if kind is not None and not (_is_text(table, target) or (dialogue and is_dialogue(kind))):
        wanted = "JSON texts or lists of messages with role and content" if dialogue else "texts"
        problems.append(f"{table.name}: '{target}' must hold {wanted}. Got {kind}.")
    if problems:
        raise SettingsError(problems)
    why = "its answers are learnt" if dialogue else f"every {settings.target.task.replace('_', ' ')} is predicted"
    plan = Plan({}, {}, {}, target, "dialogue" if dialogue else "text", why, [])
    _add_times(settings, table, plan)
    _add_split(settings, plan)
    return plan


def look_span(settings: Settings, table: Table) -> Plan:
    """The plan of answers in a text: of the two text columns the first asks, the second holds the answers."""
    found = _look_named_texts(settings, table, 2, "a question and the context that may hold its answer, in that order")
    start = settings.target.start or ("answer_start" if "answer_start" in table.columns else None)
    if start is not None:
        if start not in table.columns:
            raise SettingsError(
                [f"{table.name}: there is no column '{start}' (target.start).{did_you_mean(start, table.columns)}"]
            )
        found.types[start] = "number"
        found.reasons[start] = "where the answer begins"
        found.left_out.pop(start, None)
    question, context = list(found.types)[:2]
    found.reasons |= {question: "what is asked", context: "what holds the answer"}
    found.target_reason = f"the place in '{context}' that answers '{question}'"
    given = settings.features[question].max_tokens
    if given is not None:
        raise SettingsError(
            [f"features.{question}.max_tokens: question and context are read together. Got {given}. Say it of "
             f"'{context}' alone, for both."]
        )  # fmt: skip
    found.warnings += _repeated(settings, table, context)
    return found


def look_embedding(settings: Settings, table: Table) -> Plan:
    """The plan of pairs of texts: the vector of the one column is to lie near that of the target."""
    found = _look_named_texts(settings, table, 1, "the text whose target is looked for")
    (name,) = found.types
    found.reasons[name] = "what is looked for with"
    found.target_reason = f"its vector is to lie nearest to that of '{name}'"
    found.warnings += _repeated(settings, table, found.target)
    return found


def _repeated(settings: Settings, table: Table, name: str) -> list[str]:
    """A warning where a split at random puts one text among those that are learnt and those that are judged."""
    split = settings.data.split
    texts = table.head(LOOKED_AT).column(name).drop_null().to_pylist()
    if split.column or split.by or split.time or len(set(texts)) == len(texts):
        return []
    return [
        f"'{name}' holds the same text in several rows, and rows are split at random: texts that are judged were "
        f"learnt from. Keep them together with data: {{split: {{by: {scalar(name)}}}}}"
    ]


def _look_named_texts(settings: Settings, table: Table, count: int, what: str) -> Plan:
    """The plan of a task whose text columns must be named in features: ``count`` of them, in their order."""
    target, problems = settings.target.name, _absent(settings, table)
    named = [n for n, given in settings.features.items() if given.type != "off" and n != settings.target.start]
    for name in named:
        if settings.features[name].type != "text" or name == target:
            got = "the target" if name == target else settings.features[name].type
            problems.append(f"features.{name}: must be a text column beside the target. Got {got}.")
    if len(named) != count:
        problems.append(
            f"features: target.type {settings.target.type} reads {count} text {'column' if count == 1 else 'columns'}: "
            f"{what}. Got {listing(named) or 'none'}. Name {'it' if count == 1 else 'them'}, as in review: text."
        )
    for name in (target, *named):
        kind = table.columns.get(name)
        if kind is not None and str(kind) not in ("string", "binary", "null"):
            problems.append(f"{table.name}: '{name}' must hold texts. Got {kind}.")
    if problems:
        raise SettingsError(problems)
    left_out = {n: "not named in features" for n in table.columns if n not in (target, *named)}
    plan = Plan(dict.fromkeys(named, "text"), {}, left_out, target, settings.target.type or "", "", [])
    _add_times(settings, table, plan)
    _add_split(settings, plan)
    return plan


def look_sources(settings: Settings, table: Table) -> Plan:
    """The plan of a text that is written from others: the text columns in ``features``, else all that look like text.

    Raises as :func:`look`.
    """
    target, split = settings.target.name, settings.data.split
    problems = _absent(settings, table)
    named = {n: f for n, f in settings.features.items() if f.type != "off"}
    for name, given in named.items():
        if name == target:
            problems.append(f"features.{name}: the target cannot be read as well. Remove it from features.")
        elif given.type != "text":
            problems.append(f"features.{name}: a text is written from texts. Got {given.type}. Say text, or off.")
    for name in (target, *named):
        if name in table.columns and not _is_text(table, name):
            problems.append(f"{table.name}: '{name}' must hold texts. Got {table.columns[name]}.")
    if problems:
        raise SettingsError(problems)
    plan = Plan({}, {}, {}, target, "text", "as set: it is written", [])
    head = None if named else table.sample(kinds.SAMPLE_ROWS)
    for name in [*named, *(n for n in table.columns if n not in named and n != target)]:
        if name in named:
            plan.types[name], plan.reasons[name] = "text", "as set"
        elif head is None or name in settings.features:
            plan.left_out[name] = "as set" if name in settings.features else "features does not name it"
        elif name in (split.column, split.by, split.time):
            plan.left_out[name] = "it is the split"
        elif (guess := kinds.guess(name, head.column(name))).type == "text":
            plan.types[name], plan.reasons[name] = "text", guess.reason
        else:
            plan.left_out[name] = f"is no text ({guess.reason})"
    if not plan.types:
        raise SettingsError([f"features: there must be a text column to write '{target}' from. Name one: text."])
    _add_times(settings, table, plan)
    _add_split(settings, plan)
    return plan


def look_ranking(settings: Settings, table: Table) -> Plan:
    """The plan of what users had: a table of events (one item a row) or of histories (``types`` of the target says so).

    Raises as :func:`look`.
    """
    target, split = settings.target, settings.data.split
    problems = _absent(settings, table)
    if (split.test, split.valid) != (SplitSettings().test, SplitSettings().valid) and not (split.by or split.time):
        problems.append("data.split: the last event of each user is the test, the one before it valid. Remove the "
                        "shares, or say by or time.")  # fmt: skip
    kind = table.columns.get(target.name)
    if kind is not None and not (kinds.readable(kind) or is_history(kind)):
        problems.append(f"{table.name}: '{target.name}' must hold item ids, or lists of them. Got {kind}.")
    if problems:
        raise SettingsError(problems)
    head = table.head(LOOKED_AT)
    if not head.num_rows:
        raise DataError(f"{table.name}: must hold rows. Got a header and none.")
    given = settings.features.get(target.name)
    lists = target.user is None or (given is not None and given.type == "sequence") or looks_like_history(
        head.column(target.name)
    )  # fmt: skip
    plan = Plan({}, {}, {}, target.name, "ranking", "", [])
    rating = _rating(settings, lists)
    if lists:
        plan.separators[target.name] = separator_of(settings, table, target.name, head)
        plan.types[target.name], plan.reasons[target.name] = "sequence", "the histories"
        plan.target_reason = "the next item of each history is predicted"
    else:
        plan.types[target.name], plan.reasons[target.name] = "category", "the items"
        plan.target_reason = f"the next item of each '{target.user}' is predicted"
    for name, what, why in ((target.user, "category", "whose events they are"), (target.time, "time", "when they were"),
                            (rating, "number", "how an item was rated")):  # fmt: skip
        if name is not None:
            plan.types[name], plan.reasons[name] = what, why
    plan.left_out = {n: "is not named" for n in table.columns if n not in plan.types}
    for name in filter(None, (target.time, split.time)):
        texts = [str(v) for v in head.column(name).drop_null().to_pylist()]
        plan.formats[name] = "seconds" if all(map(_seconds, texts)) else kinds.time_format(texts)
        if plan.formats[name] is None and _is_text(table, name):
            raise DataError(
                f"{table.name}: '{name}' must hold seconds since 1970, or dates in one known format such as "
                f"2026-11-21T08:30. Got {texts[0] if texts else 'nothing'!r}. Leave it out where the rows are in order."
            )
    _add_split(settings, plan)
    return plan


def _seconds(text: str) -> bool:
    return kinds.parse_time(text, "seconds") is not None


def _rating(settings: Settings, lists: bool) -> str | None:
    """The column of events that says how an item was rated: the number among the features."""
    target, names = settings.target, []
    for name, given in settings.features.items():
        if (name == target.name and given.type == "sequence") or given.type == "off":
            continue
        if given.type != "number" or lists or name in (target.name, target.user, target.time):
            may = f"'{target.name}' itself" if lists else f"'{target.name}' itself and one number, the rating"
            raise SettingsError(
                [f"features.{name}: of a ranking only {may} may be named. Got {given.type}. Remove it."]
            )
        names.append(name)
    if len(names) > 1:
        raise SettingsError([f"features: an event has one rating. Got {listing(names)}. Keep one of them."])
    if lists and target.time is not None:
        raise SettingsError(["target.time: is for a table of events; in a history each event says its own. Remove it."])
    return names[0] if names else None


def _absent(settings: Settings, table: Table) -> list[str]:
    """A problem for each column that the settings name and the table lacks."""
    split = settings.data.split
    return [
        f"{table.name}: there is no column '{name}' ({where}).{did_you_mean(name, table.columns)} "
        f"It has {listing(table.columns, 20)}."
        for where, name in [
            ("target", settings.target.name),
            *((f"target.{n}", getattr(settings.target, n)) for n in ("user", "time") if getattr(settings.target, n)),
            *((f"features.{f}", f) for f in settings.features),
            *([("results.language", settings.results.language)] if settings.results.language is not None else []),
            *((f"{where}.fairness.by", n) for where, f in settings.fairness.items() for n in f.by),
            *((f"data.split.{way}", getattr(split, way)) for way in ("column", "by", "time") if getattr(split, way)),
        ]
        if name not in table.columns
    ]


def _add_times(settings: Settings, table: Table, plan: Plan) -> None:
    """How the column of a split by time is read."""
    name = settings.data.split.time
    if name is not None:
        values = table.head(LOOKED_AT).column(name).drop_null().to_pylist()
        plan.formats[name] = kinds.time_format([str(v) for v in values])


def _add_split(settings: Settings, plan: Plan) -> None:
    split = settings.data.split
    for how, kind in ((split.column, "category"), (split.by, "category"), (split.time, "time")):
        if how is not None and plan.types.get(how) != kind:
            plan.extra[how] = kind


def _plan_target(settings: Settings, column: Any) -> Plan:
    """The plan with what the target is, and nothing else yet."""
    given = settings.target
    guess = guess_labels(column) if given.declines is None else None
    guess = guess or kinds.guess_target(column)
    kind, reason = given.type or guess.type, "as set" if given.type else guess.reason
    if given.declines is not None or given.separator is not None:
        kind = "class" if given.declines is not None else "labels"
        reason = reason if guess.type == kind or given.type else "as set"
    plan = Plan({}, {}, {}, given.name, kind, reason, [])
    if kind == "labels":
        plan.separator = given.separator or guess_separator(given.name, column)
        if plan.separator is not None:
            guessed = "" if given.separator else ", guessed: target.separator says another"
            plan.target_reason += f"; {plan.separator!r} stands between the labels of a cell{guessed}"
    return plan


def separator_of(settings: Settings, table: Table, name: str, head: Any) -> str | None:
    """What stands between the items of the cells of a history, as set or by its first rows."""
    given = settings.features.get(name)
    if given is not None and given.separator is not None:
        return given.separator
    return (
        history_separator([str(c) for c in head.column(name).drop_null().to_pylist()])
        if _is_text(table, name)
        else None
    )


def _is_text(table: Table, name: str) -> bool:
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
