"""What a training of a given size takes on given devices: memory, layout, speed, days, energy, money. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from weft.errors import UsageError
from weft.estimates.devices import Device
from weft.estimates.layouts import RESERVE, choose, in_words
from weft.estimates.scaling import CORRECTED, WAYS
from weft.estimates.sizes import Layout, Shape, activations, memory, usual_shape
from weft.memory import size_in_words
from weft.progress import duration

UTILISATION = 0.4
"""Of the peak, where nothing is said: model FLOPs utilisation (Chowdhery 2022). Published runs reach 0.2 to 0.55."""
PUE = 1.1
"""Energy of the building by that of its machines (LLaMA's, Touvron 2023)."""
CONTEXT = 4_096
_BATCHES = ((1e9, 2**19), (5e9, 2**20), (100e9, 2**21), (float("inf"), 2**22))


@dataclass(frozen=True)
class Asked:
    """What a plan is made for; None: what is best for the other, or not said."""

    parameters: float | None
    tokens: float | None
    devices: int = 0
    device: Device | None = None
    context: int = CONTEXT
    utilisation: float = UTILISATION
    pue: float = PUE
    price_per_gpu_hour: float | None = None
    co2_per_kwh: float | None = None
    shape: Shape | None = None
    """Of a model that is there; None: the usual one of its size."""
    passes: int = 1
    """Times that the tokens are read."""
    batch_tokens: int | None = None
    """Of a step; None: what is usual for the size."""
    writes: bool = True
    """Whether a language is learnt from nothing, for which there are laws of size."""

    def __post_init__(self) -> None:
        if self.parameters is None and self.tokens is None:
            raise UsageError("weft plan: must be given a pipeline FILE, --params or --tokens. Got none of them.")
        if not 0 < self.utilisation <= 1:
            raise UsageError(f"--utilisation: must be above 0 and at most 1. Got {self.utilisation:g}.")
        if self.context < 1:
            raise UsageError(f"--context: must be at least 1 token. Got {self.context:,}.")
        if self.pue < 1:
            raise UsageError(f"--pue: must be at least 1: the building takes what its machines take. Got {self.pue:g}.")
        for name, value in (("price-per-gpu-hour", self.price_per_gpu_hour), ("co2-per-kwh", self.co2_per_kwh)):
            if value is not None and value < 0:
                raise UsageError(f"--{name}: must not be below 0. Got {value:g}.")


def plan(asked: Asked) -> dict[str, Any]:
    """The figures of a plan, and ``words`` for a person. Raises UsageError where no layout fits."""
    parameters = asked.parameters or CORRECTED.size_for(asked.tokens or 0)
    tokens = asked.tokens or CORRECTED.tokens_for(parameters)
    shape, best = asked.shape or usual_shape(parameters), {way.name: way.size_for(tokens) for way in WAYS}
    loss = CORRECTED.loss(shape.parameters, tokens)
    a_token = shape.products(asked.context)
    found: dict[str, Any] = {
        "parameters": shape.parameters, "tokens": tokens, "context": asked.context,
        "shape": asdict(shape) | {"hidden": shape.hidden},
        "optimal_parameters": best, "optimal_tokens": {way.name: way.tokens_for(parameters) for way in WAYS},
        "loss": loss, "flops": a_token * tokens * asked.passes, "cache_bytes": shape.cache(asked.context),
        "checkpoint_bytes": 20 * shape.parameters,
    }  # fmt: skip
    usual = f", {shape.vocabulary:,} kinds of token (the usual shape nearest to {in_units(parameters)})"
    cache = size_in_words(found["cache_bytes"])
    words = {
        "model": f"{in_units(shape.parameters)} parameters: {shape.layers} layers of width {shape.width:,}, "
        f"{shape.heads} heads" + ("" if asked.shape else usual),
        "data": f"{in_units(tokens)} tokens, {tokens / parameters:.3g} a parameter, in rows of {asked.context:,}"
        + (f", read {asked.passes} times" if asked.passes > 1 else "")
        + ("" if asked.tokens else ": what is best for this size (Besiroglu 2024)"),
        "best size": "; ".join(f"{in_units(size)} ({name})" for name, size in best.items()) + " for these tokens",
        "loss": f"about {loss:.2f} nats a token by Besiroglu 2024, of the texts and tokens of Hoffmann 2022",
        "products": f"{found['flops']:.3g} FLOPs, {a_token / 1e9:.3g} billion a token forward and back",
        "writing": f"{size_in_words(2 * shape.parameters)} of weights in bfloat16 and {cache} of keys and values for "
        f"each text of {asked.context:,} tokens",
        "disk": f"{size_in_words(20 * shape.parameters)} a checkpoint: weights, two moments, average, best",
    }
    if not asked.writes:
        for key in ("best size", "loss", "writing"):
            del words[key]
    if asked.device is None:
        alone = memory(shape, asked.context, Layout())
        found["memory"] = alone
        words["memory"] = f"{size_in_words(sum(alone.values()))} on one device: {_parts(alone)}"
        words["next"] = "name devices for a layout, days and energy, e.g. --gpus 64xH100"
        return found | {"words": words}
    more, said = _on_devices(asked, asked.device, shape, tokens * asked.passes)
    return found | more | {"words": words | said}


def _on_devices(asked: Asked, device: Device, shape: Shape, tokens: float) -> tuple[dict[str, Any], dict[str, str]]:
    """How so many devices learn so many tokens: layout, memory by part, time, energy, money."""
    usual = asked.batch_tokens or next(batch for most, batch in _BATCHES if shape.parameters < most)
    layout = choose(shape, asked.context, asked.devices, device, usual)
    at_once = layout.shares * layout.rows * asked.context
    accumulate = max(1, round(usual / at_once))
    parts = memory(shape, asked.context, layout)
    rate = asked.devices * device.peak * asked.utilisation / shape.products(asked.context)
    hours = tokens / rate / 3600
    energy = asked.devices * device.watts * asked.pue * hours / 1000
    used, other = sum(parts.values()), activations(shape, asked.context, layout, fused=False)
    other_way = replace(layout, checkpoint_activations=not layout.checkpoint_activations)
    found: dict[str, Any] = {
        "devices": asked.devices, "device": asdict(device), "layout": asdict(layout), "accumulate": accumulate,
        "batch_tokens": at_once * accumulate, "memory": parts, "memory_bytes": used,
        "memory_share": used / device.memory, "reserve": RESERVE,
        "activations_not_fused": other, "activations_other_way": activations(shape, asked.context, other_way),
        "utilisation": asked.utilisation, "tokens_a_second": rate, "seconds": 3600 * hours,
        "device_hours": asked.devices * hours, "kwh": energy, "pue": asked.pue,
    }  # fmt: skip
    off = "without" if layout.checkpoint_activations else "with"
    spent, power = (f"{float(f'{x:.3g}'):,g}" for x in (asked.devices * hours, energy))
    words = {
        "layout": f"{in_words(layout)}; {layout.rows} x {asked.context:,} tokens a device at once, {accumulate} times "
        f"a step: {in_units(at_once * accumulate)} tokens a step",
        "memory": f"{size_in_words(used)} of {size_in_words(device.memory)} a device ({used / device.memory:.0%}, "
        f"{RESERVE:.0%} is left free): {_parts(parts)}",
        "": f"activations {size_in_words(found['activations_other_way'])} {off} checkpoints, "
        f"{size_in_words(other)} without fused attention",
        "speed": f"{rate:,.0f} tokens a second, {asked.utilisation:.0%} of the peak of {asked.devices:,} x "
        f"{device.name} ({device.peak / 1e12:,.4g} TFLOP/s each)",
        "time": (f"{hours / 24:,.1f} days" if hours >= 48 else duration(3600 * hours)) + f", {spent} device hours",
        "energy": f"{power} kWh: {device.watts:g} W a device at the most, PUE {asked.pue:g}, without hosts and links",
    }
    if not device.watts:
        words["energy"] = "not known, as what this device draws is not"
    if at_once > 2 * usual:
        words["warning"] = (
            f"a step of {in_units(at_once)} tokens is larger than "
            + ("the file's" if asked.batch_tokens else "is usual for this size (Brown 2020)")
            + f", {in_units(usual)}: fewer devices learn more from each token"
        )
    if asked.price_per_gpu_hour is not None:
        found["money"] = asked.devices * hours * asked.price_per_gpu_hour
        words["money"] = f"{found['money']:,.0f} at {asked.price_per_gpu_hour:g} a device hour"
    if asked.co2_per_kwh is not None:
        found["co2_kg"] = energy * asked.co2_per_kwh
        words["CO2"] = f"{found['co2_kg']:,.3g} kg at {asked.co2_per_kwh:g} kg a kWh"
    return found, words


def in_units(count: float) -> str:
    """``6.74B``."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= 0.9995 * limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.3g}"


def _parts(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {size_in_words(size)}" for name, size in parts.items())
