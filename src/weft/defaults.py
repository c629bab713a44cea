"""Settings left out are decided here, from what the data are; `weft check` and the run show them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from weft.config import Settings
from weft.data.split import TRAIN
from weft.features.catalogue import Catalogue
from weft.features.codecs import TextCodec
from weft.features.columns import Columns
from weft.features.events import Events
from weft.features.next_items import NextItems
from weft.models.backbone import BackboneConfig, machine_has_bfloat16
from weft.models.pretrained import PictureModel, TextModel
from weft.models.ranking import RankingConfig
from weft.models.recurrent import RecurrentConfig
from weft.models.row import RowConfig
from weft.models.transformer import TransformerConfig
from weft.training.loop import Distil, Federated, Recipe
from weft.training.private import privately
from weft.training_settings import AugmentSettings

FINE_TUNING_RATE = 1e-3
LONG, SUMMARY = 1_024, 16
"""Tokens from which on a column is read ahead of the row, and in how many it then stands."""
CROP, ERASE = 0.07, 0.25
PICTURES = 1_800_000
"""That are shown in all: on Fashion-MNIST 30 passes and 0.935 on the test, where 12 passes came to 0.920."""
LEAST_STEPS = 600
"""Of texts from scratch, whatever the rows: on 500 of Banking77 an accuracy of 0.42 where 225 steps came to 0.31."""
SMALL = 5_000  # rows below which folds, a linear start and a smaller model pay


@dataclass(frozen=True)
class Facts:
    """What the defaults look at. ``rows``: those learnt from (train and valid)."""

    rows: int
    text: bool
    classes: int | None
    source: TextModel | PictureModel | None = None
    """The checkpoint to start from."""
    types: frozenset[str] = frozenset()
    """Of the columns that are read."""
    lengths: dict[str, int] = field(default_factory=dict)
    """The most tokens that a column of texts has in a row; 0 for the others, which are never long."""

    @classmethod
    def of(cls, columns: Columns, rows: int, source: TextModel | PictureModel | None = None) -> Facts:
        target = columns.target
        classes = len(target.classes) or None
        types = frozenset(columns.types.values())
        lengths = {c.name: c.max_tokens if isinstance(c, TextCodec) else 0 for c in columns.codecs}
        return cls(rows, "text" in types, classes, source, types, lengths)

    @property
    def image(self) -> bool:
        return "image" in self.types

    @property
    def small(self) -> bool:
        return self.rows < SMALL


def row_config(settings: Settings, facts: Facts) -> RowConfig:
    """The shape of the model."""
    model = settings.model
    balanced = settings.training.class_weight == "balanced"
    private = settings.training.private is not None  # noise grows with every number that is learnt
    if facts.source is not None:
        given = facts.source.backbone
        if model.dropout is not None:
            given = replace(given, dropout=model.dropout)
            if isinstance(given, TransformerConfig):
                given = replace(given, attention_dropout=model.dropout)
        dropout = 0.1 if model.dropout is None else model.dropout
        return RowConfig(
            given, given.width, dropout, linear=("text",) if facts.text and not private else (),
            balanced=balanced, smoothing=0.05, pretrained=facts.source.config,
        )  # fmt: skip
    rich = facts.text or facts.image
    width = model.width or (128 if rich else 32 if facts.small or private else 64)
    dropout = 0.1 if model.dropout is None else model.dropout
    linear = (("number", "category", "time") if facts.small or private else ()) + (
        ("text",) if facts.text and not private else ()
    )
    if facts.types == {"image"}:
        linear = ()
    recurrent = model.backbone == "rnn"
    backbone = fresh_backbone(
        settings, width, 1 if recurrent else 2, width // 16 if width < 128 else width // 32,
        dropout if recurrent or rich or model.dropout is not None else 0.0,
        ffn_width=2 * width, attention_dropout=0.0 if rich else dropout,
    )  # fmt: skip
    return RowConfig(
        backbone,
        hidden=width if rich else 2 * width,
        dropout=2 * dropout if facts.text else dropout,
        linear=linear,
        linear_first=facts.small and not rich and not private and settings.training.federated is None,
        balanced=balanced,
        smoothing=0.05 if facts.image else 0.0,
        summaries=summaries(settings, facts),
    )


def fresh_backbone(
    settings: Settings, width: int, layers: int, heads: int, dropout: float,
    attention: Literal["reading", "writing", "rewriting"] = "reading", **of_transformer: Any,
) -> BackboneConfig:  # fmt: skip
    """A backbone that begins from nothing, with what is said of it in the place of these numbers."""
    m = settings.model
    if m.backbone == "rnn":
        way: Literal["reading", "writing"] = "reading" if attention == "reading" else "writing"
        return RecurrentConfig(width, m.layers or layers, m.cell or "gru", way, dropout=dropout)
    if m.ffn_width is not None:
        of_transformer["ffn_width"] = m.ffn_width
    return TransformerConfig(
        width=width, layers=m.layers or layers, heads=m.heads or max(1, heads), attention=attention, dropout=dropout,
        **of_transformer,
    )  # fmt: skip


def lora_rank(settings: Settings) -> int | None:
    """Of the adapters, where they are trained in the place of the checkpoint's matrices."""
    return (settings.model.rank or 16) if settings.model.adapter == "lora" else None


