"""Codes to Tokens: one embedding a column type, all columns of the type at once.

Shape suffixes: B rows, N columns of the type, Q bins, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from weft.features.codecs import (
    FIRST,
    MISSING,
    MISSING_TIME,
    UNKNOWN,
    CategoryCodec,
    Codec,
    NumberCodec,
    TextCodec,
    TimeCodec,
)
from weft.models.tokens import Tokens

Columns = dict[str, dict[str, Tensor]]


class PiecewiseLinear(nn.Module):
    """Numbers unfolded over quantile bins (Gorishniy 2022, eq. 1), then one matrix a column.

    Bin q of column n holds 0 below its lower edge, 1 above its upper edge and the way between inside; the
    standardised value itself, limited to [-3, 3], is one more input. A missing value (NaN) has a vector of
    its own. [B, N] -> [B, N, D].
    """

    lower: Tensor
    scale: Tensor

    def __init__(self, edges: Sequence[np.ndarray], width: int):
        super().__init__()
        bins = max([1, *(len(e) - 1 for e in edges)])
        lower = torch.full((len(edges), bins), torch.inf)
        scale = torch.zeros(len(edges), bins)
        for n, column in enumerate(edges):
            low = torch.tensor(np.asarray(column[:-1]), dtype=torch.float32)
            gap = torch.tensor(np.diff(column), dtype=torch.float32)
            lower[n, : len(low)] = low
            scale[n, : len(low)] = 1 / gap.clamp(min=1e-12)
        lower[torch.isinf(lower)] = 0.0  # bins that a column does not have stay at zero
        self.register_buffer("lower", lower)
        self.register_buffer("scale", scale)
        self.weight = nn.Parameter(torch.empty(len(edges), bins + 1, width))
        self.bias = nn.Parameter(torch.empty(len(edges), width))
        self.missing = nn.Parameter(torch.empty(len(edges), width))
        nn.init.normal_(self.weight, std=(bins + 1) ** -0.5)
        nn.init.normal_(self.bias, std=0.02)
        nn.init.normal_(self.missing, std=0.02)

    def forward(self, value_BN: Tensor) -> Tensor:
        gone = torch.isnan(value_BN)
        value = value_BN.masked_fill(gone, 0.0)
        bins = ((value.unsqueeze(-1) - self.lower) * self.scale).clamp(0, 1)
        inputs_BNQ = torch.cat([bins, value.clamp(-3, 3).unsqueeze(-1)], dim=-1)
        states = torch.einsum("bnq,nqd->bnd", inputs_BNQ, self.weight) + self.bias
        return torch.where(gone.unsqueeze(-1), self.missing, states)


class NumberEmbedding(nn.Module):
    """A token a number."""

    def __init__(self, codecs: Sequence[NumberCodec], width: int):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.unfold = PiecewiseLinear([c.edges for c in codecs], width)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        return self.unfold(torch.stack([columns[n]["value"] for n in self.names], dim=1)), None


class CategoryEmbedding(nn.Module):
    """A token a category: one table for all columns. In training a known category is now and then shown
    as unknown, so that the vector for categories never seen is learnt."""

    offsets: Tensor

    def __init__(self, codecs: Sequence[CategoryCodec], width: int, unknown: float = 0.01):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.unknown = unknown
        sizes = [len(c.categories) + FIRST for c in codecs]
        self.register_buffer("offsets", torch.tensor(np.cumsum([0, *sizes[:-1]]), dtype=torch.int64))
        self.table = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        codes = torch.stack([columns[n]["code"] for n in self.names], dim=1).long()
        if self.training and self.unknown:
            hidden = (torch.rand(codes.shape, device=codes.device) < self.unknown) & (codes != MISSING)
            codes = codes.masked_fill(hidden, UNKNOWN)
        return self.table(codes + self.offsets), None


class TimeEmbedding(nn.Module):
    """A token a time: month, day, weekday and hour as vectors, added to the elapsed time as a number."""

    def __init__(self, codecs: Sequence[TimeCodec], width: int):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.means = [c.mean for c in codecs]
        self.deviations = [c.deviation for c in codecs]
        self.elapsed = PiecewiseLinear([c.edges for c in codecs], width)
        self.parts = nn.Embedding(len(codecs) * (12 + 31 + 7 + 24), width)
        nn.init.normal_(self.parts.weight, std=width**-0.5 / 2)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        seconds = torch.stack([columns[n]["seconds"] for n in self.names], dim=1)
        gone = seconds == MISSING_TIME
        seconds = seconds.masked_fill(gone, 0)
        mean = torch.tensor(self.means, dtype=torch.float64, device=seconds.device)
        deviation = torch.tensor(self.deviations, dtype=torch.float64, device=seconds.device)
        elapsed = ((seconds.double() - mean) / deviation).float().masked_fill(gone, torch.nan)
        month, day, weekday, hour = calendar(seconds)
        places = torch.stack([month, 12 + day, 43 + weekday, 50 + hour], dim=-1)
        places = places + 74 * torch.arange(len(self.names), device=seconds.device)[:, None]
        calendar_BND = self.parts(places).sum(dim=2).masked_fill(gone.unsqueeze(-1), 0.0)
        return self.elapsed(elapsed) + calendar_BND, None


def calendar(seconds: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Month (0-11), day (0-30), weekday (0 Monday) and hour of seconds since 1970, proleptic Gregorian.

    Days to civil date by the era arithmetic of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    """
    days = seconds.div(86_400, rounding_mode="floor")
    hour = (seconds - days * 86_400).div(3_600, rounding_mode="floor")
    weekday = (days + 3) % 7
    z = days + 719_468
    era = z.div(146_097, rounding_mode="floor")
    doe = z - era * 146_097
    yoe = (doe - doe // 1_460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    shifted = (5 * doy + 2) // 153
    day = doy - (153 * shifted + 2) // 5
    month = torch.where(shifted < 10, shifted + 2, shifted - 10)
    return month, day, weekday, hour


class TextEmbedding(nn.Module):
    """The tokens of every text column, one after the other, from one table."""

    def __init__(self, codecs: Sequence[TextCodec], width: int):
        super().__init__()
        self.names = [c.name for c in codecs]
        tokenizer = codecs[0].tokenizer
        assert tokenizer is not None
        self.table = nn.Embedding(tokenizer.get_vocab_size(), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor]:
        ids = torch.cat([columns[n]["tokens"] for n in self.names], dim=1)
        return self.table(ids.clamp(min=0).long()), ids >= 0


EMBEDDINGS: dict[str, type[nn.Module]] = {
    "number": NumberEmbedding,
    "category": CategoryEmbedding,
    "time": TimeEmbedding,
    "text": TextEmbedding,
}


class RowEmbedding(nn.Module):
    """Codes of a batch -> Tokens: the reading token first, then every column's, each with its column's vector.

    Columns are taken in the order of their names within their type, so the order in the table is no matter.
    """

    def __init__(self, codecs: Sequence[Codec], width: int):
        super().__init__()
        ordered = sorted(codecs, key=lambda c: c.name)
        self.types = [t for t in EMBEDDINGS if any(c.type == t for c in ordered)]
        groups = {t: [c for c in ordered if c.type == t] for t in self.types}
        self.names = [c.name for t in self.types for c in groups[t]]
        self.number = {name: i + 1 for i, name in enumerate(self.names)}
        self.by_type = nn.ModuleDict({t: EMBEDDINGS[t](groups[t], width) for t in self.types})
        self.column = nn.Embedding(len(self.names) + 1, width)  # row 0: the reading token
        nn.init.normal_(self.column.weight, std=0.02)

    def forward(self, columns: Columns) -> Tokens:
        parts = [self._parts(t, columns) for t in self.types]
        rows = parts[0].shape[0]
        zero = torch.zeros(rows, 1, dtype=torch.int64, device=self.column.weight.device)
        tokens = Tokens.join([Tokens(self.column(zero) * 0, None, zero, zero), *parts])
        tokens.states_BTD = tokens.states_BTD + self.column(tokens.columns_BT)
        return tokens

    def _parts(self, kind: str, columns: Columns) -> Tokens:
        embedding = self.by_type[kind]
        states, mask = embedding(columns)
        b, t, _ = states.shape
        device = states.device
        if kind != "text":
            owner = torch.tensor([self.number[n] for n in embedding.names], device=device).expand(b, t)
            return Tokens(states, mask, torch.zeros(b, t, dtype=torch.int64, device=device), owner)
        widths = [columns[n]["tokens"].shape[1] for n in embedding.names]
        places = torch.cat([torch.arange(w, device=device) for w in widths]).expand(b, t)
        owner = torch.cat(
            [torch.full((w,), self.number[n], device=device) for n, w in zip(embedding.names, widths, strict=True)]
        ).expand(b, t)
        return Tokens(states, mask, places, owner)
