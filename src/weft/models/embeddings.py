"""Codes to Tokens: one embedding a column type, all columns of the type at once (pictures in ``weft.models.images``).

Shape suffixes: B rows, N columns of the type, Q bins, T tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.codecs import (
    FIRST,
    MISSING,
    MISSING_TIME,
    RAGGED,
    UNKNOWN,
    CategoryCodec,
    Codec,
    NumberCodec,
    TextCodec,
    TimeCodec,
)
from weft.features.tokenizer import mask_token
from weft.models.fused import RMSNorm
from weft.models.histories import SequenceEmbedding
from weft.models.images import ImageEmbedding, PretrainedImage, PretrainedImageEmbedding
from weft.models.summary import Summary
from weft.models.tokens import START, Tokens

Columns = dict[str, dict[str, Tensor]]


class PiecewiseLinear(nn.Module):
    """Numbers unfolded over quantile bins (Gorishniy 2022, eq. 1), then one matrix a column.

    Bin q of column n holds 0 below its lower edge, 1 above its upper edge and the way between inside; the
    standardised value itself, limited to [-4, 4], is one more input. A missing value (NaN) has a vector of
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
        self.missing = nn.Parameter(torch.empty(len(edges), width))
        nn.init.normal_(self.weight, std=START * 1.5 * bins**-0.5)
        nn.init.normal_(self.weight[:, -1], std=START)
        nn.init.normal_(self.missing, std=START)

    def forward(self, value_BN: Tensor) -> Tensor:
        gone = torch.isnan(value_BN)
        value = value_BN.masked_fill(gone, 0.0)
        bins = ((value.unsqueeze(-1) - self.lower) * self.scale).clamp(0, 1)
        inputs_BNQ = torch.cat([bins, value.clamp(-4, 4).unsqueeze(-1)], dim=-1)
        states = torch.bmm(inputs_BNQ.transpose(0, 1), self.weight).transpose(0, 1)
        return torch.where(gone.unsqueeze(-1), self.missing, states)


class NumberEmbedding(nn.Module):
    """A token a number: its value unfolded, and a vector for a value that is frequent (starting at zero)."""

    offsets: Tensor

    def __init__(self, codecs: Sequence[NumberCodec], width: int):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.unfold = PiecewiseLinear([c.edges for c in codecs], width)
        sizes = [len(c.spikes) + 1 for c in codecs]
        self.register_buffer("offsets", torch.tensor(np.cumsum([0, *sizes[:-1]]), dtype=torch.int64))
        self.spikes = nn.Embedding(sum(sizes), width)
        nn.init.zeros_(self.spikes.weight)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        value = torch.stack([columns[n]["value"] for n in self.names], dim=1)
        spike = torch.stack([columns[n]["spike"] for n in self.names], dim=1).long()
        return self.unfold(value) + self.spikes(spike + self.offsets), None


