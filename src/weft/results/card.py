"""``README.md`` of a run, its model card: what it is for and not for, data, figures, groups, privacy, time and energy,
in words (Mitchell 2019). It says nothing that ``report.json`` does not hold, and is the user's to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.files import write_whole
from weft.progress import duration
from weft.results.audit.page import in_words
from weft.results.metrics import METRICS
from weft.results.pages import Phrases, environment
from weft.results.private import privacy_in_words, replaced_in_words
from weft.results.report import headline, verdict

WATTS = 10
"""Of a busy core with its share of memory and supply: assumed, a server takes less and an old desktop more."""
_CARDS = {"row": "card.md", "text": "text_card.md", "span": "answers_card.md", "embedding": "pairs_card.md",
          "ranking": "ranking_card.md"}  # fmt: skip
_WRITES = ("next_token", "text", "dialogue")
OTHERS = "Rows of another kind (another country, another year) get an answer too, for which no figure here vouches."
ALONE = "Nobody should be judged by it alone: somebody who can be asked and can decide otherwise belongs beside it."
UNREAD = "What it writes may be false or hurtful where it reads well: publish nothing unread."
UNSEEN = "Not looked at. `weft audit THIS_FOLDER DATA --by COLUMN` says whom it fails, by how much and how surely."
OPEN = "It learnt without differential privacy: who has the model may learn something of single rows."
KEPT = "No personal data was replaced: the folder may hold names and words of its table."
TOOK = (
    "It took {time} and {cpu:,.0f} CPU seconds, about {hours:.2g} watt hours at {watts} watts for a busy core, which "
    "is assumed and not measured; what a GPU took is not in it."
)


def write_card(folder: Path, figures: dict[str, Any], language: str = "en") -> None:
    """Write the run's ``README.md`` in a language (en or zh)."""
    t = Phrases(language)
    task = figures.get("task", "row")
    page = environment(language).get_template(_CARDS.get(task, "language_card.md")).render(
        f=figures, shown=[METRICS[k] for k in figures["shown"]], headline=headline(figures, t),
        verdict=verdict(figures, t), sections=_sections(figures, task in _WRITES, t),
    )  # fmt: skip
    write_whole(folder / "README.md", page.replace("<", "&lt;"))  # names come from the data, markup does not


def _sections(figures: dict[str, Any], writes: bool, t: Phrases) -> list[tuple[str, list[str]]]:
    """Title and sentences of what every card says."""
    fairness, spent, energy = figures.get("fairness"), figures.get("privacy"), figures["energy"]
    took = t(
        TOOK, time=duration(sum(figures["seconds"].values())), cpu=energy["cpu_seconds"], hours=energy["watt_hours"],
        watts=energy["watts_a_core"],
    )  # fmt: skip
    groups = in_words({"sections": {"groups": fairness}}, t.language)["groups"] if fairness else [t(UNSEEN)]
    private = privacy_in_words(spent, t) if spent else t(OPEN)
    redact = figures.get("redact")
    replaced = replaced_in_words(redact, t) if redact else t(KEPT)
    return [
        (t("What it is not for"), [*([t(UNREAD)] if writes else []), t(OTHERS), t(ALONE)]),
        (t("Groups"), groups),
        (t("Privacy"), [replaced, private]),
        (t("Time and energy"), [took]),
    ]
