"""``weft audit``: what its sections say, on a terminal and on a page of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.files import write_whole
from weft.results.audit.words import lines
from weft.results.metrics import METRICS
from weft.results.pages import Phrases, environment

TITLES = {
    "groups": "Whom it fails, and by how much",
    "suite": "How it leans, by a published test",
    "members": "Whom it remembers",
    "canaries": "Which planted secrets it remembers",
    "swaps": "The same words with another identity in them",
    "personal": "What personal data is in here",
}
"""Of each section, in the order of the page; its figures are drawn by the template ``audit_NAME.html``."""
_ALL = "Judged on {rows:,} rows."
_OWN = "Judged on {rows:,} rows: of the data of the training only those that were not learnt from."


def judged(section: dict[str, Any], t: Phrases) -> str:
    """Which rows a section judges."""
    return t(_OWN if "of the training data" in section["part"] else _ALL, rows=section["rows"])


def in_words(found: dict[str, Any], language: str = "en") -> dict[str, list[str]]:
    """The sentences of each section of an audit."""
    t = Phrases(language)
    told: dict[str, list[str]] = {}
    for name, section in found["sections"].items():
        told[name] = [judged(section, t)] if "part" in section else []
        for part in section.get("columns", ()):
            told[name] += [t("By {column}", column=part["column"]) + t(":"), *lines(part["said"], t)]
        told[name] += lines(section["said"], t)
    return told


def write_page(path: Path, found: dict[str, Any], language: str = "en") -> Path:
    """One page of an audit, without script, links or anything from elsewhere."""
    page = environment(language).get_template("audit.html")
    t = Phrases(language)
    write_whole(path, page.render(
        f=found, titles=TITLES, METRICS=METRICS, lines=lambda said: lines(said, t),
        judged=lambda section: judged(section, t),
    ))  # fmt: skip
    return path
