"""What a plan can be made for: accelerators by their makers' data sheets.

Peaks are those of dense products in bfloat16 that add up in float32 (data sheets often print the double, with
sparsity). Memory is in units of 10^9 bytes, as sold; watts are the most that the board draws.

Sources: NVIDIA's data sheets of V100 (2020, products in float16), A100 (2021), H100 (2023), H200 (2024), DGX B200
(2024, an eighth of it), L4 and L40S (2023); its white papers of the Ampere GA102 (2021) and Ada (2022) chips, for the
3090 and 4090; AMD's data sheets of MI250X (2021) and MI300X (2023).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from weft.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Device:
    """``peak`` FLOP/s, ``memory`` bytes, ``bandwidth`` bytes a second, ``watts``; ``node``: how many share links."""

    name: str
    peak: float
    memory: float
    bandwidth: float
    watts: float
    node: int = 8


DEVICES = {
    name.lower(): Device(name, peak * 1e12, memory * 1e9, bandwidth * 1e9, watts, node)
    for name, peak, memory, bandwidth, watts, node in (
        ("V100", 125, 32, 900, 300, 8),
        ("A100", 312, 80, 2_039, 400, 8),
        ("A100-40GB", 312, 40, 1_555, 400, 8),
        ("H100", 989, 80, 3_350, 700, 8),
        ("H100-PCIe", 756, 80, 2_000, 350, 8),
        ("H200", 989, 141, 4_800, 700, 8),
        ("B200", 2_250, 180, 8_000, 1_000, 8),
        ("L4", 121, 24, 300, 72, 8),
        ("L40S", 362, 48, 864, 350, 8),
        ("3090", 71, 24, 936, 350, 2),
        ("4090", 165, 24, 1_008, 450, 2),
        ("MI250X", 383, 128, 3_277, 560, 4),
        ("MI300X", 1_307, 192, 5_300, 750, 8),
    )
}
THIS = "this"
"""The machine that the plan is made on, measured."""
_ALIASES = {"rtx3090": "3090", "rtx4090": "4090", "a100-80gb": "a100", "h100-sxm": "h100"}


def count_of(text: str, what: str) -> float:
    """``7B``, ``140B``, ``350M``, ``1.5T`` or ``7e9`` as a number above zero. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)([KMBT]?)", text.strip().replace(",", ""), re.IGNORECASE)
    size = float(found[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[found[2].upper()] if found else 0.0
    if size < 1:
        raise UsageError(f"{what}: must be a number above zero such as 350M, 7B or 1.5T. Got {text!r}.")
    return size


def gpus_of(text: str) -> tuple[int, str]:
    """``64xH100`` as (64, "h100"); ``H100`` is one. Raises UsageError, naming the nearest device that is known."""
    found = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?([\w-]+)", text.strip(), re.IGNORECASE)
    count, name = (int(found[1] or 1), found[2].lower()) if found else (0, "")
    name = _ALIASES.get(name, name)
    if not count:
        raise UsageError(f"--gpus: must be a count and a device such as 64xH100. Got {text!r}.")
    if name not in DEVICES and name != THIS:
        known = [device.name for device in DEVICES.values()]
        near = did_you_mean(name.upper(), known)
        raise UsageError(
            f"--gpus: must name a device that is known, or '{THIS}' for this machine. Got {text!r}.{near} "
            f"Known: {', '.join(known)}."
        )
    return count, name
