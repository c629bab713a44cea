"""What a private training promises, and what it does not, in words."""

from __future__ import annotations

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
