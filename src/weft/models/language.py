"""Models of one kind of input: LanguageModel reads or writes text, ImageModel reads pictures.

Each is a table in, a backbone, a matrix out. Checkpoints of other libraries are loaded into these
(``weft.models.checkpoints``). Shape suffixes: B batch, T tokens, D width, V vocabulary, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.errors import UsageError
from weft.features.pieces import IGNORED
from weft.models.backbone import AroundBackbone, BackboneConfig, build
from weft.models.mapped import mapped
from weft.models.tokens import Tokens
from weft.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class LanguageConfig(AroundBackbone):
    """The shape of a LanguageModel, and the ids its checkpoint gives a meaning to."""

    backbone: BackboneConfig
    vocabulary: int
    types: int = 0
    """Kinds of token that have a vector of their own (BERT's first and second text)."""
    scaled: bool = False
    """Vectors of tokens times sqrt(width) (Vaswani 2017, 3.4)."""
    output: Literal["none", "linear", "transform"] = "linear"
    """States to logits: one matrix; or BERT's, with a layer and a norm before it and a bias."""
    tied: bool = True
    """The output matrix is the token table (Press & Wolf 2017)."""
    pooler: bool = False
    """BERT's layer on the first token: tanh(W x + b)."""
    span: bool = False
    """Two numbers a token: how much an answer begins there, and ends there (Devlin 2019, 4.2)."""
    labels: tuple[str, ...] = ()
    """Classes of a token, by name (Devlin 2019, 5.3)."""
    begin: int | None = None
    end: tuple[int, ...] = ()
    pad: int | None = None
    family: str | None = None
    """The family of checkpoints it was read from, and is written as."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", tuple(self.end))
        object.__setattr__(self, "labels", tuple(self.labels))

    @property
    def longest(self) -> int | None:
        """Tokens of the longest text that it reads; None: a recurrent network reads any."""
        return getattr(self.backbone, "max_positions", None)


class LanguageModel(nn.Module):
    """Ids -> token vectors -> backbone -> logits of the vocabulary."""

    def __init__(self, config: LanguageConfig):
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.table = nn.Embedding(config.vocabulary, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        if config.types:
            self.types = nn.Embedding(config.types, width)
            nn.init.normal_(self.types.weight, std=0.02)
        self.backbone = build(config.backbone)
        if config.pooler:
            self.pooler = nn.Linear(width, width)
        if config.span:
            self.span = nn.Linear(width, 2)
            nn.init.normal_(self.span.weight, std=0.02)
            nn.init.zeros_(self.span.bias)
        if config.labels:
            self.classifier = nn.Linear(width, len(config.labels))
            nn.init.normal_(self.classifier.weight, std=0.02)
            nn.init.zeros_(self.classifier.bias)
        if config.output == "transform":
            self.transform = nn.Linear(width, width)
            self.transform_norm = nn.LayerNorm(width, eps=getattr(config.backbone, "norm_eps", 1e-5))
            self.output_bias = nn.Parameter(torch.zeros(config.vocabulary))
        if config.output != "none" and not config.tied:
            self.output = nn.Linear(width, config.vocabulary, bias=False)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def tokens(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        past: Tensor | int = 0,
        segments_BT: Tensor | None = None,
    ) -> Tokens:
        """Ids as Tokens. Positions count the tokens of a row, so padding may stand anywhere.

        Args:
            past: how many tokens each row has before these, [B] or one number.
            segments_BT: which text each token belongs to (0: none); positions count from each text's first.
        """
        if segments_BT is not None:
            mask_BT = segments_BT > 0
            places = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
            first = torch.ones_like(mask_BT)
            first[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
            places = places - torch.where(first, places, 0).cummax(dim=1).values
            if mapped(segments_BT) or int(segments_BT.max()) <= 1:
                segments_BT = None
        elif mask_BT is None:
            places = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        else:
            places = (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
        if isinstance(past, Tensor):
            past = past[:, None]
        types = torch.zeros_like(ids_BT) if types_BT is None else types_BT
        states = self.table(ids_BT)
        if self.config.scaled:
            states = states * math.sqrt(self.config.backbone.width)
        if self.config.types:
            states = states + self.types(types)
        if isinstance(past, Tensor) or past:
            places = places + past
        return Tokens(states, mask_BT, places, types, prefix_BT, segments_BT)

    def hidden(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The backbone's states [B, T, D]."""
        return self.backbone(self.tokens(ids_BT, mask_BT, types_BT, prefix_BT), states=states)

    def logits(self, states_BTD: Tensor) -> Tensor:
        if self.config.output == "none":
            raise UsageError("this model must have an output matrix to give logits. It is an encoder; use pooled().")
        bias = None
        if self.config.output == "transform":
            states_BTD = self.transform_norm(F.gelu(self.transform(states_BTD)))
            bias = self.output_bias
        if bias is None and hasattr(self, "output"):
            return self.output(states_BTD)
        return F.linear(states_BTD, self.table.weight if self.config.tied else self.output.weight, bias)

    def forward(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
        states: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits [B, T, V]."""
        return self.logits(self.hidden(ids_BT, mask_BT, types_BT, prefix_BT, states))

    def pooled(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        how: Literal["mean", "first", "last", "pooler"] = "mean",
    ) -> Tensor:
        """One vector a text [B, D]: the mean of its tokens' states, its first, its last, or BERT's pooler."""
        x = self.hidden(ids_BT, mask_BT, types_BT)
        mask = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT
        if how == "mean":
            share = mask.unsqueeze(-1).to(x.dtype)
            return (x * share).sum(dim=1) / share.sum(dim=1).clamp(min=1)
        rows = torch.arange(len(x), device=x.device)
        if how == "last":
            return x[rows, x.shape[1] - 1 - mask.flip(1).long().argmax(dim=1)]
        first = x[rows, mask.long().argmax(dim=1)]
        if how == "first":
            return first
        if not self.config.pooler:
            raise UsageError("this model has no pooler. Use 'mean' or 'first'.")
        return torch.tanh(self.pooler(first))

    def spans(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, 2] of the beginning and the end of an answer."""
        if not self.config.span:
            raise UsageError("this model must have been trained to answer from a text (target.type: span). It was not.")
        return self.span(self.hidden(ids_BT, mask_BT, types_BT))

    def tags(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, C] of the class of each token, ``config.labels``."""
        return self.classifier(self.hidden(ids_BT, mask_BT))

    def loss(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        targets_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
    ) -> Tensor:
        """Mean over targets of -log p(target), in nats.

        A writer's target is the next token, unless that is padding or part of the prefix. A reader needs
        ``targets_BT``: what each place must say, IGNORED where nothing is asked (masked tokens).
        """
        logits = self(ids_BT, mask_BT, types_BT, prefix_BT)
        if targets_BT is None:
            if self.config.backbone.attention == "reading":
                raise UsageError("a model that reads needs targets_BT: with both sides seen, the next token is given.")
            targets_BT = ids_BT
            if mask_BT is not None:
                targets_BT = targets_BT.masked_fill(~mask_BT, IGNORED)
            if prefix_BT is not None:
                targets_BT = targets_BT.masked_fill(prefix_BT, IGNORED)
            logits, targets_BT = logits[:, :-1], targets_BT[:, 1:]
        return F.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED)


def reader_of(source: LanguageModel, span: bool = False) -> LanguageModel:
    """The states of a model without its output matrix, or with the two numbers of an answer in its place."""
    model = LanguageModel(replace(source.config, output="none", pooler=False, span=span, labels=()))
    kept = model.state_dict()
    model.load_state_dict({n: source.state_dict().get(n, kept[n]) for n in kept})
    return model


def check_writes(model: LanguageModel) -> None:
    """Raises UsageError where the model is an encoder."""
    if model.config.backbone.attention == "reading":
        raise UsageError("a model that reads cannot write. Use one whose attention is writing or rewriting.")
    if model.config.output == "none":
        raise UsageError("a model must have an output matrix to write. This one gives states only. Use one with it.")


class Continuation:
    """Texts that a model has read, and goes on reading a token at a time: the one loop of all writing.

    ``logits_BV`` are those of the token that follows. The model must be in the mode wanted (eval).
    """

    logits_BV: Tensor

    @torch.inference_mode()
    def __init__(
        self,
        model: LanguageModel,
        ids_BT: Tensor,
        mask_BT: Tensor | None = None,
        prefix_BT: Tensor | None = None,
    ):
        check_writes(model)
        past = torch.full((len(ids_BT),), ids_BT.shape[1], device=ids_BT.device)
        if mask_BT is not None:
            # empty places to the left: the last token of every row is then in the last place
            order = mask_BT.long().argsort(dim=1, stable=True)
            ids_BT, mask_BT = ids_BT.gather(1, order), mask_BT.gather(1, order)
            prefix_BT = None if prefix_BT is None else prefix_BT.gather(1, order)
            past = mask_BT.sum(dim=1)
        self.model, self.past = model, past
        self.cache = model.backbone.new_cache()
        self._read(model.tokens(ids_BT, mask_BT, prefix_BT=prefix_BT))

    @torch.inference_mode()
    def step(self, ids_B: Tensor) -> None:
        """Read one more token of every row."""
        self._read(self.model.tokens(ids_B[:, None], past=self.past))
        self.past = self.past + 1

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; a row may come several times (beams) or not at all (done)."""
        self.cache.select(rows)
        self.past, self.logits_BV = self.past[rows], self.logits_BV[rows]

    def _read(self, tokens: Tokens) -> None:
        self.logits_BV = self.model.logits(self.model.backbone(tokens, cache=self.cache)[:, -1])


@dataclass(frozen=True)
class ImageConfig:
    """The shape of an ImageModel. Pictures are square, ``image`` pixels a side, cut into squares of ``patch``."""

    backbone: TransformerConfig
    image: int
    patch: int
    channels: int = 3
    classes: int = 0
    """0: states only."""
    labels: tuple[str, ...] = ()
    family: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.image % self.patch:
            raise ValueError(f"image must be a multiple of patch. Got {self.image} and {self.patch}.")

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2


class ImageModel(nn.Module):
    """Pixels -> a token a patch, after one that reads the picture -> backbone -> logits (Dosovitskiy 2021)."""

    def __init__(self, config: ImageConfig):
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.cut = nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
        self.reader = nn.Parameter(torch.zeros(1, 1, width))
        self.backbone = Transformer(config.backbone)
        if config.classes:
            self.output = nn.Linear(width, config.classes)

    def tokens(self, pixels_BCHW: Tensor) -> Tokens:
        b, size = len(pixels_BCHW), self.config.image
        if pixels_BCHW.shape[1:] != (self.config.channels, size, size):
            raise UsageError(
                f"pictures must be [B, {self.config.channels}, {size}, {size}] for this model. "
                f"Got {list(pixels_BCHW.shape)}. Resize them."
            )
        patches = self.cut(pixels_BCHW).flatten(2).transpose(1, 2)
        states = torch.cat([self.reader.expand(b, -1, -1), patches], dim=1)
        places = torch.arange(states.shape[1], device=states.device).expand(b, -1)
        return Tokens(states, None, places, torch.zeros_like(places))

    def hidden(self, pixels_BCHW: Tensor, states: dict[str, Tensor] | None = None, first: int | None = None) -> Tensor:
        """The backbone's states [B, 1 + patches, D]."""
        return self.backbone(self.tokens(pixels_BCHW), states=states, first=first)

    def forward(self, pixels_BCHW: Tensor, states: dict[str, Tensor] | None = None) -> Tensor:
        """Logits [B, C], from the token that reads the picture."""
        if not self.config.classes:
            raise UsageError("this model has no classes. Use hidden(), or a checkpoint with a classifier.")
        return self.output(self.hidden(pixels_BCHW, states, first=1)[:, 0])