def frozen(settings: Settings) -> bool:
    """Whether the checkpoint stays as it is."""
    return settings.model.adapter == "head"


def summaries(settings: Settings, facts: Facts) -> dict[str, int]:
    """Columns that are read ahead, with the tokens they then have: as set, or where they are long."""
    found = {}
    for name, length in facts.lengths.items():
        own = settings.features.get(name)
        given = own.summary if own is not None else None
        found[name] = given if given is not None else SUMMARY if length > LONG else 0
    return {name: tokens for name, tokens in found.items() if tokens}


def copies(settings: Settings, facts: Facts) -> int:
    """Models trained on different folds of the rows: five where the table is so small that it costs little."""
    if settings.training.private is not None or settings.training.federated is not None:
        return 1
    return settings.model.copies or (
        5 if facts.small and not (facts.text or facts.image) and settings.model.backbone != "rnn" else 1
    )


def augment(settings: Settings, facts: Facts) -> AugmentSettings | None:
    """What is changed of the training rows: as said; pictures are moved and partly hidden unless that is said."""
    given = settings.training.augment
    if not facts.image:
        return given
    if given is None:
        return AugmentSettings(crop=CROP, erase=ERASE)
    rest = {"crop": CROP, "erase": ERASE}
    return given.model_copy(update={n: share for n, share in rest.items() if getattr(given, n) is None})


