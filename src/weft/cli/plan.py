"""``weft plan``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.cli import Json, Many, Memory, answer, typed
from weft.errors import UsageError
from weft.estimates.devices import DEVICES, THIS, Device, count_of, gpus_of
from weft.estimates.plan import CONTEXT, PUE, UTILISATION, Asked
from weft.estimates.plan import plan as plan_of
from weft.progress import Spoken

LEAST_PROBE = 1.0


def plan(
    file: Path | None = None, /, *,
    params: str | None = None, tokens: str | None = None, gpus: str | None = None,
    context: int | None = None, utilisation: float = UTILISATION, pue: float = PUE,
    price_per_gpu_hour: float | None = None, co2_per_kwh: float | None = None, probe: float | None = None,
    set: Many = (), memory: Memory = None, json: Json = False,
) -> None:  # fmt: skip
    """Say what a training will take before any of it is spent: of a pipeline file here, or of a size on any devices.

    Args:
        file: A pipeline file, in the place of --params and --tokens.
        params: Parameters, e.g. 350M or 7B (default: what suits --tokens).
        tokens: Tokens that are learnt, e.g. 140B (default: what suits --params).
        gpus: Devices, e.g. 64xH100; this is this machine, measured.
        context: Tokens of a row (default: 4,096, or what the file says).
        utilisation: Share of the devices' peak that the products of the model reach (MFU).
        pue: Energy of the building by that of its devices.
        price_per_gpu_hour: What a device costs an hour; no money is said without it.
        co2_per_kwh: Kilograms of CO2 of a kWh; none are said without it.
        probe: Rehearse FILE here for so many seconds of training, and say what that tells of the whole.
        set: A setting laid over the file, e.g. --set training.epochs=5; may be given several times.
    """
    if file is None and (probe is not None or set):
        raise UsageError(f"weft plan: --{'set' if set else 'probe'} is for a pipeline file. Got none. Name it.")
    if file is not None and (params or tokens):
        raise UsageError("weft plan: must be given a pipeline file or sizes. Got both. Leave one out.")
    if probe is not None and probe < LEAST_PROBE:
        raise UsageError(f"--probe: must be at least {LEAST_PROBE:g} second. Got {probe:g}. 20 tells enough.")
    count, device = _devices(gpus)
    common: dict[str, Any] = {"devices": count, "device": device, "utilisation": utilisation, "pue": pue,
              "price_per_gpu_hour": price_per_gpu_hour, "co2_per_kwh": co2_per_kwh}  # fmt: skip
    if file is None:
        size, data = (
            count_of(text, name) if text else None for text, name in ((params, "--params"), (tokens, "--tokens"))
        )
        found = plan_of(Asked(size, data, context=context or CONTEXT, **common))
        words: dict[str, str] = found["words"]
    else:
        found, model = _of_file(file, set, probe, memory, gpus is not None)
        words = found["words"]
        if gpus:
            found["on_devices"] = plan_of(Asked(**model, context=context or found["context"], **common))
            words |= {f"{key} ": text for key, text in found["on_devices"].pop("words").items()}
    if file is not None:
        words["next"] = (
            typed("run", file) if probe else f"{typed('plan', file)} --probe 20, which rehearses it and measures"
        )
    answer(json, found | {"words": words}, [f"{key:<12}{text}" for key, text in words.items()])


def _devices(gpus: str | None) -> tuple[int, Device | None]:
    if gpus is None:
        return 0, None
    count, name = gpus_of(gpus)
    if name != THIS:
        return count, DEVICES[name]
    from weft.estimates.here import measure

    return count, measure()


def _of_file(
    file: Path, set: Many, probe: float | None, memory: str | None, elsewhere: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a pipeline file takes on this machine, and what its plan for others (``elsewhere``) begins from."""
    from weft import config
    from weft.cli.check import estimated
    from weft.estimates.here import of_file, of_model

    settings, say = config.load(file, set), Spoken()
    say.line(
        "a few steps on the first rows" if probe is None else f"a few steps, then a rehearsal that trains {probe:g} s"
    )
    told = estimated(settings, memory)
    return of_file(settings, told, probe), of_model(settings, told) if elsewhere else {}
