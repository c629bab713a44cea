"""The section of a report that says why: its figures when a run is judged, and its words when a page is written."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from markupsafe import Markup

from weft.features.columns import Columns
from weft.features.targets import NumberTarget
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.preprocess.ingest import CleanRows
from weft.results import svg
from weft.results.explain.overview import HARDLY, MOST_ROWS, budget, overview
from weft.results.explain.page import drawn
from weft.results.outcomes import Outcomes
from weft.results.pages import Phrases
from weft.results.uneven import uneven

EXAMPLES = 3
GROUPED = 8  # most important columns whose groups are looked at
RELIED = 4
TOGETHER = 0.1  # of the largest column's share: from here on two columns are said to be read together
STEADY, LEAST_POINTS = 0.8, 10


def section(
    columns: Columns, model: RowModels, clean: CleanRows, judged: np.ndarray, said: Outcomes, training: float,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What ``report.json`` says of why, for judged rows (their places in ``clean``) with known truth.

    Args:
        training: seconds the model was trained for, of which this takes about a tenth.
    """
    names = [codec.name for codec in columns.codecs]

    def rows(places: np.ndarray) -> CleanBatch:
        return CleanBatch(clean.rows[judged[places]], clean.take(judged[places], names), [])

    examples = pick_examples(said)
    drawn_rows = np.random.default_rng(seed).permutation(len(judged))[:MOST_ROWS]
    batches = {kind: rows(places) for kind, places in examples.items() if len(places)}
    found = overview(columns, model, rows(drawn_rows), batches, said.positive, budget(training), seed)
    number = isinstance(said.target, NumberTarget)
    for kind, shown in found["examples"].items():
        for place, row in zip(examples[kind].tolist(), shown, strict=False):
            row["truth"] = f"{said.true_numbers[place]:.4g}" if number else said.named(said.truth[place]) or "–"
    relied = [c["column"] for c in found["columns"]][:GROUPED]
    found["groups"] = uneven(clean.take(judged, relied), columns.types, said.wrong)
    return found


def pick_examples(said: Outcomes) -> dict[str, np.ndarray]:
    """``typical``: right answers as sure as most are, of as many classes as can be; ``surprising``: the surest wrong
    ones. Of numbers: as far off as most are, and the farthest off."""
    number, loss, surprise, truth = isinstance(said.target, NumberTarget), said.wrong, said.surprise, said.truth
    right = np.arange(len(loss)) if number else np.flatnonzero(loss == 0)
    wrong = np.arange(len(loss)) if number else np.flatnonzero(loss > 0)
    middle = np.median(surprise[right]) if len(right) else 0.0
    typical = right[np.argsort(np.abs(surprise[right] - middle), kind="stable")]
    if not number and truth.ndim == 1:  # the first of every class, then the second of every class, ...
        counts: Counter[int] = Counter()
        turn = []
        for c in truth[typical].tolist():
            turn.append(counts[c])
            counts[c] += 1
        typical = typical[np.argsort(turn, kind="stable")]
    return {"typical": typical[:EXAMPLES], "surprising": wrong[np.argsort(-surprise[wrong], kind="stable")][:EXAMPLES]}


def shown(f: dict[str, Any], number: bool, judged: int, t: Phrases) -> dict[str, Any]:
    """What the template draws of the figures that :func:`section` gave. ``number``: the target is one."""
    towards = t("for {name}", name=t.quoted(f["of"])) if f["of"] else ""
    return {
        "made": t(
            "From {rows} of the {judged:,} judged rows, drawn at random: as many as {budget:.0f} seconds were enough "
            "for, a tenth of the training time but at least 5 seconds and at most 2 minutes.",
            rows=f["rows"], judged=judged, budget=f["budget"],
        ),
        "relies": relies(f, t), "columns": f["columns"], "unit": t("log odds") if not number else f["unit"],
        "effects": [
            {"line": effect_in_words(e, f["of"], t),
             "svg": Markup(svg.effect(e["points"], e["line"], e["column"], towards, effect_in_words(e, f["of"], t)))}
            for e in f["effects"] if len(e["line"]) > 1
        ],
        "words": f["words"], "pairs": f["pairs"], "pairs_line": pairs_in_words(f, t),
        "groups": groups_in_words(f["groups"], number, t),
        "examples": [
            {"kind": kind, "rows": [{**drawn(row, t), "truth": row["truth"]} for row in rows]}
            for kind, rows in f["examples"].items() if rows
        ],
    }  # fmt: skip


