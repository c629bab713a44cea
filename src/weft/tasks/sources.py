"""The checkpoint that a row is read with: of its texts, or of its pictures."""

from __future__ import annotations

from dataclasses import replace

from weft.config import Settings
from weft.data.plan import Plan
from weft.errors import SettingsError, listing
from weft.features.columns import Columns
from weft.features.images import ImageCodec
from weft.models.pretrained import PictureModel, TextModel, load_row_source, smaller


def open_source(settings: Settings, plan: Plan) -> TextModel | PictureModel | None:
    """The checkpoint to start from; ``plan`` then says the size of the pictures that it reads.

    Raises:
        SettingsError: the table has no column, or has columns, that the checkpoint cannot read.
        CheckpointError: the folder does not hold what it must.
    """
    source, kinds = settings.model.from_, set(plan.types.values())
    if source is None:
        return None
    if not kinds & {"text", "image"}:
        raise SettingsError(
            ["model.from: a checkpoint reads text columns, or one of pictures. The table has none. Say which is one in "
             "features, or remove it."]
        )  # fmt: skip
    asked = [n for n in ("layers", "ffn_width") if getattr(settings.model, n) is not None]
    found = load_row_source(source, kinds)
    if isinstance(found, TextModel):
        if "text" not in kinds:
            raise SettingsError([f"model.from: {source} reads texts. The table has pictures only. Take a ViT."])
        found.model = smaller(found.model, settings.model.layers, settings.model.ffn_width)
        return found
    if asked:
        raise SettingsError([f"model.{asked[0]}: only a checkpoint of texts can be made smaller. Remove it."])
    pictures = list(plan.pictures)
    if len(pictures) > 1 or "text" in kinds:
        other = listing([*pictures[1:], *(n for n, t in plan.types.items() if t == "text")])
        raise SettingsError(
            [f"model.from: {source} reads one column of pictures beside numbers, categories and times. Got {other} "
             f"too. Set them off, or remove from."]
        )  # fmt: skip
    (name,), side = pictures, found.config.image
    if plan.pictures[name].side not in (None, side):
        raise SettingsError([f"features.{name}.size: the checkpoint sees pictures of {side} pixels. Remove it."])
    plan.pictures[name] = replace(plan.pictures[name], side=side)
    return found


def see_as(columns: Columns, source: TextModel | PictureModel | None) -> None:
    """Let the pictures be standardised as those that a checkpoint was trained on."""
    for codec in columns.codecs:
        if isinstance(codec, ImageCodec) and isinstance(source, PictureModel):
            codec.fix(source.config.image, source.mean, source.deviation)
