"""What noisy steps say of a row: the epsilon that is spent, and the noise that keeps within one.

A step draws every row with the same chance (Poisson sampling), adds up their clipped gradients and Gaussian noise
(Abadi 2016). Steps are composed by their privacy loss distributions (Koskela 2020), with the library of Google's
privacy team; nothing is tighter that is proven. Two tables are neighbours where one lacks a row of the other.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from weft.errors import UsageError

CLOSE = 1e-3


@cache
def spent(noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon, at ``delta``, of ``steps`` steps that draw a row with the chance ``rate``.

    ``noise``: deviation of what is added to the sum of the gradients, in units of the longest that one may be.
    """
    if not steps:
        return 0.0
    library, accountant = _library()
    step = library.PoissonSampledDpEvent(rate, library.GaussianDpEvent(noise))
    return float(accountant().compose(library.SelfComposedDpEvent(step, steps)).get_epsilon(delta))


@cache
def noise_for(epsilon: float, rate: float, steps: int, delta: float) -> float:
    """The least noise with which all steps together spend no more than ``epsilon``, to a thousandth of it."""
    high = 1.0
    while spent(high, rate, steps, delta) > epsilon:
        high *= 2
    low = high / 2
    while spent(low, rate, steps, delta) <= epsilon:
        low, high = low / 2, low
    while (most := spent(high, rate, steps, delta)) < (1 - CLOSE) * epsilon:
        # log epsilon is nearly a line in log noise; aimed a little to the safe side
        least = spent(low, rate, steps, delta)
        share = math.log(least / ((1 - CLOSE / 2) * epsilon)) / math.log(least / most)
        middle = low * (high / low) ** min(max(share, 0.05), 0.95)
        low, high = (middle, high) if spent(middle, rate, steps, delta) > epsilon else (low, middle)
    return high


def _library() -> tuple[Any, Any]:
    try:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
    except ImportError:
        raise UsageError(
            "training.privacy: needs the package dp-accounting. Got none. Run: python -m pip install dp-accounting"
        ) from None
    return dp_event, PLDAccountant
