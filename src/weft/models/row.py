"""RowModel: codes of a row -> Tokens -> backbone -> head. The model that every table task trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.batching import Batch
from weft.features.codecs import ClassTarget, Codec, Target
from weft.models.embeddings import RowEmbedding
from weft.models.heads import ClassHead, NumberHead
from weft.models.linear import LinearPath
from weft.models.tokens import Tokens
from weft.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class RowConfig:
    """Shape of a RowModel with every default resolved."""

    backbone: TransformerConfig
    hidden: int
    dropout: float
    linear: tuple[str, ...]
    """Column types that the linear path reads; empty: there is none."""
    linear_first: bool = False
    """The linear path is fitted before the rest, which then starts from zero."""
    balanced: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> RowConfig:
        backbone, linear = TransformerConfig(**stored["backbone"]), tuple(stored["linear"])
        return cls(**{**stored, "backbone": backbone, "linear": linear})


class RowModel(nn.Module):
    """Reads rows. The head sees the state of the reading token after the backbone and, of each text column,
    mean and maximum of its tokens before it; the linear path is added to its outputs [B, C]."""

    def __init__(self, codecs: Sequence[Codec], target: Target, config: RowConfig):
        super().__init__()
        width = config.backbone.width
        self.config = config
        self.embedding = RowEmbedding(codecs, width)
        self.backbone = Transformer(config.backbone)
        texts = sorted(c.name for c in codecs if c.type == "text")
        self.pooled = [self.embedding.number[name] for name in texts]
        self.pool_norm = nn.RMSNorm(width)
        inputs = width * (1 + 2 * len(self.pooled))
        self.head: ClassHead | NumberHead
        if isinstance(target, ClassTarget):
            outputs = len(target.classes)
            self.head = ClassHead(
                inputs, config.hidden, target.counts, config.dropout, config.linear_first, config.balanced
            )
        else:
            outputs = 1
            self.head = NumberHead(
                inputs, config.hidden, target.mean, target.deviation, config.dropout, config.linear_first
            )
        self.linear = LinearPath(codecs, outputs, frozenset(config.linear)) if config.linear else None

    def forward(self, batch: Batch, states: dict[str, Tensor] | None = None) -> Tensor:
        """Outputs [B, C]; ``states`` is filled with named states on request."""
        tokens = self.embedding(batch.columns)
        read = [self.backbone(tokens, states=states, first=1)[:, 0]]
        if self.pooled:
            read += self._pools(tokens)
        out = self.head(F.dropout(torch.cat(read, dim=-1), self.config.dropout, self.training))
        return out if self.linear is None else out + self.linear(batch.columns)

    def _pools(self, tokens: Tokens) -> list[Tensor]:
        x = self.pool_norm(tokens.states_BTD)
        found = []
        for column in self.pooled:
            here = tokens.columns_BT == column
            if tokens.mask_BT is not None:
                here = here & tokens.mask_BT
            here = here.unsqueeze(-1)
            found.append((x * here).sum(dim=1) / here.sum(dim=1).clamp(min=1))
            most = x.masked_fill(~here, -1e4).amax(dim=1)
            found.append(torch.where(here.any(dim=1), most, 0.0))
        return found

    def loss(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return self.head.loss(self(batch), batch.target)

    def answer(self, batch: Batch) -> Tensor:
        """Log probabilities [B, C] or numbers [B] in the target's unit."""
        return self.head.answer(self(batch))


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
        return combine([copy.answer(batch) for copy in self.each()], self.classes, self.temperature)

    def each(self) -> list[RowModel]:
        return [copy for copy in self.copies if isinstance(copy, RowModel)]

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
