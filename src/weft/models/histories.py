"""Histories as tokens: one an event, of its item, the time since the last, its rating, and how many ago it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weft.features.histories import GAP_BINS, SequenceCodec
from weft.models.tokens import START

BINS = 16
"""Of a count: 0, 1, ..., 7, then 8 steps to 128 and more."""


class SequenceEmbedding(nn.Module):
    """The events of every history, one history after the other. In training a known item is now and then shown as
    unknown, so that the vector of items never seen is learnt."""

    def __init__(self, codecs: Sequence[SequenceCodec], width: int, unknown: float = 0.1):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.unknown = unknown
        sizes = [len(c.items.categories) + 1 for c in codecs]
        self.first = np.cumsum([0, *sizes[:-1]]).tolist()
        self.timed = [c.timed for c in codecs]
        self.rated = [c.rating[1] > 0 for c in codecs]
        self.table = nn.Embedding(sum(sizes), width)
        self.gaps = nn.Embedding(GAP_BINS, width)
        self.ago = nn.Embedding(BINS, width)
        self.rating = nn.Linear(2, width, bias=False)
        for weight in (self.table.weight, self.gaps.weight, self.ago.weight, self.rating.weight):
            nn.init.normal_(weight, std=START)

    def forward(self, columns: dict[str, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        parts, masks = [], []
        for name, first, timed, rated in zip(self.names, self.first, self.timed, self.rated, strict=True):
            fields = columns[name]
            items = fields["items"].long()
            mask = items >= 0
            if self.training and self.unknown:
                items = items.masked_fill((torch.rand(items.shape, device=items.device) < self.unknown) & mask, 0)
            number = torch.arange(items.shape[1], device=items.device)
            x = self.table(items.clamp(min=0) + first) + self.ago(count_bins(mask.sum(1, keepdim=True) - 1 - number))
            if timed:
                x = x + self.gaps(fields["gap"].long().clamp(min=0))
            if rated:
                x = x + self.rating(rating_inputs(fields["rating"]))
            parts.append(x)
            masks.append(mask)
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1)


def rating_inputs(standard: Tensor) -> Tensor:
    """A standardised rating limited to [-4, 4], and whether there is none [..., 2]."""
    gone = torch.isnan(standard)
    return torch.stack([standard.masked_fill(gone, 0.0).clamp(-4, 4), gone.float()], dim=-1)


def count_bins(count: Tensor) -> Tensor:
    """0 to 7 as they are, then in steps of half an octave."""
    count = count.clamp(min=0)
    steps = 8 + (2 * torch.log2(count.clamp(min=8) / 8)).long()
    return torch.where(count < 8, count, steps).clamp(max=BINS - 1)
