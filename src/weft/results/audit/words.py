"""The figures of groups in sentences for a person who knows no metric; phrases, so that they can be said in Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weft.features.groups import Members
from weft.features.targets import ClassTarget
from weft.results.audit.figures import LEAST, UNITED, by_members, values_of
from weft.results.groups import SMALL
from weft.results.outcomes import Outcomes
from weft.results.pages import Phrases

Said = tuple[str | list[str], dict[str, Any]]
"""A sentence as a phrase, or several that follow each other, and what fills them."""
LEAST_BIAS = 0.01
"""Calibration that is told: a point."""
FIFTHS = 0.8
_GAP = {
    "selection_rate": "It answers {of} for {a:.1%} of {most} and for {b:.1%} of {least}",
    "tpr": "Of those who truly are {of} it finds {a:.1%} where the group is {most}, {b:.1%} where it is {least}",
    "fpr": "Of those who are not {of} it still answers so for {a:.1%} where the group is {most}, {b:.1%} where it is "
    "{least}",
    "accuracy": "It is right in {a:.1%} of {most} and in {b:.1%} of {least}",
    "declined": "It declines {a:.1%} of {most} and {b:.1%} of {least}",
    "subset_accuracy": "All labels are right in {a:.1%} of {most} and in {b:.1%} of {least}",
    "mean_answer": "It answers {a:.4g} on average for {most} and {b:.4g} for {least}",
    "mae": "It is off by {a:.4g} on average for {most} and by {b:.4g} for {least}",
    "bleu": "What it writes reaches BLEU {a:.1f} for {most} and {b:.1f} for {least}",
    "chrf": "What it writes reaches chrF {a:.1f} for {most} and {b:.1f} for {least}",
    "hit_at_10": "What they had next is among the first ten for {a:.1%} of {most} and {b:.1%} of {least}",
}
_POINTS = ": a gap of {gap:.1f} points ({low:.1f} to {high:.1f})"
_UNITS = ": a gap of {gap:.4g} ({low:.4g} to {high:.4g})"
_SURE, _CHANCE = ", which is beyond chance.", ", which may be chance."
_RATIO = "The rarer share is {ratio:.0%} of the other; truly {of} are {a:.1%} of {most} and {b:.1%} of {least}."
_TRULY = "Truly it is {a:.4g} on average for {most} and {b:.4g} for {least}."
_FIFTHS = (
    "Where the rarer share is below 80 % of the other, many look closer (the four-fifths rule of US employers); what "
    "is allowed is a question of law, not of this number."
)
_HIGH = "For {group} it gives {of} too high a probability, by {gap:.1f} points on average ({low:.1f} to {high:.1f})."
_LOW = "For {group} it gives {of} too low a probability, by {gap:.1f} points on average ({low:.1f} to {high:.1f})."
_OVER = "For {group} it is surer than it is right, by {gap:.1f} points ({low:.1f} to {high:.1f})."
_UNDER = "For {group} it is right more often than it is sure, by {gap:.1f} points ({low:.1f} to {high:.1f})."
_ABOVE = "For {group} its answers are too high by {gap:.4g} on average ({low:.4g} to {high:.4g})."
_BELOW = "For {group} its answers are too low by {gap:.4g} on average ({low:.4g} to {high:.4g})."
_SHOWN = (
    "Items of {group} have {a:.1%} of the recommended places; of what users had next {b:.1%} are of them, and {c:.1%} "
    "of the catalogue."
)
_SMALL = "Few rows (less than {small}), so that their figures may be chance: {groups}."
_TINY = "Groups of less than {least} rows, too few to be judged alone: {count:,}, with {rows:,} rows together."
_BINNED = "{column} holds numbers: its groups are quarters of the rows."
_NOTE = (
    "A gap says that groups fare differently, not why: they may differ in what the columns tell, in how well they are "
    "measured, or in how rightly the past decided. A model without the column may have the gap as well."
)


def groups_section(parts: Sequence[Members], said: Outcomes) -> dict[str, Any]:
    """Figures and sentences of each way to part the rows, as JSON."""
    values = values_of(said)
    of = None if said.positive is None else said.classes[said.positive]
    drawn = (said.probabilities, said.truth) if isinstance(said.target, ClassTarget) else ()
    return said_of([by_members(members, values, *drawn) for members in parts], len(said), of)


def said_of(columns: list[dict[str, Any]], rows: int, of: str | None = None) -> dict[str, Any]:
    """The section of figures by column, with what is said of them."""
    return {
        "rows": rows, "of": of, "said": notes(columns),
        "columns": [{**found, "said": column_in_words(found, of)} for found in columns],
    }  # fmt: skip


def column_in_words(found: dict[str, Any], of: str | None) -> list[Said]:
    """What a person should know of the groups by one column; ``of``: the class whose share counts."""
    said: list[Said] = [(_BINNED, {"column": found["column"]})] if found["binned"] else []
    groups, gaps = {g["group"]: g for g in found["groups"]}, found["gaps"]
    for key, phrase in _GAP.items():
        gap = gaps.get(key)
        if gap is not None and all(groups[gap[k]]["metrics"][key]["rows"] >= LEAST for k in ("most", "least")):
            scale = 1 if key in UNITED else 100
            ends = {"gap": gap["value"], "low": gap["low"], "high": gap["high"]}
            sizes = {k: scale * v for k, v in ends.items() if v is not None}
            a, b = (groups[gap[k]]["metrics"][key]["value"] for k in ("most", "least"))
            values = {"of": of, "most": gap["most"], "least": gap["least"], "a": a, "b": b, **sizes}
            if len(sizes) == 3:
                size = _UNITS if key in UNITED else _POINTS
                said.append(([phrase, size, _SURE if gap["low"] > 0 else _CHANCE], values))
            else:
                said.append(([phrase, "."], values))
            if key == "selection_rate":
                said += _shares(gap, groups, of)
            if key == "mean_answer":
                a, b = (groups[gap[k]]["metrics"]["mean_truth"]["value"] for k in ("most", "least"))
                said.append((_TRULY, {"a": a, "b": b, "most": gap["most"], "least": gap["least"]}))
    for g in found["groups"]:
        said += _off(g, of) if g["rows"] >= LEAST else []
        if "exposure" in g["metrics"]:
            a, b, c = (g["metrics"][key]["value"] for key in ("exposure", "had_next", "offered"))
            said.append((_SHOWN, {"group": g["group"], "a": a, "b": b, "c": c}))
    few = [f"{g['group']} ({g['rows']:,})" for g in found["groups"] if g["small"] and g["rows"] >= LEAST]
    if few:
        said.append((_SMALL, {"small": SMALL, "groups": few}))
    tiny = [g["rows"] for g in found["groups"] if g["small"] and g["rows"] < LEAST]
    if tiny:
        said.append((_TINY, {"count": len(tiny), "least": LEAST, "rows": sum(tiny)}))
    return said


def _shares(gap: dict[str, Any], groups: dict[str, Any], of: str | None) -> list[Said]:
    """How the shares compare with each other and with the truth."""
    part = gap["ratio"]["value"]
    if part is None:
        return []
    a, b = (groups[gap[k]]["metrics"]["base_rate"]["value"] for k in ("most", "least"))
    return [(_RATIO, {"ratio": part, "of": of, "a": a, "b": b, "most": gap["most"], "least": gap["least"]})]


def _off(g: dict[str, Any], of: str | None) -> list[Said]:
    """Where the answers for a group lean to one side beyond chance."""
    for key, up, down, scale in (
        ("calibration", *((_OVER, _UNDER) if of is None else (_HIGH, _LOW)), 100), ("bias", _ABOVE, _BELOW, 1),
    ):  # fmt: skip
        e = g["metrics"].get(key)
        if e is None or e["low"] is None or e["low"] <= 0 <= e["high"]:
            continue
        if key == "calibration" and abs(e["value"]) < LEAST_BIAS:
            continue
        ends = sorted(scale * abs(e[k]) for k in ("low", "high"))
        values = {"group": g["group"], "of": of, "gap": scale * abs(e["value"]), "low": ends[0], "high": ends[1]}
        return [(up if e["value"] > 0 else down, values)]
    return []


def notes(columns: Sequence[dict[str, Any]]) -> list[Said]:
    """What holds of all columns."""
    parts = [c["gaps"]["selection_rate"]["ratio"]["value"] for c in columns if "selection_rate" in c["gaps"]]
    return [*([(_FIFTHS, {})] if any(p is not None and p < FIFTHS for p in parts) else []), (_NOTE, {})]


def lines(said: Sequence[Said], t: Phrases) -> list[str]:
    """Sentences in the language of ``t``; names of groups and classes are quoted, lists joined."""
    found = []
    for phrase, values in said:
        shown = {k: _shown(k, v, t) for k, v in values.items()}
        found.append("".join(t(part, **shown) for part in ([phrase] if isinstance(phrase, str) else phrase)))
    return found


def _shown(key: str, value: Any, t: Phrases) -> Any:
    if isinstance(value, (list, tuple)):
        return t.listed([str(v) for v in value])
    if key == "kind":
        return t(value)
    return (
        t.quoted(t(value))
        if key in ("of", "most", "least", "group", "column", "word") and isinstance(value, str)
        else value
    )
