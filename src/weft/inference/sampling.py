"""How the next token is chosen: greedy or drawn, after its logits were made to follow the settings.

Each function is pure: logits [B, V] in, logits [B, V] out, what may not be written at -inf.
Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weft.errors import UsageError
from weft.inference.constraint import Constraint, check_letters


@dataclass(frozen=True)
class Sampling:
    """How a text is written. A setting that would change nothing is refused rather than passed over."""

    max_tokens: int = 100
    temperature: float = 0.0
    """0: always the most probable token (greedy)."""
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    beams: int = 1
    """Above 1: beam search for the most probable text."""
    length_penalty: float = 1.0
    """Of beam search: above 0 long texts gain, below 0 short ones; 0 takes the plain log probability."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    seed: int = 0
    constraint: Constraint | None = None
    """What may be written; everything, where it is left out."""

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        for name, holds, must in (
            ("max_tokens", self.max_tokens >= 1, "a whole number above 0"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (always the most probable token) or above"),
            ("top_k", self.top_k is None or self.top_k >= 1, "a whole number above 0, or left out"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (1: every token)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (every token) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 (1: none)"),
            ("beams", self.beams >= 1, "a whole number above 0 (1: no search)"),
            ("length_penalty", math.isfinite(self.length_penalty), "a number"),
            ("stop", all(stop), "texts of at least one letter"),
            ("seed", self.seed >= 0, "a whole number from 0"),
        ):
            if not holds:
                raise UsageError(f"{name} must be {must}. Got {getattr(self, name)!r}.")
        for text in stop:
            check_letters(text, "a stop string")
        drawn = [n for n, used in (("temperature", self.temperature > 0), ("top_k", self.top_k is not None),
                                   ("top_p", self.top_p < 1), ("min_p", self.min_p > 0)) if used]  # fmt: skip
        if self.beams > 1 and drawn:
            raise UsageError(
                f"beams look for the most probable text, so nothing is drawn by {drawn[0]}. Leave out one of the two."
            )
        if drawn and self.temperature == 0:
            raise UsageError(f"{drawn[0]} needs a temperature above 0; at 0 the most probable token is always taken.")
        if self.beams == 1 and self.length_penalty != 1:
            raise UsageError("length_penalty is for beam search. Set beams above 1.")
        if stop and self.constraint is not None:
            raise UsageError("a constraint says where a text may end, and a stop string would break it. Leave out one.")


def repeated(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Tokens that the text holds already become less probable (Keskar 2019, 4.1).

    Positive logits are divided by the penalty, negative ones multiplied, so that both fall.
    """
    changed = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, changed, logits_BV)


def cooled(logits_BV: Tensor, temperature: float) -> Tensor:
    """p^(1/temperature), normalised: below 1 the probable becomes more so (Ackley 1985)."""
    return logits_BV / temperature


def top_k(logits_BV: Tensor, k: int) -> Tensor:
    """The k most probable tokens (Fan 2018), and those that are as probable as the last of them."""
    least = logits_BV.topk(min(k, logits_BV.shape[-1])).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least, -math.inf)


def top_p(logits_BV: Tensor, p: float) -> Tensor:
    """The fewest tokens whose probabilities reach p together: the nucleus (Holtzman 2020)."""
    ordered, order = logits_BV.sort(descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    out = before >= p
    return logits_BV.masked_fill(out.scatter(1, order, out), -math.inf)


def min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Tokens at least p times as probable as the most probable one (Nguyen 2024)."""
    probabilities = logits_BV.softmax(dim=-1)
    return logits_BV.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -math.inf)


def only(logits_BV: Tensor, allowed_BV: Tensor | None) -> Tensor:
    """The tokens that a constraint allows; all, where there is none."""
    return logits_BV if allowed_BV is None else logits_BV.masked_fill(~allowed_BV, -math.inf)


def filtered(logits_BV: Tensor, sampling: Sampling, seen_BV: Tensor | None = None, allowed_BV: Tensor | None = None
             ) -> Tensor:  # fmt: skip
    """All that the settings ask, in the order of ``transformers``: repetition, temperature, top-k, top-p, min-p.

    The constraint comes before them all, so that they choose among what may be written.
    """
    s = sampling
    logits_BV = only(logits_BV, allowed_BV)
    if s.repetition_penalty != 1:
        assert seen_BV is not None
        logits_BV = repeated(logits_BV, seen_BV, s.repetition_penalty)
    if s.temperature > 0:
        logits_BV = cooled(logits_BV, s.temperature)
    if s.top_k is not None:
        logits_BV = top_k(logits_BV, s.top_k)
    if s.top_p < 1:
        logits_BV = top_p(logits_BV, s.top_p)
    return min_p(logits_BV, s.min_p) if s.min_p > 0 else logits_BV


def draw(logits_BV: Tensor, randoms: Sequence[np.random.Generator]) -> Tensor:
    """One token a row with the probabilities softmax(logits), by that row's own random numbers.

    The largest of logit + Gumbel noise is distributed so (Gumbel 1954; Maddison 2014). Unlike a walk along the
    cumulated probabilities, it gives the same token when the logits differ by a rounding, as they do from
    batch to batch.
    """
    noise = np.stack([r.standard_exponential(logits_BV.shape[-1], dtype=np.float32) for r in randoms])
    return (logits_BV - torch.from_numpy(noise).clamp(min=1e-37).log().to(logits_BV.device)).argmax(dim=-1)


def choose(logits_BV: Tensor, sampling: Sampling, seen_BV: Tensor | None, allowed_BV: Tensor | None,
           randoms: Sequence[np.random.Generator]) -> Tensor:  # fmt: skip
    """The next token of every row."""
    left = filtered(logits_BV, sampling, seen_BV, allowed_BV)
    return draw(left, randoms) if sampling.temperature > 0 else left.argmax(dim=-1)
