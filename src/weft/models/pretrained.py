"""A checkpoint as the reader of rows: its backbone, its token table, its tokenizer.

The text model of a Hugging Face folder, or of a run, becomes the backbone of a RowModel; its words keep
their vectors, and the other columns' tokens join at its input. What belongs to writing (the output matrix)
stays behind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import nn

from weft.errors import CheckpointError, UsageError, did_you_mean
from weft.features.columns import COLUMNS_FILE
from weft.models.checkpoints import Pretrained
from weft.models.embeddings import PretrainedText, PretrainedTextEmbedding
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.recurrent import RecurrentConfig
from weft.models.row import RowModel
from weft.models.stored import load_pretrained
from weft.models.transformer import TransformerConfig

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
    def backbone(self) -> TransformerConfig | RecurrentConfig:
        return self.model.config.backbone

    @property
    def longest(self) -> int | None:
        """Tokens of the longest text it reads; None: a recurrent network reads any."""
        return getattr(self.backbone, "max_positions", None)


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


def load_language_model(path: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """A folder's text model, in float32 and on the GPU where there is one, and its tokenizer.

    Only folders are looked at: a path with a slip of the finger is never asked for at the hub.

    Raises:
        CheckpointError: the folder holds no text model, or no tokenizer.
    """
    folder = Path(path)
    if (folder / COLUMNS_FILE).is_file():
        raise CheckpointError(
            f"{folder}: must hold a language model. Got a run that predicts the rows of a table: weft predict {folder}"
        )
    found = load_pretrained(folder, device="cuda" if torch.cuda.is_available() else "cpu")
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


def fill(row: RowModel, source: LanguageModel) -> None:
    """Copy the weights of a checkpoint into a RowModel of its shape."""
    text = row.embedding.by_type["text"]
    assert isinstance(text, PretrainedTextEmbedding)
    with torch.no_grad():
        text.table.weight.copy_(source.table.weight)
        if source.config.types:
            text.types.weight.copy_(source.types.weight)
    row.backbone.load_state_dict(source.backbone.state_dict())


def extract(row: RowModel) -> LanguageModel:
    """The fine-tuned checkpoint inside a RowModel, as an encoder of its family."""
    config, text = row.config.pretrained, row.embedding.by_type["text"]
    if config is None or not isinstance(text, PretrainedTextEmbedding):
        raise UsageError("this run was not trained from a checkpoint; its model has no Hugging Face form.")
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


def layerwise(row: RowModel, top: float, decay: float) -> None:
    """Learning rates that fall from the top block to the tokens, by ``decay`` a block (Howard & Ruder 2018)."""
    backbone = row.backbone
    blocks: list[nn.Module] = list(getattr(backbone, "blocks", []))
    for place, block in enumerate(blocks):
        block.rate_factor = top * decay ** (len(blocks) - 1 - place)  # type: ignore[assignment]
    for module in (
        row.embedding.by_type["text"],
        getattr(backbone, "positions", None),
        getattr(backbone, "embedding_norm", None),
    ):
        if isinstance(module, nn.Module):
            module.rate_factor = top * decay ** len(blocks)  # type: ignore[assignment]
