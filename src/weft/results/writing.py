"""The figures of texts that are written from others: beside the references, and beside simple writers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from weft.results.beside import Judged
from weft.results.language import Surprise, estimates
from weft.results.metrics import Estimate
from weft.results.text import TextScores
from weft.results.text_baselines import Lexicon, first_sentence, sentences

SHOWN_TEXTS = ("bleu", "chrf", "rougeL", "exact_match", "perplexity")
FAMILIES = ("bleu", "chrf", "rouge", "squad")
_KEPT = (*SHOWN_TEXTS, "answer_f1")


def judge_texts(written: Sequence[str], references: Sequence[str]) -> tuple[dict[str, Estimate], TextScores]:
    """Each figure with its interval over the rows, and what says how to get the same figures."""
    scores = TextScores(FAMILIES)
    scores.add(written, [[reference] for reference in references])
    return scores.estimates(), scores


def writing_figures(found: dict[str, Estimate], lost: Surprise | None = None) -> dict[str, Estimate]:
    """What a report holds of a writer; ``lost``: how surprised it is by the references."""
    if lost is not None:
        found = found | {"perplexity": estimates(lost, masked=False)["perplexity"]}
    return {key: found[key] for key in _KEPT if key in found}


def simple_writers(
    pairs: Sequence[tuple[str, str]], sources: Sequence[str], references: Sequence[str]
) -> list[dict[str, Any]]:
    """Models that need no network, on the same rows: the source itself, its first sentence, word for word.

    Args:
        pairs: sources and targets that may be learnt from.
    """
    writers: list[tuple[str, str, str, Callable[[], Callable[[str], str]]]] = [
        ("copy", "The source itself", "", lambda: lambda source: source)
    ]
    if sources and np.mean([sentences(source) for source in sources]) >= 2:
        writers.append(("first", "Its first sentence", "", lambda: first_sentence))
    note = "each word becomes what stands beside it most often in the training rows"
    writers.append(("lexicon", "Word for word", note, lambda: Lexicon(pairs)))
    found = []
    for key, title, note, make in writers:
        started = time.monotonic()
        write = make()
        seconds = time.monotonic() - started
        estimated, _ = judge_texts([write(source) for source in sources], references)
        found.append(Judged(key, title, writing_figures(estimated), note=note, seconds=seconds).to_dict())
    return found


def writing_sentence(found: dict[str, Estimate], others: Sequence[dict[str, Any]], judged: str) -> str:
    """The result in words."""
    bleu, chrf = found["bleu"], found["chrf"]
    text = f"On {judged}, its texts reach BLEU {bleu.value:.1f} ({bleu.interval('.1f')}) and chrF {chrf.value:.1f}."
    best = max(others, key=lambda o: o["metrics"]["bleu"]["value"], default=None)
    if best is None:
        return text
    theirs = best["metrics"]["bleu"]["value"]
    title = best["title"][0].lower() + best["title"][1:]
    if theirs >= bleu.value:
        return f"{text} A simple way ({title}) reaches BLEU {theirs:.1f}: the model has not learnt to write this."
    return f"{text} The best simple way ({title}) reaches BLEU {theirs:.1f}."
