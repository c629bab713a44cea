"""The layout that a training fits in: the one with the least talk between devices, checked by arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from weft.errors import UsageError
from weft.estimates.devices import Device
from weft.estimates.sizes import Layout, Shape, memory
from weft.memory import size_in_words

RESERVE = 0.1
"""Share of a device's memory that is left for libraries, buffers of the links, and holes."""
TENSOR = (1, 2, 4, 8)
MOST_DEVICES = 1 << 17


def fits(shape: Shape, context: int, layout: Layout, device: Device) -> bool:
    return sum(memory(shape, context, layout).values()) <= (1 - RESERVE) * device.memory


def layouts(shape: Shape, devices: int, node: int) -> Iterator[Layout]:
    """Those of so many devices: all weights before pieces, kept before computed again, rows before products shared."""
    for tensor in TENSOR:
        if devices % tensor or shape.heads % tensor or shape.hidden % tensor or tensor > min(node, devices):
            continue
        shares = devices // tensor
        for again in (False, True):
            yield from (Layout(shares, shard, tensor, again) for shard in ([False, True] if shares > 1 else [False]))


def choose(shape: Shape, context: int, devices: int, device: Device, batch_tokens: float) -> Layout:
    """The first layout that fits, with as many rows at once as fit too. Raises UsageError with the least that does."""
    found = next((one for one in layouts(shape, devices, device.node) if fits(shape, context, one, device)), None)
    if found is None:
        raise UsageError(_too_large(shape, context, devices, device))
    while (
        found.rows * 2 * context * found.shares <= batch_tokens
        and found.rows < 64
        and fits(shape, context, replace(found, rows=2 * found.rows), device)
    ):
        found = replace(found, rows=2 * found.rows)
    return found


def _too_large(shape: Shape, context: int, devices: int, device: Device) -> str:
    count = 1
    while count <= MOST_DEVICES:
        if count > devices:
            for one in layouts(shape, count, device.node):
                if fits(shape, context, one, device):
                    need = sum(memory(shape, context, one).values())
                    return (
                        f"--gpus: {devices:,}x{device.name} must hold {shape.parameters / 1e9:.3g}B parameters and a "
                        f"row of {context:,} tokens. They do not, in any layout. The least that does is "
                        f"{count:,}x{device.name} ({in_words(one)}; {size_in_words(need)} of "
                        f"{size_in_words(device.memory)} each)."
                    )
        count *= 2
    return (
        f"--gpus: a row of {context:,} tokens must fit into {device.name}. Its activations alone do not, however many "
        f"there are. Take a shorter --context or a device with more memory."
    )


def in_words(layout: Layout) -> str:
    """As the settings have it, ``{shard: true, tensor: 2}``."""
    said = {"shard": layout.shard, "tensor": layout.tensor if layout.tensor > 1 else False,
            "checkpoint_activations": layout.checkpoint_activations}  # fmt: skip
    parts = [f"{name}: {str(value).lower()}" for name, value in said.items() if value]
    weights = ", each with a piece of every weight" if layout.shard else ", each with all weights" * (layout.shares > 1)
    return (
        f"{{{', '.join(parts)}}}, {layout.shares:,} shares of the rows{weights}"
        if parts or layout.shares > 1
        else "alone"
    )
