"""Beam search: of the texts that can be written, one whose log probability (by length) is nearly the highest.

At every step the ``beams`` best texts are grown by every token and the best of all these are kept
(Lowerre 1976; Graves 2012). A finished text Y scores log p(Y) / |Y|^length_penalty; Wu 2016 (eq. 14) divides by
((5 + |Y|) / 6)^length_penalty, which orders texts alike but for the shortest. The search of a text ends as in
``transformers``: when none of those still growing would beat the worst of the ``beams`` finished ones now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from weft.inference.letters import Line
from weft.inference.sampling import only, repeated
from weft.models.language import Continuation


@dataclass
class Beam:
    """A text with its log probability; one of -inf only holds a place."""

    line: Line
    score: float


class Search:
    """The beams of one prompt."""

    def __init__(self, line: Line, width: int, length_penalty: float):
        self.width, self.length_penalty = width, length_penalty
        self.beams = [Beam(line, 0.0 if i == 0 else -math.inf) for i in range(width)]
        self.finished: list[Beam] = []
        self.done = False

    @property
    def best(self) -> Line:
        return self.finished[0].line

    def grow(self, candidates: Sequence[tuple[float, int, int, float]]) -> list[int]:
        """Go on with the best of (score, beam, token, log probability), best first; which beams they grew from."""
        grown: list[Beam] = []
        sources: list[int] = []
        for rank, (score, source, token, log_probability) in enumerate(candidates):
            if score == -math.inf or (rank >= self.width and len(grown) == self.width):
                break
            line = self.beams[source].line.fork()
            line.take(token, log_probability)
            if line.stopped is None:
                if len(grown) < self.width:
                    grown.append(Beam(line, score))
                    sources.append(source)
            elif rank < self.width:  # a lower one is there only to keep the beams full
                self.finished.append(Beam(line, self._judged(line, score)))
        self.finished = sorted(self.finished, key=_merit, reverse=True)[: self.width]
        if not grown:
            self.done = True
            return []
        hope = self._judged(grown[0].line, grown[0].score)
        self.done = len(self.finished) == self.width and (True, hope) <= _merit(self.finished[-1])
        missing = self.width - len(grown)
        self.beams = grown + [Beam(grown[0].line, -math.inf)] * missing
        return sources + sources[:1] * missing

    def _judged(self, line: Line, score: float) -> float:
        return score / len(line.ids) ** self.length_penalty


def _merit(beam: Beam) -> tuple[bool, float]:
    """A text that breaks its constraint, cut off before its end, is worse than any that does not."""
    return beam.line.valid is not False, beam.score


def search(reading: Continuation, lines: Sequence[Line], width: int, length_penalty: float, penalty: float,
           seen_BV: Tensor | None) -> list[Line]:  # fmt: skip
    """The best text after each prompt that ``reading`` has read.

    The repetition penalty acts on log probabilities here, as in ``transformers``.
    """
    searches = [Search(line, width, length_penalty) for line in lines]
    device = reading.logits_BV.device
    keep = torch.arange(len(lines), device=device).repeat_interleave(width)
    reading.select(keep)
    seen_BV = None if seen_BV is None else seen_BV[keep]
    live = searches
    vocabulary = reading.logits_BV.shape[-1]
    # every end may take one place a beam, and as many again must go on
    most = min(max(2, 1 + len(lines[0].ends)) * width, width * vocabulary)
    while True:
        own = reading.logits_BV.float().log_softmax(dim=-1)
        scored = own if seen_BV is None else repeated(own, seen_BV, penalty)
        states = [b.line.state.allowed for s in live for b in s.beams if b.line.state is not None]
        scored = only(scored, torch.from_numpy(np.stack(states)).to(device) if states else None)
        so_far = torch.tensor([[b.score for b in s.beams] for s in live], device=device)
        scores, places = (so_far[:, :, None] + scored.view(len(live), width, -1)).flatten(1).topk(most)
        log_probabilities = own.view(len(live), -1).gather(1, places)
        sources: list[int] = []
        for i, (s, *found) in enumerate(
            zip(live, scores.tolist(), places.tolist(), log_probabilities.tolist(), strict=True)
        ):
            values, where, logs = found
            candidates = [(v, p // vocabulary, p % vocabulary, q) for v, p, q in zip(values, where, logs, strict=True)]
            grown = s.grow(candidates)
            if not s.done:
                sources += [i * width + g for g in grown]
        live = [s for s in live if not s.done]
        if not live:
            return [s.best for s in searches]
        keep = torch.tensor(sources, device=device)
        tokens = torch.tensor([b.line.ids[-1] for s in live for b in s.beams], device=device)
        reading.select(keep)
        reading.step(tokens)
        if seen_BV is not None:
            seen_BV = seen_BV[keep].scatter(1, tokens[:, None], True)
