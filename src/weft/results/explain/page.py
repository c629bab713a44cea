"""``weft explain --html``: explained rows on a page of their own; the report draws its rows in the same way.

What is drawn is read from the dictionary that :meth:`Explanation.to_dict` gives, so that a page can be written anew
from ``report.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from weft.files import write_whole
from weft.results import svg
from weft.results.explain.why import Explanation
from weft.results.explain.words import sentences
from weft.results.explain.writing import Writing
from weft.results.pages import Phrases, environment

BARS = 12
COLUMNS, LINES = 20, 80
LEVELS = (0.1, 0.25, 0.5, 0.75)
"""Of the largest share: from each on a word is marked more strongly, and below the first not at all."""
CHECKS = {
    "adds up": "The shares add up to the answer",
    "sampling error": "The shares are known well enough",
    "same again": "A second try gives the same picture",
    "local R2": "A straight line tells what the model does near this row",
    "completeness gap": "The gradients account for the whole answer",
}
ENDS = {
    "row": "Knowing nothing of the row (typical values, no text) it would give {name} {base:.1%}; "
    "with all of it {score:.1%}.",
    "ranking": "With an empty history it would give {name} {base:.1%}; with this one {score:.1%}.",
    "span": "Without any other word it would give {name} {base:.1%}; with all of them {score:.1%}.",
}
AT_LEAST = ("same again", "local R2")
"""The checks whose value must be at least their limit."""


def write_page(path: Path, found: Sequence[Explanation | Writing], run: str, table: str, language: str = "en") -> Path:
    """One page of the rows explained, without script, links or anything from elsewhere."""
    page = environment(language).get_template("explain.html")
    rows = [drawn(told(why), Phrases(language)) for why in found]
    write_whole(path, page.render(rows=rows, run=run, table=table))
    return path


def told(why: Explanation | Writing) -> dict[str, Any]:
    """An explanation as JSON, with its sentences in every language."""
    return {**why.to_dict(), "told": {language: sentences(why, language) for language in ("en", "zh")}}


def drawn(row: dict[str, Any], t: Phrases, columns: int = COLUMNS) -> dict[str, Any]:
    """What the template ``explained.html``, or a terminal, draws of an explained row, as :func:`told` gives it.

    ``columns``: words of a source side by side."""
    task = row.get("task", "row")
    return {
        "row": row["row"], "task": task, "target": row["target"], "method": row["method"],
        "lines": row["told"][t.language], "reliable": row["reliable"],
        "checks": [
            {"words": t(CHECKS[c["name"]]), "value": "–" if c["value"] is None else f"{c['value']:.3g}",
             "sign": "≥" if c["name"] in AT_LEAST else "≤", "limit": f"{c['limit']:g}", "passed": c["passed"]}
            for c in row["checks"]
        ],
        "evaluations": row["evaluations"], **(_matrix(row, columns) if task == "text" else _parts(row, t)),
    }  # fmt: skip


def _parts(row: dict[str, Any], t: Phrases) -> dict[str, Any]:
    """Of one answer: a bar a part, the texts with their words marked, and what would change it."""
    players = row["players"]
    largest = max((abs(p["share"]) for p in players), default=0.0) or 1.0
    order = np.argsort([-abs(p["share"]) for p in players], kind="stable").tolist()
    bars = [_bar(players[i], largest, row["method"]) for i in order[:BARS]]
    left = [players[i]["share"] for i in order[BARS:]]
    return {
        "bars": bars, "left": len(left), "left_share": f"{sum(left):+.3f}",
        "texts": {
            name: marked(text, [p for p in players if p["column"] == name], largest, row["method"])
            for name, text in row["texts"].items() if text
        },
        "pictures": [_picture(name, source, row, largest, t) for name, source in row.get("pictures", {}).items()],
        "unit": _unit(row, t), "ends": _ends(row, t), "change": row["change"],
        "nearest": _nearest(row.get("nearest"), t),
    }  # fmt: skip


def _matrix(row: dict[str, Any], columns: int) -> dict[str, Any]:
    """Of a text: a line for each word written, with the words of the source that count most side by side."""
    words = row["words"]
    shares = np.array([word["shares"] for word in words]).T
    shown = strongest(shares, columns)
    largest = float(np.abs(shares).max(initial=0.0)) or 1.0

    def cell(share: float) -> dict[str, Any]:
        return {"share": f"{share:+.2f}", **_mark(share, largest, row["method"])}

    def line(word: dict[str, Any]) -> dict[str, Any]:
        seen = [word["shares"][i] for i in shown]
        rest = f"{sum(word['shares']) - sum(seen):+.2f}"
        return {"word": word["shown"], "probability": f"{word['probability']:.1%}", "cells": list(map(cell, seen)),
                "rest": rest}  # fmt: skip

    return {
        "written": row["text"].strip(), "heads": [row["players"][i]["shown"] for i in shown],
        "heat": [line(word) for word in words[:LINES]],
        "left": len(row["players"]) - len(shown), "more": max(0, len(words) - LINES), "texts": {
            name: [{"text": text, "side": "", "level": 0}] for name, text in row["texts"].items() if text
        },
    }  # fmt: skip


def strongest(shares: np.ndarray, most: int) -> list[int]:
    """The players whose shares [P, O] are largest in all, at most so many, in their order."""
    return sorted(np.argsort(-np.abs(shares).sum(axis=1), kind="stable")[:most].tolist())


def marked(text: str, words: Sequence[dict[str, Any]], largest: float, method: str) -> list[dict[str, Any]]:
    """A text in pieces, letter for letter: each with its side (for, against, looked) and level, 0 where unmarked."""
    pieces: list[dict[str, Any]] = []
    end = 0
    for word in words:
        mark = _mark(word["share"], largest, method)
        if mark["level"]:
            pieces.append({"text": text[end : word["start"]], "side": "", "level": 0})
            pieces.append({"text": text[word["start"] : word["end"]], **mark})
            end = word["end"]
    pieces.append({"text": text[end:], "side": "", "level": 0})
    return [piece for piece in pieces if piece["text"]]


def _picture(name: str, source: str, row: dict[str, Any], largest: float, t: Phrases) -> dict[str, Any]:
    shares = [p["share"] for p in row["players"] if p["column"] == name]
    marks = [_mark(share, largest, row["method"]) for share in shares]
    strong = [(m["side"], abs(s) / largest if m["level"] else 0.0) for m, s in zip(marks, shares, strict=True)]
    label = t("{column}, its telling patches marked", column=name)
    return {"column": name, "plain": source, "marks": marks, "svg": Markup(svg.patches(source, strong, label))}


def _bar(player: dict[str, Any], largest: float, method: str) -> dict[str, Any]:
    error = player["error"]
    return {
        "name": player["shown"], "column": player["column"], "word": player["start"] is not None,
        "share": f"{player['share']:+.3f}" if method != "attention" else f"{player['share']:.1%}",
        "error": f"{2 * error:.2g}" if error and np.isfinite(error) else "",  # None: it cannot be told
        "width": round(100 * abs(player["share"]) / largest, 1), "side": _side(player["share"], method),
    }  # fmt: skip


def _mark(share: float, largest: float, method: str) -> dict[str, Any]:
    level = sum(abs(share) >= least * largest for least in LEVELS)
    return {"side": _side(share, method) if level else "", "level": level}


def _side(share: float, method: str) -> str:
    return "looked" if method == "attention" else "for" if share > 0 else "against"


def _nearest(found: dict[str, Any] | None, t: Phrases) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = [
        {**n, "likeness": f"{n['likeness']:.3f}",
         "truth": t.listed(n["truth"]) if isinstance(n["truth"], list) else f"{n['truth']}"}
        for n in found["neighbours"]
    ]  # fmt: skip
    return {
        "rows": rows,
        "note": t("Found among {seen:,} of {of:,} training rows, by the cosine of what the model makes of them.",
                  seen=found["seen"], of=found["of"]),
    }  # fmt: skip


def _unit(row: dict[str, Any], t: Phrases) -> str:
    if row["method"] == "attention":
        return t("share of the looks")
    return t("log odds") if row["of"] is not None else row["target"]


def _ends(row: dict[str, Any], t: Phrases) -> str:
    """From what a typical row would get to what this one gets."""
    task = row.get("task", "row")
    if row["method"] == "attention" or task == "embedding":
        return ""
    if task == "ranking" and any(p["column"] != row["target"] for p in row["players"]):
        return ""  # the item's columns are taken away apart from the history
    if row["of"] is None:
        return t(
            "Knowing nothing of the row (typical values, no text) it would say {base:.4g}; with all of it {score:.4g}.",
            base=row["base"], score=row["score"],
        )  # fmt: skip
    base, score = (1 / (1 + np.exp(-np.clip(row[k], -700, 700))) for k in ("base", "score"))
    return t(ENDS[task], name=t.quoted(str(row["answer"])), base=base, score=score)
