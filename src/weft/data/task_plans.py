"""The plans of tables from which something else is learnt than a column of a row: texts, answers, pairs, histories."""

from __future__ import annotations

from weft.config import Settings
from weft.data import columns as kinds
from weft.data.dialogues import is_dialogue
from weft.data.histories import is_history, looks_like_history
from weft.data.plan import LOOKED_AT, Plan, absent, add_split, is_text, separator_of
from weft.data.table import Table
from weft.data_settings import SplitSettings
from weft.errors import DataError, SettingsError, did_you_mean, listing
from weft.yaml_text import scalar


def look_texts(settings: Settings, table: Table) -> Plan:
    """The plan of a task of texts alone: its column, and those of the split. Raises as :func:`weft.data.plan.look`."""
    target = settings.target.name
    problems = absent(settings, table)
    for name, given in settings.features.items():
        if name != target and given.type != "off":
            problems.append(f"features.{name}: only '{target}' is read to learn its tokens. Remove it.")
        elif name == target and given.type != "text":
            problems.append(f"features.{name}: must be text, whose tokens are learnt. Got {given.type}.")
    dialogue = settings.target.task == "dialogue"
    kind = table.columns.get(target)
    if kind is not None and not (is_text(table, target) or (dialogue and is_dialogue(kind))):
        wanted = "JSON texts or lists of messages with role and content" if dialogue else "texts"
        problems.append(f"{table.name}: '{target}' must hold {wanted}. Got {kind}.")
    why = "its answers are learnt" if dialogue else f"every {settings.target.task.replace('_', ' ')} is predicted"
    return _split(Plan(target, "dialogue" if dialogue else "text", why), settings, table, problems)


def look_span(settings: Settings, table: Table) -> Plan:
    """The plan of answers in a text: of the two text columns the first asks, the second holds the answers."""
    found = _look_named_texts(settings, table, 2, "a question and the context that may hold its answer, in that order")
    question, context = found.types
    start = settings.target.start or ("answer_start" if "answer_start" in table.columns else None)
    if start is not None:
        if start not in table.columns:
            raise SettingsError(
                [f"{table.name}: there is no column '{start}' (target.start).{did_you_mean(start, table.columns)}"]
            )
        found.use(start, "number", "where the answer begins")
        found.left_out.pop(start, None)
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
    target, problems = settings.target.name, absent(settings, table)
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
    left_out = {n: "not named in features" for n in table.columns if n not in (target, *named)}
    plan = Plan(target, settings.target.type or "", types=dict.fromkeys(named, "text"), left_out=left_out)
    return _split(plan, settings, table, problems)


def look_sources(settings: Settings, table: Table) -> Plan:
    """The plan of a text that is written from others: the text columns in ``features``, else all that look like text.

    Raises as :func:`weft.data.plan.look`.
    """
    target, split = settings.target.name, settings.data.split
    problems = absent(settings, table)
    named = {n: f for n, f in settings.features.items() if f.type != "off"}
    for name, given in named.items():
        if name == target:
            problems.append(f"features.{name}: the target cannot be read as well. Remove it from features.")
        elif given.type != "text":
            problems.append(f"features.{name}: a text is written from texts. Got {given.type}. Say text, or off.")
    for name in (target, *named):
        if name in table.columns and not is_text(table, name):
            problems.append(f"{table.name}: '{name}' must hold texts. Got {table.columns[name]}.")
    plan = _split(Plan(target, "text", "as set: it is written"), settings, table, problems)
    head = None if named else table.sample(kinds.SAMPLE_ROWS)
    for name in [*named, *(n for n in table.columns if n not in named and n != target)]:
        if name in named:
            plan.use(name, "text", "as set")
        elif head is None or name in settings.features:
            plan.left_out[name] = "as set" if name in settings.features else "features does not name it"
        elif name in (split.column, split.by, split.time):
            plan.left_out[name] = "it is the split"
        elif (guess := kinds.guess(name, head.column(name))).type == "text":
            plan.use(name, "text", guess.reason)
        else:
            plan.left_out[name] = f"is no text ({guess.reason})"
    if not plan.types:
        raise SettingsError([f"features: there must be a text column to write '{target}' from. Name one: text."])
    return plan


def look_ranking(settings: Settings, table: Table) -> Plan:
    """The plan of what users had: a table of events (one item a row) or of histories (``types`` of the target says so).

    Raises as :func:`weft.data.plan.look`.
    """
    target, split = settings.target, settings.data.split
    problems = absent(settings, table)
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
    whose = "history" if lists else f"'{target.user}'"
    plan = Plan(target.name, "ranking", f"the next item of each {whose} is predicted")
    rating = _rating(settings, lists)
    if lists:
        plan.separators[target.name] = separator_of(settings, table, target.name, head)
    for name, what, why in ((target.name, *(("sequence", "the histories") if lists else ("category", "the items"))),
                            (target.user, "category", "whose events they are"), (target.time, "time", "when they were"),
                            (rating, "number", "how an item was rated")):  # fmt: skip
        if name is not None:
            plan.use(name, what, why)
    plan.left_out = {n: "is not named" for n in table.columns if n not in plan.types}
    for name in filter(None, (target.time, split.time)):
        texts = [str(v) for v in head.column(name).drop_null().to_pylist()]
        seconds = all(kinds.parse_time(text, "seconds") is not None for text in texts)
        plan.formats[name] = "seconds" if seconds else kinds.time_format(texts)
        if plan.formats[name] is None and is_text(table, name):
            raise DataError(
                f"{table.name}: '{name}' must hold seconds since 1970, or dates in one known format such as "
                f"2026-11-21T08:30. Got {texts[0] if texts else 'nothing'!r}. Leave it out where the rows are in order."
            )
    add_split(plan, settings)
    return plan


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


def _split(plan: Plan, settings: Settings, table: Table, problems: list[str]) -> Plan:
    """The plan with the column that its rows are split by. Raises SettingsError where there are problems."""
    if problems:
        raise SettingsError(problems)
    if (time := settings.data.split.time) is not None:
        values = table.head(LOOKED_AT).column(time).drop_null().to_pylist()
        plan.formats[time] = kinds.time_format([str(v) for v in values])
    add_split(plan, settings)
    return plan