def relies(f: dict[str, Any], t: Phrases) -> list[str]:
    """On which columns the model relies, and which hardly matter."""
    most = [c for c in f["columns"] if c["share"] >= HARDLY][:RELIED]
    least = [c["column"] for c in f["columns"] if c["share"] < HARDLY]
    told = []
    if most:
        parts = [f"{c['column']} ({c['share']:.0%})" for c in most]
        told.append(t("Of all that moves its answers, most comes from {parts}.", parts=t.listed(parts)))
    if least:
        named = least if len(least) <= RELIED + 1 else [*least[-RELIED:], t("{n} others", n=len(least) - RELIED)]
        told.append(t("These hardly matter: {parts}.", parts=t.listed(named)))
    return told


def effect_in_words(e: dict[str, Any], of: str | None, t: Phrases) -> str:
    name = e["column"]
    if len(e["points"]) < LEAST_POINTS:
        return t("{column}: too few rows to tell a direction.", column=name)
    if abs(e["direction"]) < STEADY:
        return t("{column}: its effect goes up and down.", column=name)
    more = e["direction"] > 0
    if of is None:
        phrase = "The higher {column}, the higher the answer." if more else "The higher {column}, the lower the answer."
        return t(phrase, column=name)
    phrase = (
        "The higher {column}, the more it speaks for {name}." if more
        else "The higher {column}, the more it speaks against {name}."
    )  # fmt: skip
    return t(phrase, column=name, name=t.quoted(of))


def pairs_in_words(f: dict[str, Any], t: Phrases) -> str:
    """Which columns are read together, or that none are."""
    largest = max((c["mean"] for c in f["columns"]), default=0.0)
    told = [p for p in f["pairs"] if p["mean"] >= TOGETHER * largest > 0]
    if not f["pairs"]:
        return ""
    if not told:
        return t("No two columns depend much on each other: what one says hardly changes with another.")
    parts = [t("{a} with {b} ({mean:.2g})", a=p["columns"][0], b=p["columns"][1], mean=p["mean"]) for p in told]
    return t("What one column says depends on another: {parts}.", parts=t.listed(parts))


def groups_in_words(groups: dict[str, Any], number: bool, t: Phrases) -> dict[str, Any]:
    """A sentence for each group that is clearly worse or better than the rest, and how many were looked at."""

    def line(g: dict[str, Any]) -> str:
        if number:
            return t(
                "Where {group}, it is off by {value:.4g} on average ({low:.4g} to {high:.4g}; {rows:,} rows), "
                "elsewhere by {rest:.4g}.", group=_group(g, t), **_figures(g),
            )  # fmt: skip
        return t(
            "Where {group}, it is right in {value:.1%} ({low:.1%} to {high:.1%}; {rows:,} rows), "
            "elsewhere in {rest:.1%}.",
            group=_group(g, t), rows=g["rows"], value=1 - g["value"], low=1 - g["high"], high=1 - g["low"],
            rest=1 - g["rest"],
        )  # fmt: skip

    return {
        "worse": [line(g) for g in groups["worse"]], "better": [line(g) for g in groups["better"]],
        "note": t(
            "{n} groups of at least 30 rows were compared with all other rows; only differences beyond chance are told "
            "(5 % for all of them together). A difference does not say why.", n=groups["looked_at"],
        ) if groups["looked_at"] else "",
    }  # fmt: skip


def _figures(g: dict[str, Any]) -> dict[str, Any]:
    return {k: g[k] for k in ("value", "low", "high", "rows", "rest")}


def _group(g: dict[str, Any], t: Phrases) -> str:
    if "from" in g:
        if g["from"] == g["to"]:
            return t("{column} is {value}", column=g["column"], value=f"{g['from']:.6g}")
        return t("{column} is {low:.6g} to {high:.6g}", column=g["column"], low=g["from"], high=g["to"])
    if g["is"] is None:
        return t("{column} is missing", column=g["column"])
    return t("{column} is {value}", column=g["column"], value=t.quoted(g["is"]))
