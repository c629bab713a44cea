"""``weft plan``"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from weft.cli import Json, answer
from weft.estimates.devices import DEVICES, THIS, count_of, gpus_of
from weft.estimates.plan import CONTEXT, PUE, UTILISATION, Asked
from weft.estimates.plan import plan as make


def plan(
    *, params: str | None = None, tokens: str | None = None, gpus: str | None = None, context: int = CONTEXT,
    utilisation: float = UTILISATION, pue: float = PUE, price_per_gpu_hour: float | None = None,
    co2_per_kwh: float | None = None, json: Json = False,
) -> None:  # fmt: skip
    """Say what a training will take before any of it is spent."""
    count, name = gpus_of(gpus) if gpus else (0, "")
    asked = Asked(
        count_of(params, "--params") if params else None, count_of(tokens, "--tokens") if tokens else None, count,
        DEVICES.get(name), context, utilisation, pue, price_per_gpu_hour, co2_per_kwh,
    )  # fmt: skip
    found = make(asked)
    answer(json, found, [f"{key:<10} {text}" for key, text in found["words"].items()])
