"""What reads tokens: a Transformer or a recurrent network, as its config says."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Self

import torch

from weft.models.recurrent import Recurrent, RecurrentConfig
from weft.models.transformer import Transformer, TransformerConfig

BackboneConfig = TransformerConfig | RecurrentConfig


class AroundBackbone:
    """The config of a model around a backbone, as JSON and back; each is a dataclass."""

    backbone: BackboneConfig

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "recurrent": isinstance(self.backbone, RecurrentConfig)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        stored = dict(stored)
        kind = RecurrentConfig if stored.pop("recurrent", False) else TransformerConfig
        return cls(**{**stored, "backbone": kind(**stored["backbone"])})


def best_device() -> str:
    """Where models work: on a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine_has_bfloat16(device: str) -> bool:
    """Whether the machine multiplies bfloat16 matrices in hardware: a GPU of 2020 on, or AMX, or AVX-512 BF16."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def build(config: BackboneConfig) -> Transformer | Recurrent:
    """The backbone of a config, untrained."""
    return Recurrent(config) if isinstance(config, RecurrentConfig) else Transformer(config)


def backbone_in_words(config: BackboneConfig) -> str:
    """``a Transformer of 2 layers and width 64``."""
    names = {"rnn": "an RNN", "gru": "a GRU", "lstm": "an LSTM"}
    name = names[config.cell] if isinstance(config, RecurrentConfig) else "a Transformer"
    return f"{name} of {config.layers} layer{'s' if config.layers > 1 else ''} and width {config.width}"
