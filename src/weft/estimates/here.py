"""This machine: what it is as a device, and what a pipeline file takes on it."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from weft import memory
from weft.config import Settings
from weft.errors import UsageError
from weft.estimates.devices import DEVICES, THIS, Device
from weft.estimates.plan import in_units
from weft.estimates.rehearsal import carried_over, rehearse
from weft.estimates.scaling import CORRECTED, WAYS
from weft.estimates.sizes import of_size
from weft.memory import size_in_words
from weft.models.backbone import best_device
from weft.progress import duration
from weft.results.card import WATTS

SIDE, SECONDS, LARGE = 2_048, 1.0, 1 << 27


def measure() -> Device:
    """This machine: the best of products in bfloat16 and in float32, and of copies, in about three seconds."""
    kind = best_device()
    peak = 0.0
    for precision in (torch.bfloat16, torch.float32):
        a = torch.randn(SIDE, SIDE, device=kind).to(precision)
        peak = max(peak, 2 * SIDE**3 * _rate(lambda a=a: a @ a, kind))
    whole = torch.zeros(LARGE // 4, device=kind)
    bandwidth = 2 * LARGE * _rate(lambda: whole.clone(), kind)
    if kind == "cuda":
        about = torch.cuda.get_device_properties(0)
        watts = next((known.watts for known in DEVICES.values() if known.name in about.name), 0.0)
        return Device(f"{THIS} ({about.name})", peak, about.total_memory, bandwidth, watts)
    cores = torch.get_num_threads()
    name = f"{THIS} machine ({cores} of {os.cpu_count()} cores)"
    return Device(name, peak, memory.bound(), bandwidth, WATTS * cores, 1)


def _rate(work: Any, kind: str) -> float:
    """How many times a second, at the best of a second's tries."""
    best, end = float("inf"), time.monotonic() + SECONDS
    work()
    while time.monotonic() < end:
        started = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 1 / best


def of_file(settings: Settings, told: dict[str, Any], probe: float | None) -> dict[str, Any]:
    """Figures and words of what ``told`` says of a file, rehearsed for ``probe`` seconds of training if any."""
    best = {way.name: way.size_for(told["tokens_learnt"]) for way in WAYS}
    words = {key: told["words"][key] for key in ("rows", "model", "training")}
    if _writes(settings):
        words["best size"] = (
            f"{in_units(best[CORRECTED.name])} for {in_units(told['tokens_learnt'])} tokens of a language, each read "
            f"once ({CORRECTED.name})"
        )
    words["a step"] = ", ".join(f"{name} {size_in_words(size)}" for name, size in told["memory_parts"].items())
    words |= {key: told["words"][key] for key in ("memory", "disk", "time")}
    found = {**told, "words": words, "optimal_parameters": best}
    if probe:
        split = settings.data.split
        judged = (0 if split.column else split.test) or split.valid
        rehearsed = rehearse(settings, told["rows"], probe, told.get("copies", 1), memory.bound())
        found["rehearsed"] = carried_over(rehearsed, told, judged)
        words |= _in_words(found["rehearsed"], rehearsed.whole)
    return found


def _writes(settings: Settings) -> bool:
    return settings.target.task == "next_token" and settings.model.from_ is None


def of_model(settings: Settings, told: dict[str, Any]) -> dict[str, Any]:
    """What a plan for other devices begins from. Raises UsageError where the model is not a Transformer."""
    if told["shape"] is None:
        raise UsageError(
            "--gpus: layouts are those of a Transformer. The model of this file is recurrent. Leave it out."
        )
    shape = of_size(**told["shape"], parameters=told["parameters"])
    return {
        "parameters": told["parameters"], "tokens": told["tokens_learnt"], "shape": shape,
        "passes": told["recipe"]["epochs"], "batch_tokens": told["recipe"]["batch_rows"] * told["context"],
        "writes": _writes(settings),
    }  # fmt: skip


def _in_words(found: dict[str, Any], whole: bool) -> dict[str, str]:
    steps = found["steps"].items()
    of = "all" if whole else "the first"
    return {
        "rehearsed": f"{of} {found['rows']:,} rows, {found['training_steps']:,} steps, in a process of its own",
        "memory": f"{size_in_words(found['memory_bytes'])} at most, libraries included: "
        + ", ".join(f"{name} {size_in_words(used['memory_bytes'])}" for name, used in steps)
        + ("" if found["memory_bytes"] <= memory.bound() else ". IT IS NOT ENOUGH. Give more with --memory"),
        "time": f"{duration(found['cpu_seconds'])} of CPU if every epoch is done, {duration(found['seconds'])} by the "
        f"clock where it has {found['cpu_seconds'] / max(found['seconds'], 1e-9):.2f} seconds of CPU a second, as just "
        "now: " + ", ".join(f"{name} {duration(used['seconds'])}" for name, used in steps),
    }  # fmt: skip
