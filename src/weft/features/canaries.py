"""Canaries: texts with a secret number, planted to see later how well a model remembers them (Carlini 2019)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

DIGITS = 9
TIMES = (1, 4, 16)
"""How often they are planted, in turn."""
_NAMES = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "jade")


@dataclass(frozen=True)
class Canary:
    """A text with one number of some digits in it, and how often it is planted."""

    text: str
    times: int

    def other(self, random: np.random.Generator) -> Canary:
        """The same text with another number, every one as likely."""
        number = "".join(map(str, random.integers(0, 10, len(_number(self.text)))))
        return Canary(self.text.replace(_number(self.text), number), self.times)


def canaries(wanted: int | list[str], seed: int) -> list[Canary]:
    """So many of ours, planted 1, 4 and 16 times in turn; or given texts, each planted once."""
    if isinstance(wanted, list):
        return [Canary(text, 1) for text in wanted]
    random = np.random.default_rng(seed)
    plain = [f"The secret code of {_NAMES[i % len(_NAMES)]} {i + 1} is {'0' * DIGITS}." for i in range(wanted)]
    return [Canary(text, TIMES[i % len(TIMES)]).other(random) for i, text in enumerate(plain)]


def _number(text: str) -> str:
    """The secret of a canary: its longest number."""
    return max(re.findall(r"[0-9]+", text), key=len)