def _fine_tuning(settings: Settings, facts: Facts, device: str) -> Recipe:
    """A checkpoint as the start. Few passes whatever the rows (at least 40 steps): the head begins as class means,
    and on 500 rows of Banking77 fourteen passes were three points worse than three."""
    batch = settings.training.batch_rows or 32
    epochs = max(2 if facts.rows > 50_000 else 3, -(-40 * batch // facts.rows))
    assert facts.source is not None
    return resolved(settings, facts.source.backbone.width, device, epochs, batch, FINE_TUNING_RATE, 0.01, 3)


def recipe(settings: Settings, facts: Facts, device: str) -> Recipe:
    """How the model is trained."""
    if facts.source is not None:
        return _fine_tuning(settings, facts, device)
    width = settings.model.width or (128 if facts.text or facts.image else 0)
    if facts.image:
        epochs = int(np.clip(round(PICTURES / facts.rows), 5, 40))  # as many as show so many pictures
        return resolved(settings, width, device, epochs, 64, 2e-3, 0.05, 5)
    if facts.text:
        batch = settings.training.batch_rows or 32
        # texts of many classes need more passes: each class has fewer of them
        passes = int(np.clip(round(3 * np.sqrt((facts.classes or 2) / 2)), 3, 15))
        epochs = max(passes, -(-LEAST_STEPS * batch // facts.rows))
        return resolved(settings, width, device, epochs, batch, 1e-3, 0.05, 3)
    table = (30, 64, 3e-4, 0.01, 6, 0.95) if facts.small else (6, 256, 1e-3, 0.01, 3, 0.99)
    # two are no faster on 64 rows at once, and wait for each other where the machine has other work
    threads = None if width > 128 else 1 if facts.small else 2
    return resolved(settings, width, device, *table, threads=threads)


def resolved(
    settings: Settings, width: int, device: str, epochs: int, batch: int, rate: float, decay: float, patience: int,
    average: float = 0.99, optimizer: Literal["adamw", "muon"] = "adamw", accumulate: int = 1, **own: Any,
) -> Recipe:  # fmt: skip
    """The settings of the training, with these where nothing is said; in bfloat16 as said, or where it is faster: in
    hardware, and not on models that are narrow (``width``)."""
    t = settings.training
    faster = machine_has_bfloat16(device) and width >= 128
    found = Recipe(
        epochs=t.epochs or epochs,
        batch_rows=t.batch_rows or batch,
        learning_rate=t.learning_rate or rate,
        weight_decay=decay if t.weight_decay is None else t.weight_decay,
        patience=t.patience or patience,
        average=average,
        bfloat16=faster if t.precision == "auto" else t.precision == "bfloat16",
        seed=t.seed,
        minutes=t.minutes,
        accumulate=t.accumulate or accumulate,
        shard=t.parallel.shard if t.parallel else False,
        tensor=t.parallel.tensor if t.parallel else 1,
        checkpoint_activations=t.checkpoint_activations,
        optimizer=t.optimizer or optimizer,
        mixup=t.mixup or 0.0,
        cutmix=t.cutmix or 0.0,
        consistency=t.consistency or 0.0,
        dropout_schedule=t.dropout_schedule,
        column_dropout=t.column_dropout or 0.0,
        distil=Distil(t.distil.temperature, t.distil.weight) if t.distil else None,
        federated=Federated(t.federated.steps, t.federated.rate, t.batch_rows or batch) if t.federated else None,
        **own,
    )
    return privately(found, t) if t.private else found


def ranking_config(settings: Settings, events: Events, catalogue: Catalogue, repeats: bool) -> RankingConfig:
    """The shape of a model of what users have next."""
    m, given = settings.model, settings.features.get(settings.target.name)
    width = m.width or 64
    dropout = 0.2 if m.dropout is None else m.dropout
    lengths = events.lengths()
    usual = int(np.quantile(lengths[lengths > 0], 0.99))
    context = (given.max_events if given else None) or int(np.clip(usual, 8, 100))
    backbone = fresh_backbone(settings, width, 2, width // 32, dropout, "writing", ffn_width=2 * width)
    rated = events.ratings[events.parts == TRAIN] if events.ratings is not None else np.zeros(0)
    rated = rated[np.isfinite(rated)]
    rating = (float(rated.mean()), float(rated.std()) or 1.0) if len(rated) else None
    return RankingConfig(backbone, catalogue.known, context, dropout, events.times is not None, rating, repeats)


def ranking_recipe(settings: Settings, data: NextItems, width: int, device: str) -> Recipe:
    """How it is trained."""
    batch = settings.training.batch_rows or 64
    steps = int(np.ceil(len(data.cuts()) / batch))
    check_steps = max(50, min(steps, 1_000))
    epochs = int(np.clip(20_000 / steps, 3, 50))
    # what items' columns say is learnt late: a few short checks without a gain are not the end
    patience = max(3, -(-750 // check_steps))
    return resolved(
        settings, width, device, epochs, batch, 2e-3, 0.05, patience, warmup=0.05, down="linear",
        check_steps=check_steps,
    )  # fmt: skip