class CategoryEmbedding(nn.Module):
    """A token a category: one table for all columns. In training a known category is now and then shown
    as unknown, so that the vector for categories never seen is learnt."""

    offsets: Tensor

    def __init__(self, codecs: Sequence[CategoryCodec], width: int, unknown: float = 0.03):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.unknown = unknown
        sizes = [len(c.categories) + FIRST for c in codecs]
        self.register_buffer("offsets", torch.tensor(np.cumsum([0, *sizes[:-1]]), dtype=torch.int64))
        self.table = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.table.weight, std=START)

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
        nn.init.normal_(self.parts.weight, std=START / 2)

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
    days = seconds // 86_400
    hour = (seconds - days * 86_400) // 3_600
    weekday = (days + 3) % 7
    z = days + 719_468
    era = z // 146_097
    doe = z - era * 146_097
    yoe = (doe - doe // 1_460 + doe // 36_524 - doe // 146_096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    shifted = (5 * doy + 2) // 153
    day = doy - (153 * shifted + 2) // 5
    month = torch.where(shifted < 10, shifted + 2, shifted - 10)
    return month, day, weekday, hour


class TextEmbedding(nn.Module):
    """The tokens of every text column, one after the other, each with a look at its neighbours.

    A residual convolution over ``REACH`` tokens gives short phrases a state at once, which attention learns
    slowly from few texts. In training a share of the tokens is hidden behind MASK.
    """

    REACH = 5

    def __init__(self, codecs: Sequence[TextCodec], width: int, hidden: float = 0.25):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.hidden = hidden
        tokenizer = codecs[0].tokenizer
        assert tokenizer is not None
        self.mask = mask_token(tokenizer) or 0
        self.table = nn.Embedding(tokenizer.get_vocab_size(), width)
        self.norm = RMSNorm(width)
        self.neighbours = nn.Conv1d(width, width, self.REACH, padding=self.REACH // 2)
        nn.init.normal_(self.table.weight, std=START / 2)

    def ids(self, columns: Columns) -> Tensor:
        """The tokens of all columns [B, T], -1 where there is none."""
        return torch.cat([columns[n]["tokens"] for n in self.names], dim=1)

    def vectors(self, ids: Tensor) -> Tensor:
        return self.table(ids.clamp(min=0).long())

    def forward(self, columns: Columns, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``vectors`` [B, T, D] instead of those of the tokens."""
        parts = [columns[n]["tokens"] for n in self.names]
        ids = torch.cat(parts, dim=1)
        mask = ids >= 0
        if self.training and self.hidden:
            ids = ids.masked_fill((torch.rand(ids.shape, device=ids.device) < self.hidden) & mask, self.mask)
        x = self.vectors(ids) if vectors is None else vectors
        inner = self.norm(x) * mask.unsqueeze(-1)
        widths = [p.shape[1] for p in parts]
        near = [self.neighbours(piece.transpose(1, 2)).transpose(1, 2) for piece in inner.split(widths, dim=1)]
        return x + F.gelu(torch.cat(near, dim=1)), mask


EMBEDDINGS: dict[str, type[nn.Module]] = {
    "number": NumberEmbedding,
    "category": CategoryEmbedding,
    "time": TimeEmbedding,
    "image": ImageEmbedding,
    "text": TextEmbedding,
    "sequence": SequenceEmbedding,
}


@dataclass(frozen=True)
class PretrainedText:
    """What a checkpoint says of the tokens that go in: how many there are, and which stand around a text."""

    vocabulary: int
    types: int = 0
    scaled: bool = False
    before: int | None = None
    after: int | None = None
    family: str | None = None


class PretrainedTextEmbedding(nn.Module):
    """The tokens of every text column by the table of a checkpoint, each text closed by its end token."""

    def __init__(self, codecs: Sequence[TextCodec], width: int, config: PretrainedText):
        super().__init__()
        self.names = [c.name for c in codecs]
        self.config = config
        self.table = nn.Embedding(config.vocabulary, width)
        if config.types:
            self.types = nn.Embedding(config.types, width)

    def vectors(self, ids: Tensor) -> Tensor:
        x = self.table(ids.clamp(min=0))
        if self.config.scaled:
            x = x * math.sqrt(x.shape[-1])
        return x + self.types.weight[0] if self.config.types else x

    def ids(self, columns: Columns) -> Tensor:
        """The tokens of all columns [B, T], each text with its end; -1 where there is none."""
        parts = [columns[n]["tokens"].long() for n in self.names]
        if self.config.after is not None:
            ended = []
            for ids in parts:
                length = (ids >= 0).sum(dim=1, keepdim=True)
                ended.append(F.pad(ids, (0, 1), value=-1).scatter(1, length, self.config.after))
            parts = ended
        return torch.cat(parts, dim=1)

    def forward(self, columns: Columns, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``vectors`` [B, T, D] instead of those of the tokens."""
        ids = self.ids(columns)
        return self.vectors(ids) if vectors is None else vectors, ids >= 0


class RowEmbedding(nn.Module):
    """Codes of a batch -> Tokens: the reading token and every column's, each with its column's vector.

    The reading token has column 0; it comes first, or last where tokens see only those before them. Columns
    are taken in the order of their names within their type, so the order in the table is no matter. Before a
    pretrained text the reading token is the checkpoint's own (BERT's [CLS]), positions run on from text to
    text, and the columns' vectors of texts start at zero: the checkpoint finds what it is used to. So it is with a
    checkpoint of pictures. ``summaries``: the columns that are read ahead of the others, and in how many tokens each
    then stands.
    """

    def __init__(
        self, codecs: Sequence[Codec], width: int, pretrained: PretrainedText | PretrainedImage | None = None,
        reader_last: bool = False, summaries: Mapping[str, int] | None = None,
    ):  # fmt: skip
        super().__init__()
        ordered = sorted(codecs, key=lambda c: c.name)
        self.types = [t for t in EMBEDDINGS if any(c.type == t for c in ordered)]
        groups: dict[str, list[Any]] = {t: [c for c in ordered if c.type == t] for t in self.types}
        self.names = [c.name for t in self.types for c in groups[t]]
        self.number = {name: i + 1 for i, name in enumerate(self.names)}
        self.reader_last = reader_last
        self.pretrained = pretrained
        self.by_type = nn.ModuleDict()
        for kind in self.types:
            if kind == "text" and isinstance(pretrained, PretrainedText):
                self.by_type[kind] = PretrainedTextEmbedding(groups[kind], width, pretrained)
            elif kind == "image" and isinstance(pretrained, PretrainedImage):
                self.by_type[kind] = PretrainedImageEmbedding(groups[kind], width, pretrained)
            else:
                self.by_type[kind] = EMBEDDINGS[kind](groups[kind], width)
        self.summaries = nn.ModuleDict(
            {str(self.number[name]): Summary(width, queries) for name, queries in sorted((summaries or {}).items())}
        )
        self.column = nn.Embedding(len(self.names) + 1, width)  # row 0: the reading token
        nn.init.normal_(self.column.weight, std=START)
        if pretrained is not None:
            reads, begins = ("text", pretrained.before) if isinstance(pretrained, PretrainedText) else ("image", True)
            quiet = [self.number[c.name] for c in groups[reads]] + ([0] if begins else [])
            with torch.no_grad():
                self.column.weight[quiet] = 0.0

    @property
    def text(self) -> TextEmbedding | PretrainedTextEmbedding | None:
        """What embeds the texts, if there are any."""
        found = self.by_type["text"] if "text" in self.types else None
        assert found is None or isinstance(found, (TextEmbedding, PretrainedTextEmbedding))
        return found

    def forward(self, columns: Columns, vectors: Tensor | None = None) -> Tokens:
        """``vectors``: of the text tokens, instead of their own (for gradients with respect to them)."""
        of_text = {"text": vectors}
        pieces = {t: self._pieces(t, columns, of_text.get(t)) for t in self.types}
        parts = [piece for t in self.types for piece in pieces[t]]
        reader = self._reader(parts[0].shape[0])
        if self.reader_last:
            # after the last token of the texts; the tokens of other columns stand at place 0
            places = [p.mask_BT.sum(dim=1, keepdim=True) for p in pieces.get("text", ()) if p.mask_BT is not None]
            reader.positions_BT = reader.positions_BT + sum(places)
        tokens = Tokens.join([*parts, reader] if self.reader_last else [reader, *parts])
        tokens.states_BTD = tokens.states_BTD + self.column(tokens.columns_BT)
        return tokens

    def _reader(self, rows: int) -> Tokens:
        zero = torch.zeros(rows, 1, dtype=torch.int64, device=self.column.weight.device)
        states = self.column(zero) * 0
        for embedding in self.by_type.values():
            if isinstance(embedding, PretrainedImageEmbedding):
                states = states + embedding.reader
            elif isinstance(embedding, PretrainedTextEmbedding) and embedding.config.before is not None:
                states = states if self.reader_last else states + embedding.vectors(zero + embedding.config.before)
        return Tokens(states, None, zero, zero)

    def _pieces(self, kind: str, columns: Columns, vectors: Tensor | None) -> list[Tokens]:
        """The tokens of a type's columns, those of long columns as their summaries."""
        embedding = self.by_type[kind]
        states, mask = embedding(columns) if vectors is None else embedding(columns, vectors)
        names: list[str] = embedding.names  # type: ignore[assignment]
        b, t, _ = states.shape
        device = states.device
        widths: list[int] = getattr(embedding, "widths", [1] * len(names))
        if kind in RAGGED:
            widths = [columns[n][RAGGED[kind]].shape[1] for n in names]
        if isinstance(embedding, PretrainedTextEmbedding):
            assert mask is not None
            widths = [w + (embedding.config.after is not None) for w in widths]
            places = mask.long().cumsum(dim=1) - (1 if self.reader_last else 0)
            places = places.clamp(min=0)
        elif isinstance(embedding, PretrainedImageEmbedding):
            places = torch.arange(1, t + 1, device=device).expand(b, t)
        elif self.pretrained is not None:  # a checkpoint's places are those of what it reads
            places = torch.zeros(b, t, dtype=torch.int64, device=device)
        else:
            places = torch.cat([torch.arange(w, device=device) for w in widths]).expand(b, t)
        owner = torch.cat(
            [torch.full((w,), self.number[n], device=device) for n, w in zip(names, widths, strict=True)]
        ).expand(b, t)
        tokens = Tokens(states, mask, places, owner)
        if not self.summaries:
            return [tokens]
        numbers = [str(self.number[n]) for n in names]
        apart = zip(numbers, tokens.split(widths), strict=True)
        return [self.summaries[n](piece) if n in self.summaries else piece for n, piece in apart]
