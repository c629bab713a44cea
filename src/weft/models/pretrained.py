"""A checkpoint as the reader of rows: its backbone, its token table, its tokenizer; or its patches.

The text or picture model of a Hugging Face folder, or the text model of a run, becomes the backbone of a RowModel; its
words or patches keep their vectors, and the other columns' tokens join at its input. What belongs to writing (the
output matrix) or to its own classes stays behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import nn

from weft.errors import CheckpointError, UsageError, did_you_mean
from weft.features.columns import COLUMNS_FILE
from weft.models.backbone import BackboneConfig, best_device, machine_has_bfloat16
from weft.models.checkpoints import Pretrained
from weft.models.embeddings import PretrainedText, PretrainedTextEmbedding
from weft.models.images import PretrainedImage, PretrainedImageEmbedding
from weft.models.language import ImageConfig, ImageModel, LanguageConfig, LanguageModel
from weft.models.row import RowModel
from weft.models.stored import load_pretrained, stored_dtype
from weft.models.transformer import TransformerConfig

PIXELS_FILE = "preprocessor_config.json"
HUB = re.compile(r"hf://?([\w.-]+/[\w.-]+)")  # a Path has one slash left


@dataclass
class TextModel:
    """A text model and what surrounds it."""

    model: LanguageModel
    tokenizer: Tokenizer
    family: str
    config: PretrainedText
    words: dict[str, str] = field(default_factory=dict)
    """The names of special tokens, and ``chat_template`` if there is one."""

    @property
    def backbone(self) -> BackboneConfig:
        return self.model.config.backbone

    @property
    def longest(self) -> int | None:
        """Tokens of the longest text it reads; None: a recurrent network reads any."""
        return self.model.config.longest


@dataclass
class PictureModel:
    """A model of pictures, and how a pixel from 0 to 255 becomes a number: less ``mean``, over ``deviation`` [C]."""

    model: ImageModel
    family: str
    config: PretrainedImage
    mean: list[float]
    deviation: list[float]
    tokenizer: None = None
    longest: None = None

    @property
    def backbone(self) -> TransformerConfig:
        return self.model.config.backbone


def find(source: str | Path) -> Path:
    """The folder of a checkpoint: as it is, or fetched from the hub where ``hf://OWNER/NAME`` asks for it.

    Raises:
        CheckpointError: there is no such folder, or the hub's library or the hub cannot give one.
    """
    path, hub = Path(source), HUB.fullmatch(str(source))
    if path.is_dir():
        return path
    if hub is None:
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        got = "It is a file" if path.exists() else "There is no such folder"
        raise CheckpointError(
            f"{source}: must be a folder with config.json and weights. {got}.{did_you_mean(path.name, beside)} "
            f"A checkpoint of the hub is named hf://OWNER/NAME."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{source}: must be fetched by the hub's library, which is not there. python -m pip install huggingface-hub"
        ) from None
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "vocab.txt"]
        return Path(snapshot_download(hub[1], allow_patterns=patterns))
    except Exception as error:  # the hub's errors have no common base
        raise CheckpointError(
            f"{source}: must be on the hub, which did not give it: {type(error).__name__}. "
            f"Check the name and the network."
        ) from None


def load_text_model(source: str | Path) -> TextModel:
    """The text model of a checkpoint, in float32. Raises CheckpointError where it is none or has no tokenizer.

    A special token that stands in a text, such as ``[SEP]``, is letters to its tokenizer.
    """
    folder = find(source)
    found = load_pretrained(folder)
    model = found.model
    if not isinstance(model, LanguageModel):
        raise CheckpointError(
            f"{folder}: must hold a text model to read text columns. Got one for images ({found.family})."
        )
    tokenizer = _tokenizer(found, folder)
    tokenizer.encode_special_tokens = True
    return TextModel(model, tokenizer, found.family, describe(model, found.tokenizer), found.words)


def load_row_source(source: str | Path, kinds: Collection[str]) -> TextModel | PictureModel:
    """The model of a checkpoint that reads the texts or the pictures of a row. Raises CheckpointError as above."""
    folder = find(source)
    if "image" not in kinds:
        return load_text_model(folder)
    found = load_pretrained(folder)
    if isinstance(found.model, LanguageModel):
        return load_text_model(folder)
    mean, deviation = _pixels(folder / PIXELS_FILE, found.model.config.channels)
    return PictureModel(found.model, found.family, describe_pictures(found.model), mean, deviation)


def _pixels(file: Path, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of pixels from 0 to 255, as a checkpoint's preprocessor says them: of none (x / 127.5) - 1."""
    try:
        said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        factor = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
        normal = said.get("do_normalize", True)
        mean, deviation = (
            [float(v) for v in said.get(key, [0.5] * channels)] if normal else [rest] * channels
            for key, rest in (("image_mean", 0.0), ("image_std", 1.0))
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: must say how pictures become numbers. Got: {error}. Copy it again.") from None
    if not len(mean) == len(deviation) == channels or min(deviation) <= 0 or factor <= 0:
        raise CheckpointError(
            f"{file}: image_mean and image_std must have {channels} numbers. Got {mean}, {deviation}."
        )
    return [m / factor for m in mean], [d / factor for d in deviation]


def describe_pictures(model: ImageModel) -> PretrainedImage:
    c = model.config
    return PretrainedImage(c.image, c.patch, c.channels, c.family)


def load_language_model(path: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """A folder's text model, on the GPU where there is one, and its tokenizer.

    Weights stored as bfloat16 stay so where the machine multiplies them, else they are float32.

    Only folders are looked at: a path with a slip of the finger is never asked for at the hub.

    Raises:
        CheckpointError: the folder holds no text model, or no tokenizer.
    """
    folder = Path(path)
    if (folder / COLUMNS_FILE).is_file():
        raise CheckpointError(
            f"{folder}: must hold a language model. Got a run that predicts the rows of a table: weft predict {folder}"
        )
    device = best_device()
    halved = stored_dtype(folder) == torch.bfloat16 and machine_has_bfloat16(device)
    found = load_pretrained(folder, torch.bfloat16 if halved else torch.float32, device, quick=True)
    if not isinstance(found.model, LanguageModel):
        raise CheckpointError(f"{folder}: must hold a language model. Got one for images ({found.family}).")
    return found.model, _tokenizer(found, folder)


def _tokenizer(found: Pretrained, folder: Path) -> Tokenizer:
    if found.tokenizer is None:
        raise CheckpointError(f"{folder}: must hold tokenizer.json (or vocab.txt), to turn texts into its tokens.")
    return found.tokenizer


def describe(model: LanguageModel, tokenizer: Tokenizer | None) -> PretrainedText:
    """Which special tokens a checkpoint's tokenizer puts before and after a text."""
    before = after = None
    if tokenizer is not None:
        encoding = tokenizer.encode("a", add_special_tokens=True)
        plain = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        if plain and plain[0] > 0:
            before = encoding.ids[plain[0] - 1]
        if plain and plain[-1] + 1 < len(encoding.ids):
            after = encoding.ids[plain[-1] + 1]
    c = model.config
    return PretrainedText(c.vocabulary, c.types, c.scaled, before, after, c.family)


def fill(row: RowModel, source: LanguageModel | ImageModel) -> None:
    """Copy the weights of a checkpoint into a RowModel of its shape."""
    row.backbone.load_state_dict(source.backbone.state_dict())
    if isinstance(source, ImageModel):
        _exchange(source, pictures_of(row))
        return
    text = row.embedding.by_type["text"]
    assert isinstance(text, PretrainedTextEmbedding)
    with torch.no_grad():
        text.table.weight.copy_(source.table.weight)
        if source.config.types:
            text.types.weight.copy_(source.types.weight)


@torch.no_grad()
def _exchange(source: ImageModel | PretrainedImageEmbedding, to: ImageModel | PretrainedImageEmbedding) -> None:
    to.cut.load_state_dict(source.cut.state_dict())
    to.reader.copy_(source.reader)


def pictures_of(row: RowModel) -> PretrainedImageEmbedding:
    """What cuts the pictures of a row that a checkpoint reads."""
    found = row.embedding.by_type["image"]
    assert isinstance(found, PretrainedImageEmbedding)
    return found


def extract_pictures(row: RowModel) -> ImageModel:
    """The fine-tuned checkpoint of pictures inside a RowModel, without classes."""
    c, backbone = row.config.pretrained, row.config.backbone
    assert isinstance(c, PretrainedImage) and isinstance(backbone, TransformerConfig)
    model = ImageModel(ImageConfig(backbone, c.image, c.patch, c.channels, family=c.family))
    _exchange(pictures_of(row), model)
    model.backbone.load_state_dict(row.backbone.state_dict())
    return model.eval()


def extract(row: RowModel) -> LanguageModel:
    """The fine-tuned checkpoint of texts inside a RowModel, as an encoder of its family."""
    config, text = row.config.pretrained, row.embedding.by_type["text"] if row.texts else None
    if not isinstance(config, PretrainedText) or not isinstance(text, PretrainedTextEmbedding):
        raise UsageError("this run was not trained from a checkpoint of texts.")
    # a writer's checkpoint has an output matrix; that of its tokens takes the place
    output: Literal["none", "linear"] = "none" if row.config.backbone.attention == "reading" else "linear"
    model = LanguageModel(
        LanguageConfig(
            row.config.backbone, config.vocabulary, config.types, config.scaled, output, family=config.family
        )
    )
    with torch.no_grad():
        model.table.weight.copy_(text.table.weight)
        if config.types:
            model.types.weight.copy_(text.types.weight)
    model.backbone.load_state_dict(row.backbone.state_dict())
    return model.eval()


@torch.no_grad()
def smaller(model: LanguageModel, layers: int | None, ffn_width: int | None) -> LanguageModel:
    """A checkpoint with fewer of its own blocks, evenly spaced and the last among them (Sanh 2019), and in each fewer
    of the feed-forward's inner numbers: those whose weights in and out are the largest.

    Raises:
        UsageError: it has not so many.
    """
    old = model.config.backbone
    if layers is None and ffn_width is None:
        return model
    if not isinstance(old, TransformerConfig):
        raise UsageError("only a Transformer can be made smaller. This checkpoint is a recurrent network.")
    layers, ffn_width = layers or old.layers, ffn_width or old.hidden_width
    for name, asked, most in (("layers", layers, old.layers), ("ffn_width", ffn_width, old.hidden_width)):
        if asked > most:
            raise UsageError(f"model.{name}: must be at most that of the checkpoint, {most:,}. Got {asked:,}.")
    found = LanguageModel(replace(model.config, backbone=replace(old, layers=layers, ffn_width=ffn_width)))
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("backbone.blocks.")}
    blocks = list(model.backbone.get_submodule("blocks").children())
    for place in range(layers):
        kept = blocks[round((place + 1) * old.layers / layers) - 1].state_dict()
        up, down = kept["feed_forward.up.weight"], kept["feed_forward.down.weight"]
        gates = len(up) // down.shape[1]
        size = up.unflatten(0, (gates, -1)).norm(dim=(0, 2)) * down.norm(dim=0)
        chosen = size.topk(ffn_width).indices.sort().values
        rows = torch.cat([chosen + gate * down.shape[1] for gate in range(gates)])
        kept["feed_forward.down.weight"] = down[:, chosen]
        for name in ("feed_forward.up.weight", "feed_forward.up.bias"):
            if name in kept:
                kept[name] = kept[name][rows]
        state |= {f"backbone.blocks.{place}.{n}": t for n, t in kept.items()}
    found.load_state_dict(state)
    return found.eval()


def layerwise(row: RowModel, top: float, decay: float) -> None:
    """Learning rates that fall from the top block to the tokens, by ``decay`` a block (Howard & Ruder 2018)."""
    backbone = row.backbone
    blocks: list[nn.Module] = list(getattr(backbone, "blocks", []))
    for place, block in enumerate(blocks):
        block.rate_factor = top * decay ** (len(blocks) - 1 - place)  # type: ignore[assignment]
    reads = "image" if isinstance(row.config.pretrained, PretrainedImage) else "text"
    for module in (
        row.embedding.by_type[reads],
        getattr(backbone, "positions", None),
        getattr(backbone, "embedding_norm", None),
    ):
        if isinstance(module, nn.Module):
            module.rate_factor = top * decay ** len(blocks)  # type: ignore[assignment]
