"""RowModel: codes of a row -> Tokens -> backbone -> head. The model that every table task trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weft.features.batching import Batch
from weft.features.codecs import ClassTarget, Codec, Target
from weft.models.embeddings import RowEmbedding
from weft.models.heads import ClassHead, NumberHead
from weft.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class RowConfig:
    """Shape of a RowModel with every default resolved."""

    backbone: TransformerConfig
    members: int
    hidden: int
    dropout: float
    balanced: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RowConfig:
        return cls(**{**stored, "backbone": TransformerConfig(**stored["backbone"])})


class RowModel(nn.Module):
    """Reads rows; ``forward`` gives the members' outputs [B, M, C]."""

    def __init__(self, codecs: Sequence[Codec], target: Target, config: RowConfig):
        super().__init__()
        width = config.backbone.width
        self.config = config
        self.embedding = RowEmbedding(codecs, width)
        self.backbone = Transformer(config.backbone)
        self.head: ClassHead | NumberHead
        if isinstance(target, ClassTarget):
            self.head = ClassHead(width, config.hidden, target.counts, config.members, config.dropout, config.balanced)
        else:
            self.head = NumberHead(width, config.hidden, target.mean, target.deviation, config.members, config.dropout)

    def forward(self, batch: Batch, states: dict[str, Tensor] | None = None) -> Tensor:
        tokens = self.embedding(batch.columns)
        return self.head(self.backbone(tokens, states=states)[:, 0])

    def loss(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return self.head.loss(self(batch), batch.target)


class RowModels(nn.Module):
    """One or several RowModels of one shape, trained on different folds, that answer as one."""

    temperature: Tensor

    def __init__(self, codecs: Sequence[Codec], target: Target, config: RowConfig, copies: int):
        super().__init__()
        self.copies = nn.ModuleList(RowModel(codecs, target, config) for _ in range(copies))
        self.classes = len(target.classes) if isinstance(target, ClassTarget) else None
        self.register_buffer("temperature", torch.ones(()))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Calibrated probabilities [B, C], or numbers [B] in the target's unit; float32 arithmetic."""
        self.eval()
        return combine([copy.head.average(copy(batch)) for copy in self.copies], self.classes, self.temperature)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def combine(outputs: Sequence[Tensor], classes: int | None, temperature: Tensor) -> Tensor:
    """The answer of several copies: mean of the numbers, or of the probabilities, then the temperature.

    ``outputs``: log probabilities [B, C] or numbers [B], one a copy.
    """
    stacked = torch.stack(list(outputs))
    if classes is None:
        return stacked.mean(dim=0)
    mean = stacked.logsumexp(dim=0) - math.log(len(outputs))
    return (mean / temperature).softmax(dim=-1)
