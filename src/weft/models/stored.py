"""A model of texts as a folder: a Hugging Face checkpoint where it has the shape of a family, else Weft's own form.

config.json  model.safetensors  tokenizer.json  tokenizer_config.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from weft.errors import CheckpointError
from weft.files import MANIFEST, verify_manifest, write_whole
from weft.models.checkpoints import WEIGHTS, Empty, Pretrained, load_hf, save_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.quantised import Embedding8, Linear8, load_state
from weft.models.tensor_file import TensorFile
from weft.models.tokenizer_files import load_tokenizer, load_words, save_tokenizer, words_of

OWN = "weft"
CONFIG = "config.json"


def save_language_model(
    model: LanguageModel, folder: Path, tokenizer: Tokenizer, words: Mapping[str, str] | None = None
) -> str:
    """Write the model into ``folder``, whose other files stay; returns the family, or ``weft``.

    ``words``: the names of special tokens and the chat template; those of the model's config where left out.
    """
    words = words_of(model.config, tokenizer) | dict(words or {})
    beside = folder / ".model"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        family = save_hf(model, beside, tokenizer, words)
    except CheckpointError:  # an RNN, or a shape that no family has
        family = OWN
        beside.mkdir()
        save_tokenizer(tokenizer, words, beside)
        save_file({n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}, beside / WEIGHTS)
        shape = {"model_type": OWN, "format": 1, "language": model.config.to_dict()}
        write_whole(beside / CONFIG, json.dumps(shape, indent=1) + "\n")
    for file in beside.iterdir():
        if file.name != MANIFEST:
            file.replace(folder / file.name)
    shutil.rmtree(beside)
    return family


def stored_dtype(folder: Path) -> torch.dtype:
    """The number type of a folder's weights, as its config says."""
    try:
        shape = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return getattr(torch, str(shape.get("dtype", shape.get("torch_dtype", "float32"))), torch.float32)
    except (OSError, ValueError, AttributeError):
        return torch.float32  # what is wrong with it, the load says


def load_pretrained(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", quick: bool = False
) -> Pretrained:
    """The model of a folder in either form, weights as ``dtype``; ``quick``: those of few bits stay so, for a
    model that only answers. Raises CheckpointError naming what does not fit."""
    try:
        shape = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shape = {}
    if not isinstance(shape, dict) or shape.get("model_type") != OWN:
        return load_hf(folder, dtype, device)
    verify_manifest(folder)
    try:
        with torch.device("meta"), Empty():
            model = LanguageModel(LanguageConfig.from_dict(shape["language"]))
        weights = TensorFile(folder / WEIGHTS)
        load_state(model, weights, quick and device == "cpu")
        table = model.table
        if isinstance(table, Embedding8) and model.config.tied and model.config.output == "linear":
            model.add_module("output", Linear8(table.codes, table.scale, None))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: must hold the {CONFIG} and {WEIGHTS} of one run. Got: {error}.") from None
    stored = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    count = sum(p.numel() for p in model.parameters())
    return Pretrained(
        model.to(device, dtype).eval(), load_tokenizer(folder), OWN, count, stored, [], load_words(folder)
    )
