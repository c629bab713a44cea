"""The figures of a language model: how surprised it is by texts it never saw, beside simple models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from weft.features.pieces import Corpus, Cuts
from weft.results.metrics import Estimate, Weighted, difference, mean_of, with_intervals

LN2 = float(np.log(2))
SHOWN_WRITING = ("bits_per_byte", "bits_per_letter", "perplexity")
MOST_POINTS = 200
SHOWN_READING = ("masked_perplexity",)


@dataclass
class Surprise:
    """-log p in nats of each piece of the texts that are judged, and the size of each [N]."""

    nats: np.ndarray
    tokens: np.ndarray
    letters: np.ndarray
    bytes: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Surprise]) -> Surprise:
        """The pieces of all parts."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    @classmethod
    def of(cls, corpus: Corpus, cuts: Cuts, numbers: np.ndarray, nats: np.ndarray, tokens: np.ndarray) -> Surprise:
        """Of some pieces; the size of a document is dealt to its pieces by tokens."""
        document, (start, stop) = cuts.document[numbers], cuts.spans(numbers)
        share = (stop - start) / np.maximum(1, corpus.documents.lengths()[document])
        letters, size = corpus.documents.letters[document] * share, corpus.documents.bytes[document] * share
        kept = tokens > 0
        return cls(nats[kept], tokens[kept], letters[kept], size[kept])

    def metrics(self, masked: bool) -> dict[str, Weighted]:
        """Functions of the pieces' weights. Of hidden tokens alone nothing is said of letters or bytes."""
        if masked:
            return {"masked_perplexity": lambda w: float(np.exp((w * self.nats).sum() / (w * self.tokens).sum()))}
        return {
            "bits_per_byte": mean_of(self.nats / LN2, self.bytes),
            "bits_per_letter": mean_of(self.nats / LN2, self.letters),
            "nats_per_letter": mean_of(self.nats, self.letters),
            "perplexity": lambda w: float(np.exp((w * self.nats).sum() / (w * self.tokens).sum())),
        }


def estimates(surprise: Surprise, masked: bool) -> dict[str, Estimate]:
    """Each figure with its interval over resamples of the pieces."""
    return with_intervals(surprise.metrics(masked), len(surprise.nats))


def carried_over(
    new: tuple[Surprise, Surprise], old: tuple[Surprise, Surprise] | None, masked: bool
) -> dict[str, dict[str, dict[str, float | None]]]:
    """What a model that went on learning gained on its new texts and lost on the old ones.

    Args:
        new, old: the texts' costs before and after, piece by piece.

    Returns:
        ``new`` and ``old``: the first figure of the task ``before``, ``after`` and their ``change``, each with its
        interval (that of the change over resamples of the same pieces).
    """
    key = (SHOWN_READING if masked else SHOWN_WRITING)[0]
    found = {}
    for name, pair in (("new", new), ("old", old)):
        if pair is not None:
            before, after = (p.metrics(masked) for p in pair)
            found[name] = {
                "before": estimates(pair[0], masked)[key].to_dict(), "after": estimates(pair[1], masked)[key].to_dict(),
                "change": difference(after, before, key, len(pair[0].nats)).to_dict(),
            }  # fmt: skip
    return found


def carried_sentence(found: dict[str, Any], masked: bool, source: str) -> str:
    """The same in words."""
    unit = "tokens between which it hesitates" if masked else "bits a byte"

    def told(name: str) -> str:
        return f"from {found[name]['before']['value']:.3g} to {found[name]['after']['value']:.3g}"

    old = f"on those of {source} {told('old')}" if "old" in found else f"what was lost on {source} is not known"
    return f"Going on from {source}: on the new texts {told('new')} {unit}, {old}."


def language_sentence(found: dict[str, Estimate], others: Sequence[dict[str, Any]], judged: str) -> str:
    """The result in words."""
    if "masked_perplexity" in found:
        e = found["masked_perplexity"]
        return (
            f"In {judged}, it hesitates between {e.value:.3g} tokens on average where a token is hidden "
            f"(95 % interval {e.low:.3g} to {e.high:.3g})."
        )
    e = found["bits_per_byte"]
    best = min(others, key=lambda o: o["metrics"]["bits_per_byte"]["value"], default=None)
    beside = ""
    if best is not None:
        least = best["metrics"]["bits_per_byte"]["value"]
        ahead = " and is better: give the model more time or more texts, or use that" if least < e.low else ""
        beside = f" The best simple model ({best['title']}) needs {least:.3f}{ahead}."
    return (
        f"In {judged}, it needs {e.value:.3f} bits for a byte of text (95 % interval {e.low:.3f} to {e.high:.3f}), "
        f"and hesitates between {found['perplexity'].value:.3g} tokens on average.{beside}"
    )


def learning(file: Path, tokens_a_step: float) -> dict[str, list[list[float]]]:
    """Losses of a training from its ``metrics.jsonl``: [tokens read, nats], the learnt ones as at most 200 means."""
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = {}
    for key, name in (("train_loss", "train"), ("valid_loss", "valid")):
        points = np.array([[r["step"] * tokens_a_step, r[key]] for r in records if key in r]).reshape(-1, 2)
        groups = np.array_split(points, min(len(points), MOST_POINTS)) if len(points) else []
        found[name] = [[round(float(x)), round(float(y), 4)] for x, y in (g.mean(axis=0) for g in groups)]
    return found
