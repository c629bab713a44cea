"""The linear path: what a linear model can say of a row, added to what the Transformer says.

Numbers (standardised, and whether missing), categories and bags of n-grams go straight to the outputs.
On small tables the path is fitted first, as ridge or logistic regression, and the Transformer starts from
there; where a linear model is best, the whole then is one. On texts it is trained with the rest: the
n-grams that give an answer away are learnt in the first epoch and the Transformer learns the remainder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.codecs import FIRST, MISSING_TIME, CategoryCodec, Codec, TextCodec, TimeCodec

Columns = dict[str, dict[str, Tensor]]


class LinearPath(nn.Module):
    """Outputs [B, C] that are linear in the codes of the columns whose type is in ``types``; starts at zero.

    ``dropout``: share of the n-grams of a text left out in training. ``rate_factor``: how much faster than
    the rest it learns.
    """

    offsets: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, codecs: Sequence[Codec], outputs: int, types: frozenset[str], dropout: float = 0.5):
        super().__init__()
        self.decayed = False
        self.rate_factor = 5.0 if any(c.type == "text" and c.type in types for c in codecs) else 1.0
        ordered = sorted((c for c in codecs if c.type in types), key=lambda c: c.name)
        self.dropout = dropout
        self.numbers = [c.name for c in ordered if c.type == "number"]
        times = [c for c in ordered if isinstance(c, TimeCodec)]
        self.times = [c.name for c in times]
        categories = [c for c in ordered if isinstance(c, CategoryCodec)]
        self.categories = [c.name for c in categories]
        texts = [c for c in ordered if isinstance(c, TextCodec)]
        self.texts = [c.name for c in texts]
        sizes = [len(c.categories) + FIRST for c in categories]
        self.register_buffer("offsets", torch.tensor(np.cumsum([0, *sizes])[: len(sizes)], dtype=torch.int64))
        self.register_buffer("mean", torch.tensor([c.mean for c in times], dtype=torch.float64))
        self.register_buffer("deviation", torch.tensor([c.deviation for c in times], dtype=torch.float64))
        self.number = nn.Parameter(torch.zeros(2 * (len(self.numbers) + len(times)), outputs))
        self.category = nn.Parameter(torch.zeros(sum(sizes), outputs))
        self.grams = nn.ParameterList(torch.zeros(max(1, len(c.grams)), outputs) for c in texts)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, columns: Columns) -> Tensor:
        out: Tensor = self.bias
        values = [columns[n]["value"] for n in self.numbers]
        for place, name in enumerate(self.times):
            seconds = columns[name]["seconds"]
            elapsed = ((seconds.double() - self.mean[place]) / self.deviation[place]).float()
            values.append(elapsed.masked_fill(seconds == MISSING_TIME, torch.nan))
        if values:
            stacked = torch.stack(values, dim=1)
            missing = torch.isnan(stacked)
            limited = stacked.masked_fill(missing, 0.0).clamp(-4, 4)
            out = out + torch.cat([limited, missing.float()], dim=1) @ self.number
        if self.categories:
            codes = torch.stack([columns[n]["code"] for n in self.categories], dim=1).long()
            out = out + F.embedding(codes + self.offsets, self.category).sum(dim=1)
        for name, table in zip(self.texts, self.grams, strict=True):
            gram, weight = columns[name]["gram"], columns[name]["weight"]
            weight = F.dropout(weight, self.dropout, self.training)
            gram = gram.clamp(min=0).long()
            if torch.compiler.is_exporting():  # ONNX has no such thing but as a loop over rows
                out = out + (F.embedding(gram, table) * weight.unsqueeze(-1)).sum(dim=1)
            else:
                out = out + F.embedding_bag(gram, table, per_sample_weights=weight, mode="sum")
        return out

    def weights(self) -> list[nn.Parameter]:
        """All but the bias: what ridge regression holds small."""
        return [self.number, self.category, *self.grams]


class FirstAnswers(nn.Module):
    """Probabilities [B, C] by a linear path that has learnt a model's own answers, before the model reads a row.

    Where the two likeliest classes lie ``margin`` apart or more the row is easy, and the model need not read it.
    """

    margin: Tensor

    def __init__(self, codecs: Sequence[Codec], classes: int):
        super().__init__()
        self.path = LinearPath(codecs, classes, frozenset(("text", "number", "category", "time")), dropout=0.0)
        self.register_buffer("margin", torch.tensor(2.0))  # no row is easy

    def forward(self, columns: Columns) -> Tensor:
        return self.path(columns).softmax(dim=-1)

    def easy(self, probability_NC: np.ndarray) -> np.ndarray:
        """Which rows [N] the model need not read."""
        return margins(probability_NC) >= float(self.margin)


def margins(probability_NC: np.ndarray) -> np.ndarray:
    """By how much the likeliest class of each row is ahead of the next [N]."""
    least, most = np.partition(probability_NC, -2, axis=1)[:, -2:].T
    return most - least
