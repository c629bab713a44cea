"""``report.html``: the figures of a run in words and drawings, one file, no script, works offline.

It says nothing that ``report.json`` does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from weft.files import write_whole
from weft.preprocess.duplicates import copies_said
from weft.results import svg
from weft.results.abstention import abstention_in_words
from weft.results.audit.words import lines
from weft.results.explain.section import shown as shown_why
from weft.results.metrics import METRICS
from weft.results.mislabelled import mislabelled_said
from weft.results.pages import Phrases, environment
from weft.results.private import privacy_in_words, replaced_in_words

_STEPS = (
    ("data", "read the table and guess what each column holds"),
    ("preprocess", "clean every cell, set bad rows aside, split"),
    ("features", "turn every column into tokens"),
    ("model", "train one large model on the rows"),
    ("inference", "predict rows it never saw"),
    ("results", "judge it beside simple models"),
)
_LANGUAGE_STEPS = (
    ("data", "read the texts"),
    ("preprocess", "clean them, set bad ones aside, split"),
    ("features", "turn every text into tokens"),
    ("model", "train one large model on the tokens"),
    ("inference", "read and go on with texts it never saw"),
    ("results", "judge it beside simple models"),
)
_PAGES = {"row": "report.html", "text": "text.html", "span": "answers.html", "embedding": "pairs.html",
          "ranking": "ranking.html"}  # fmt: skip


_NAMED = ("title", "metric", "part", "how", "measure")


def write_report(folder: Path, figures: dict[str, Any], language: str = "en") -> Path:
    """Write ``report.html`` from the figures in a language (en or zh); returns its path."""
    t = Phrases(language)
    shown = [METRICS[k] for k in figures["shown"]]
    first = shown[0]
    models = figures["models"]
    drawn = [
        {"title": t(m["title"]), "ours": m["key"] == "weft", **_ends(m["metrics"][first.key])}
        for m in models
        if m["metrics"][first.key]["value"] is not None
    ]
    curves = figures.get("curves", {})
    label = t("{metric} of each model with its 95 % interval", metric=t(first.title))
    drawings = {"models": svg.intervals(drawn, first.percent, label) if drawn else ""}
    if curves.get("reliability"):
        drawings["reliability"] = svg.reliability(
            curves["reliability"], t("How sure the model said it was, against how often it was right"), t
        )
    if curves.get("scatter"):
        drawings["scatter"] = svg.scatter(curves["scatter"], t("Predicted against true values"), t)
    declined = figures.get("declines")
    if declined and declined["curve"]:
        drawings["declines"] = svg.risk_coverage(
            declined["curve"], declined["coverage"]["value"], "Share of wrong answers as more rows are answered"
        )
    if curves.get("learning"):
        drawings["learning"] = svg.learning(
            [
                {"title": "texts it learns from", "ours": False, "points": curves["learning"]["train"]},
                {"title": "validation texts", "ours": True, "points": curves["learning"]["valid"]},
            ],
            "tokens read", "Surprise at a token in nats, over the tokens read while training",
        )  # fmt: skip
    template = _PAGES.get(figures.get("task", "row"), "language.html")
    why, number = figures.get("explain"), figures["target"].get("type") == "number"
    steps = _STEPS if figures.get("task", "row") in ("row", "ranking") else _LANGUAGE_STEPS
    page = environment(language).get_template(template).render(
        s=figures.get("fairness"), lines=lambda said: lines(said, t),
        why=shown_why(why, number, figures["rows_judged"], t) if why else None, number=number,
        headline=headline(figures, t), verdict=verdict(figures, t),
        copies=[_sentence(s, t) for s in copies_said(figures["data"].get("copies"))], q=_quality(figures, t),
        f=figures, shown=shown, models=models, steps=steps,
        title=figures["target"]["name"],
        drawings={k: Markup(v) for k, v in drawings.items()},
        privacy=privacy_in_words(figures["privacy"], t) if figures.get("privacy") else "",
        replaced=replaced_in_words(figures["redact"], t) if figures.get("redact") else "",
        declined=abstention_in_words(declined) if declined else [], METRICS=METRICS,
    )  # fmt: skip
    path = folder / "report.html"
    write_whole(path, page)
    return path


def in_notebook(path: Path, figures: dict[str, Any], language: str = "en") -> str:
    """A run in a few lines of HTML without a script: what to know first, the figures, and where the report is."""
    t = Phrases(language)
    shown = [METRICS[k] for k in figures["shown"][:3]]
    page = environment(language).get_template("notebook.html")
    return page.render(headline=headline(figures, t), models=figures["models"], shown=shown, path=path)


def headline(figures: dict[str, Any], t: Phrases) -> str:
    """What to know first; in English where the figures hold it so only."""
    return t(" ").join(_sentence(said, t) for said in figures.get("said", ())) or figures["headline"]


def verdict(figures: dict[str, Any], t: Phrases) -> list[str]:
    """What to make of it, beside the simple models."""
    found = figures.get("verdict") or {}
    return [_sentence(said, t) for said in found["said"]] if "said" in found else found.get("lines", [])


def _quality(figures: dict[str, Any], t: Phrases) -> dict[str, Any] | None:
    """What the template shows of the data's quality; of runs of earlier versions nothing."""
    found = figures.get("quality")
    if found is None:
        return None
    labels = [_sentence(s, t) for s in mislabelled_said(found.get("mislabelled"))]
    return {**found, "said": [_sentence(s, t) for s in found["said"]], "labels": labels}


def _sentence(said: Sequence[Any], t: Phrases) -> str:
    """A phrase and what fills it, of which some are phrases themselves."""
    phrase, values = said
    spoken = {k: t(v) if k in _NAMED else t.said(v) if k == "size" else v for k, v in values.items()}
    return t(phrase, **spoken)


def _ends(figure: dict[str, float | None]) -> dict[str, float | None]:
    """A figure as it is drawn: one whose interval cannot be told is a dot."""
    return {"value": figure["value"]} | {
        k: figure["value"] if figure[k] is None else figure[k] for k in ("low", "high")
    }
