"""What the pages of a run share: their templates, and the language they are written in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from weft.progress import duration
from weft.results.metrics import METRICS

_THREE_DIGITS = {"auc", "f1", "micro_f1", "macro_f1", "average_precision", "r2", "ndcg_at_10", "mrr"}


@cache
def chinese() -> dict[str, str]:
    """The phrases of the pages in Chinese, by their English ones."""
    return json.loads((files("weft.results") / "templates" / "chinese.json").read_text(encoding="utf-8"))


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """What runs say of their data (reasons, warnings), as patterns, each with its Chinese words."""
    said = json.loads((files("weft.results") / "templates" / "said_zh.json").read_text(encoding="utf-8"))
    return [
        (re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(english)), re.DOTALL), words)
        for english, words in sorted(said.items(), key=lambda pair: pair[0].count("{"))  # the plainest first
    ]


class Phrases:
    """Phrases of a page in its ``language`` (en or zh). They are written in English, with ``{names}`` to fill."""

    def __init__(self, language: str = "en"):
        self.language = language
        self._known = chinese() if language == "zh" else {}

    def __call__(self, phrase: str, **values: Any) -> str:
        return self._known.get(phrase, phrase).format(**values)

    def said(self, line: str) -> str:
        """A line that a run keeps in English, in the language of the page; one that is not known as it is."""
        if self.language == "zh":
            for pattern, words in _patterns():
                if found := pattern.fullmatch(line):
                    return re.sub(r"\{(\w+)\}", lambda name: found[name[1]], words)
        return line

    def listed(self, parts: Sequence[str]) -> str:
        """a, b and c"""
        comma, and_ = ("、", "和") if self.language == "zh" else (", ", " and ")
        return "".join(parts) if len(parts) < 2 else comma.join(parts[:-1]) + and_ + parts[-1]

    def quoted(self, name: str) -> str:
        return f"“{name}”" if self.language == "zh" else f"'{name}'"


def environment(language: str = "en") -> Environment:
    """The templates, which say ``t("a phrase")`` where a phrase has both languages."""
    found = Environment(
        loader=PackageLoader("weft.results", "templates"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["count"] = lambda n: f"{n:,}"
    found.filters["duration"] = duration
    made = datetime.now(UTC).date().isoformat()
    found.globals |= {"figure": _figure, "t": Phrases(language), "made": made, "weft": version("weft")}
    return found


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if METRICS[key].percent:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if key in _THREE_DIGITS else f"{value:.3g}"
