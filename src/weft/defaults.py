"""Settings left out are decided here, from what the data are; `weft check` and the run show them."""

from __future__ import annotations

from dataclasses import dataclass

from weft.config import Settings
from weft.models.row import RowConfig
from weft.models.transformer import TransformerConfig
from weft.training.loop import Recipe


@dataclass(frozen=True)
class Facts:
    """What the defaults look at. ``rows``: those learnt from (train and valid)."""

    rows: int
    has_text: bool


def row_config(settings: Settings, facts: Facts) -> RowConfig:
    """The shape of the model."""
    model = settings.model
    width = model.width or (128 if facts.has_text else 64)
    heads = model.heads or max(1, width // 16)
    dropout = 0.1 if model.dropout is None else model.dropout
    backbone = TransformerConfig(
        width=width,
        layers=model.layers or 2,
        heads=heads,
        dropout=dropout,
        attention_dropout=dropout,
    )
    balanced = settings.training.class_weight == "balanced"
    return RowConfig(backbone, members=model.members, hidden=2 * width, dropout=dropout, balanced=balanced)


def copies(settings: Settings, facts: Facts) -> int:
    """Models trained on different folds of the rows: five where the table is so small that it costs little."""
    return settings.model.copies or (5 if facts.rows < 3_000 else 1)


def recipe(settings: Settings, facts: Facts, bfloat16: bool) -> Recipe:
    """How the model is trained."""
    t = settings.training
    small = facts.rows < 3_000
    return Recipe(
        epochs=t.epochs or (30 if small else 10),
        batch_rows=t.batch_rows or (64 if small else 32 if facts.has_text else 256),
        learning_rate=t.learning_rate or 1e-3,
        weight_decay=0.01 if t.weight_decay is None else t.weight_decay,
        patience=t.patience or (8 if small else 3),
        average=0.95 if small else 0.99,
        bfloat16=bfloat16,
        seed=t.seed,
        minutes=t.minutes,
        checks=1 if small else 2,
    )
