"""LoRA (Hu 2021): a matrix W stays as it is and learns a difference of low rank beside it.

    y = W x + (scale / rank) B A x        A: rank x inputs, random;  B: outputs x rank, zero at first

Only A and B are trained and stored. ``merge`` adds the product to W, so that the model answers at its old
speed; ``unmerge`` takes it away again. An adapter is a folder of two files, a thousandth of the model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from weft.errors import CheckpointError, UsageError, listing
from weft.files import verify_manifest, whole_folder
from weft.models.transformer import Joined

FILE, CONFIG = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices get an adapter, and of what size."""

    rank: int = 8
    scale: float = 16.0
    """The product counts ``scale / rank`` times, so that another rank needs no other learning rate."""
    dropout: float = 0.0
    """On what A reads."""
    targets: tuple[str, ...] = ("attention.qkv", "attention.out", "feed_forward.up", "feed_forward.down")
    """Ends of the names of linear layers."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise UsageError(f"the rank of an adapter must be at least 1. Got {self.rank}.")


class LoraLinear(Joined):
    """A linear layer and its adapter. It holds the layer's own weight under the layer's own name."""

    def __init__(self, layer: nn.Linear, config: LoraConfig):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.kind, self.lora, self.merged = type(layer), config, False
        self.weight, self.bias = layer.weight, layer.bias
        w = layer.weight
        self.lora_a = nn.Parameter(torch.empty(config.rank, layer.in_features, dtype=w.dtype, device=w.device))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, config.rank, dtype=w.dtype, device=w.device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def difference(self) -> Tensor:
        """(scale / rank) B A, in the shape of the weight."""
        return (self.lora_b @ self.lora_a) * (self.lora.scale / self.lora.rank)

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        y = super().forward(x, rows)
        if self.merged:
            return y
        low = F.linear(F.dropout(x, self.lora.dropout, self.training), self.lora_a)
        return y + F.linear(low, self.lora_b[rows]) * (self.lora.scale / self.lora.rank)

    def plain(self) -> nn.Linear:
        """The layer without its adapter, the weight as it now is."""
        with torch.device("meta"):
            layer = self.kind(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight, layer.bias = self.weight, self.bias
        return layer.train(self.training)


def attach(model: nn.Module, config: LoraConfig | None = None) -> list[str]:
    """Give every targeted linear layer an adapter and freeze the rest of ``model``; returns their names.

    The model's answers are the same as before until B is trained. A part that shall be trained in full
    (a new head) is unfrozen afterwards: ``head.requires_grad_(True)``.
    """
    config = config or LoraConfig()
    if any(True for _ in _adapted(model)):
        raise UsageError("a model must have no adapter when one is attached. It has. Remove it first: detach(model).")
    ends = tuple(f".{target}" for target in config.targets)
    chosen = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and f".{n}".endswith(ends)}
    if not chosen:
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        raise UsageError(
            f"an adapter must have linear layers named {listing(config.targets)}. The model has {listing(linear)}."
        )
    model.requires_grad_(False)
    for name, layer in chosen.items():
        _put(model, name, LoraLinear(layer, config).train(layer.training))
    return list(chosen)


def detach(model: nn.Module) -> None:
    """Remove every adapter; a merged one stays in the weights."""
    for name, layer in list(_adapted(model)):
        _put(model, name, layer.plain())
    model.requires_grad_(True)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimiser must be given."""
    return [p for p in model.parameters() if p.requires_grad]


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every adapter to its weight. Merging twice changes nothing."""
    for _, layer in _adapted(model):
        if not layer.merged:
            layer.weight.add_(layer.difference())
            layer.merged = True


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Take every merged adapter out of its weight again (equal up to rounding)."""
    for _, layer in _adapted(model):
        if layer.merged:
            layer.weight.sub_(layer.difference())
            layer.merged = False


def save_adapter(model: nn.Module, folder: str | Path) -> None:
    """Write the adapters, and whatever else is trained, without the model."""
    layers = list(_adapted(model))
    if not layers:
        raise UsageError("a model must have an adapter to save one. It has none. Attach one first.")
    tensors = {n: p.detach().cpu().contiguous() for n, p in _own(model).items()}
    config: dict[str, Any] = {**asdict(layers[0][1].lora), "layers": [n for n, _ in layers]}
    config["base"] = _base(model, config["layers"], tensors)
    with whole_folder(Path(folder)) as beside:
        save_file(tensors, beside / FILE)
        (beside / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


def load_adapter(model: nn.Module, folder: str | Path) -> LoraConfig:
    """Attach the adapter in ``folder`` to the model it was trained on.

    Raises:
        CheckpointError: the files are damaged, or belong to a model of another shape. Nothing is attached.
    """
    folder = Path(folder)
    verify_manifest(folder)
    try:
        stored = json.loads((folder / CONFIG).read_text())
        layers, base = stored.pop("layers"), stored.pop("base")
        config = LoraConfig(**stored)
        tensors = load_file(folder / FILE)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: must hold an adapter that Weft wrote. Got: {error}.") from None
    if base != _base(model, layers, tensors):
        raise CheckpointError(
            f"{folder}: the adapter must be loaded into the model it was trained on. This one has other names, "
            "shapes or numbers."
        )
    attached = attach(model, config)
    own = _own(model)
    extra = {n: p for n, p in model.named_parameters() if n in tensors and n not in own}
    wrong = [n for n in tensors if n not in own and n not in extra]
    wrong += [n for n in own if n not in tensors]
    wrong += [n for n, p in (own | extra).items() if n in tensors and tensors[n].shape != p.shape]
    if wrong or attached != layers:
        detach(model)
        raise CheckpointError(f"{folder}: names and shapes must be the model's. Got others for {listing(wrong)}.")
    with torch.no_grad():
        for name, parameter in (own | extra).items():
            parameter.copy_(tensors[name])
    for parameter in extra.values():
        parameter.requires_grad_(True)
    return config


def _adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, LoraLinear))


def _own(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def _base(model: nn.Module, adapted: Iterable[str], trained: Iterable[str]) -> str:
    """A fingerprint of the model under an adapter: all names and shapes, and some numbers of what is frozen.

    Matrices with an adapter give no numbers (they may be merged), and bfloat16 serves for all types.
    """
    digest, own, within = hashlib.sha256(), set(trained), tuple(f"{n}." for n in adapted)
    for name, parameter in sorted(model.named_parameters()):
        if name in own:
            continue
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        if not name.startswith(within):
            digest.update(parameter.detach().flatten()[:64].bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
