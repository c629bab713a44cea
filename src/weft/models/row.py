"""RowModel: codes of a row -> Tokens -> backbone -> head. The model that every table task trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.batching import Batch
from weft.features.codecs import RAGGED, Codec
from weft.features.targets import ClassTarget, LabelsTarget, Target
from weft.models.backbone import AroundBackbone, BackboneConfig, backbone_in_words, build
from weft.models.embeddings import PretrainedText, RowEmbedding
from weft.models.fused import RMSNorm
from weft.models.heads import ClassHead, LabelsHead, NumberHead
from weft.models.images import PretrainedImage
from weft.models.linear import FirstAnswers, LinearPath
from weft.models.tokens import Tokens


@dataclass(frozen=True)
class RowConfig(AroundBackbone):
    """Shape of a RowModel with every default resolved."""

    backbone: BackboneConfig
    hidden: int
    dropout: float
    linear: tuple[str, ...]
    """Column types that the linear path reads; empty: there is none."""
    linear_first: bool = False
    """The linear path is fitted before the rest, which then starts from zero."""
    balanced: bool = False
    smoothing: float = 0.0
    """Of the labels: this share of each row's answer is spread over all classes (Szegedy 2016)."""
    pretrained: PretrainedText | PretrainedImage | None = None
    """Texts, or pictures, are read with the tokens of a checkpoint, whose backbone this is."""
    summaries: dict[str, int] = field(default_factory=dict)
    """Columns that are read ahead of the row, and the tokens in which each then stands."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "linear", tuple(self.linear))
        if isinstance(self.pretrained, dict):  # as it comes back from JSON
            kind = PretrainedImage if "patch" in self.pretrained else PretrainedText
            object.__setattr__(self, "pretrained", kind(**self.pretrained))


def shape_in_words(config: RowConfig) -> str:
    """``a Transformer of 2 layers and width 64``."""
    return backbone_in_words(config.backbone) + (" from a checkpoint" if config.pretrained else "")


class RowModel(nn.Module):
    """Reads rows. The head sees the state of the reading token after the backbone and, of each text column, mean and
    maximum of its tokens before it, of each image column the mean of its tokens after it. Where the backbone is
    a checkpoint, which knows phrases, it sees the mean of the states of the reading token and all tokens of its
    texts or pictures, as sentence embeddings are made (the other columns' tokens have been read by those). The
    linear path is added to its outputs [B, C]."""

    def __init__(self, codecs: Sequence[Codec], target: Target, config: RowConfig):
        super().__init__()
        width = config.backbone.width
        self.config = config
        writing = config.backbone.attention != "reading"
        self.embedding = RowEmbedding(codecs, width, config.pretrained, writing, config.summaries)
        self.backbone = build(config.backbone)
        texts = sorted(c.name for c in codecs if c.type in RAGGED)
        self.texts = [self.embedding.number[name] for name in texts]
        self.images = [self.embedding.number[c.name] for c in sorted(codecs, key=lambda c: c.name) if c.type == "image"]
        self.pool_norm = RMSNorm(width) if config.pretrained is None else nn.Identity()
        inputs = width * (1 + 2 * len(self.texts) + len(self.images) if config.pretrained is None else 1)
        self.head: ClassHead | LabelsHead | NumberHead
        if isinstance(target, ClassTarget):
            outputs = len(target.classes)
            self.head = ClassHead(
                inputs, config.hidden, target.counts, config.dropout, config.linear_first, config.balanced,
                directions=config.pretrained is not None, smoothing=config.smoothing,
            )  # fmt: skip
        elif isinstance(target, LabelsTarget):
            outputs = len(target.classes)
            self.head = LabelsHead(
                inputs, config.hidden, [count / target.rows for count in target.counts], config.dropout,
                config.linear_first, directions=config.pretrained is not None,
            )  # fmt: skip
        else:
            outputs = 1
            self.head = NumberHead(
                inputs, config.hidden, target.mean, target.deviation, config.dropout, config.linear_first
            )
        read = any(codec.type in config.linear for codec in codecs)
        self.linear = LinearPath(codecs, outputs, frozenset(config.linear)) if read else None

    def forward(self, batch: Batch, states: dict[str, Tensor] | None = None) -> Tensor:
        """Outputs [B, C]; ``states`` is filled with named states on request."""
        read = self.read(self.embedding(batch.columns), states) if batch.reads is None else batch.reads
        out = self.head(F.dropout(read, self.config.dropout, self.training))
        return out if self.linear is None else out + self.linear(batch.columns)

    def read(self, tokens: Tokens, states: dict[str, Tensor] | None = None) -> Tensor:
        """What the head sees of each row [B, R]."""
        if self.config.pretrained is not None:
            return self._mean(self.backbone(tokens, states=states), tokens)
        last = self.embedding.reader_last
        x = self.backbone(tokens, states=states, first=None if last or self.images else 1)
        found = [x[:, -1 if last else 0]]
        before = self.pool_norm(tokens.states_BTD) if self.texts else x
        for column in self.texts:
            here = _here(tokens, tokens.columns_BT == column)
            found.append((before * here).sum(dim=1) / here.sum(dim=1).clamp(min=1))
            most = before.masked_fill(~here, -1e4).amax(dim=1)
            found.append(torch.where(here.any(dim=1), most, 0.0))
        for column in self.images:
            here = _here(tokens, tokens.columns_BT == column)
            found.append((x * here).sum(dim=1) / here.sum(dim=1).clamp(min=1))
        return torch.cat(found, dim=-1)

    def _mean(self, states_BTD: Tensor, tokens: Tokens) -> Tensor:
        read = self.images if isinstance(self.config.pretrained, PretrainedImage) else self.texts
        of_these = torch.tensor([0, *read], device=states_BTD.device)  # torch.isin has no form in ONNX
        here = _here(tokens, (tokens.columns_BT.unsqueeze(-1) == of_these).any(dim=-1))
        return (states_BTD * here).sum(dim=1) / here.sum(dim=1)

    def loss(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return self.head.loss(self(batch), batch.target)

    def weigh(self, batch: Batch) -> float:
        """What the loss of a batch is the mean of: its rows, each by the weight of its class."""
        if isinstance(self.head, ClassHead) and batch.target is not None:
            return float(self.head.weigh(batch.target))
        return batch.rows

    def answer(self, batch: Batch) -> Tensor:
        """Log probabilities [B, C], logits of labels [B, L], or numbers [B] in the target's unit."""
        return self.head.answer(self(batch))


def _here(tokens: Tokens, chosen_BT: Tensor) -> Tensor:
    """Of the chosen places those that hold a token [B, T, 1]."""
    return (chosen_BT if tokens.mask_BT is None else chosen_BT & tokens.mask_BT).unsqueeze(-1)


class GroupShift(nn.Module):
    """Moves the probability of one of two classes so that 0.5 lies where the threshold of the row's group does: its log
    odds by ``shift`` [G], which is 0 until it is set.

    columns: categories that the model reads, each with how many codes it has; a group is one code of each.
    """

    shift: Tensor

    def __init__(self, columns: dict[str, int], positive: int):
        super().__init__()
        self.columns, self.positive = columns, positive
        self.register_buffer("shift", torch.zeros(math.prod(columns.values())))

    def groups(self, batch: Batch) -> Tensor:
        """The group of each row [B]."""
        found = torch.zeros(batch.rows, dtype=torch.int64, device=self.shift.device)
        for name, codes in self.columns.items():
            found = found * codes + batch.columns[name]["code"]
        return found

    def set(self, thresholds_G: np.ndarray) -> None:
        self.shift.copy_(torch.from_numpy(np.log(1 - thresholds_G) - np.log(thresholds_G)))

    def forward(self, p_BC: Tensor, groups_B: Tensor) -> Tensor:
        logs = p_BC.log()
        logs[:, self.positive] += self.shift[groups_B]
        return logs.softmax(dim=-1)


class RowModels(nn.Module):
    """One or several RowModels of one shape, trained on different folds, that answer as one.

    ``score``: how sure the model is of a row (:data:`SCORES`), where it declines the least sure; None: it answers all.
    ``first``: it has what answers easy rows in its place.
    """

    temperature: Tensor
    threshold: Tensor
    """Of the score, below which a row is declined; or of each label's probability, from which on it is given."""

    def __init__(
        self, codecs: Sequence[Codec], target: Target, config: RowConfig, copies: int, score: str | None = None,
        shift: GroupShift | None = None, first: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.shift = shift
        self.copies = nn.ModuleList(RowModel(codecs, target, config) for _ in range(copies))
        self.kind, self.score = target.type, score
        self.classes = len(target.classes) if isinstance(target, ClassTarget) else None
        self.first = FirstAnswers(codecs, self.classes or 0) if first else None
        self.register_buffer("temperature", torch.ones(()))
        if isinstance(target, LabelsTarget):
            self.register_buffer("threshold", torch.full((len(target.classes),), 0.5))
        elif score is not None:
            self.decline(score, 0.0)

    def decline(self, score: str, threshold: float) -> None:
        """From now on decline the rows whose score is below the threshold."""
        self.score = score
        self.register_buffer("threshold", torch.tensor(threshold, device=self.temperature.device))

    @property
    def width(self) -> int | None:
        """Numbers that the answer to a row has; None where it is one and no list."""
        if self.kind == "labels":
            return len(self.threshold)
        return None if self.classes is None else self.classes + (self.score is not None)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Calibrated probabilities [B, C] or [B, L], or numbers [B] in the target's unit; in float32
        where no autocast is on. All rows are read, the easy ones too.

        A model that declines gives one number more a row: how far its score is above the threshold.
        """
        if self.training:
            self.eval()
        copies = self.each()
        outputs = [copy(batch) for copy in copies]
        answers = [copy.head.answer(out) for copy, out in zip(copies, outputs, strict=True)]
        found = combine(answers, self.kind, self.temperature)
        if self.shift is not None:
            found = self.shift(found, self.shift.groups(batch))
        if self.score is None:
            return found
        energies = torch.stack([energy(out) for out in outputs]).mean(dim=0)
        sure = SCORES[self.score](found, energies)
        return torch.cat([found, (sure - self.threshold).unsqueeze(1)], dim=1)

    def each(self) -> list[RowModel]:
        return [copy for copy in self.copies if isinstance(copy, RowModel)]

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def combine(outputs: Sequence[Tensor], kind: str, temperature: Tensor) -> Tensor:
    """The answer of several copies: mean of the numbers, or of the probabilities, then the temperature.

    ``outputs``: log probabilities [B, C], logits of labels [B, L] or numbers [B], one a copy.
    """
    stacked = torch.stack(list(outputs))
    if kind == "number":
        return stacked.mean(dim=0)
    if kind == "labels":
        return stacked.sigmoid().mean(dim=0)
    mean = stacked.logsumexp(dim=0) - math.log(len(outputs))
    return (mean / temperature).softmax(dim=-1)


def energy(out_BC: Tensor) -> Tensor:
    """How much evidence a row gives for any class at all [B]: the log of the sum of the exponents of the logits.

    The probabilities lose it, as they only compare the classes (Liu 2020; the negative of the free energy).
    """
    return out_BC.float().logsumexp(dim=-1)


SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "energy": lambda probabilities_BC, energy_B: energy_B,
    "probability": lambda probabilities_BC, energy_B: probabilities_BC.amax(dim=-1),
}
"""How sure a model is of a row [B], of its probabilities [B, C] and its energy [B]."""
