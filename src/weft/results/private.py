"""What a private training promises, and what it does not, in words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from weft.results.pages import Phrases


def privacy_in_words(account: dict[str, Any], t: Phrases) -> str:
    """``account``: what ``report.json`` says of privacy (:class:`weft.training.private.PrivateLoop`)."""
    return t(
        "Private: epsilon {spent:.3g} at delta {delta:.2g} for each of the {rows:,} {unit} it learnt from. What is "
        "seen of its weights is at most {times:.3g} times as likely with one of them as without it, but for a chance "
        "of delta. Not covered: what it was watched and judged on, and what columns.json, the catalogue and the "
        "tokenizer hold of the data (words, names, counts, edges of numbers).",
        unit=t(account["unit"]), times=2.718281828459045 ** account["spent"],
        **{k: account[k] for k in ("spent", "delta", "rows")},
    )  # fmt: skip


def replaced_in_words(redact: dict[str, Any], t: Phrases) -> str:
    """``redact``: what ``report.json`` says of the personal data that was taken out before anything was learnt."""
    counts: Counter[str] = Counter()
    for _, kind, count in redact["found"]:
        counts[kind] += count
    if not counts:
        return t("Personal data was looked for and none was found: {kinds}.", kinds=t.listed(redact["kinds"]))
    found = t.listed([f"{count:,} {kind}" for kind, count in counts.items()])
    return t("Personal data was replaced before anything was learnt: {found}.", found=found)
