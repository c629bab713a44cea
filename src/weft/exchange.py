"""Checkpoints in and out: ``weft import`` and ``weft export``."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from weft.errors import RunError, UsageError
from weft.features.images import ImageCodec
from weft.files import write_manifest, write_whole
from weft.models.checkpoints import load_hf, save_hf
from weft.models.images import PretrainedImage
from weft.models.language import ImageModel, LanguageModel
from weft.models.pretrained import (
    PIXELS_FILE,
    TextModel,
    describe,
    extract,
    extract_pictures,
    find,
    load_text_model,
    pictures_of,
)
from weft.models.stored import stored_dtype
from weft.models.transformer import TransformerConfig
from weft.runs.run import SETTINGS_FILE, Run
from weft.runs.weights import CONFIG_FILE


def import_checkpoint(source: str, out: Path) -> dict[str, Any]:
    """A Hugging Face folder, or ``hf://OWNER/NAME`` of the hub, as a run folder; returns what was found.

    The weights keep their number type. The folder is one that ``transformers`` loads too.

    Raises:
        CheckpointError: naming all that does not fit; nothing is then written.
    """
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: the folder must be new or empty. It holds files. Choose another with -o.")
    folder = find(source)
    stored = load_hf(folder, torch.bfloat16 if stored_dtype(folder) == torch.bfloat16 else torch.float32)
    save_hf(stored.model, out, stored.tokenizer, stored.words)
    _copy_pixels(folder, out)
    backbone = stored.model.config.backbone
    assert isinstance(backbone, TransformerConfig)
    found = {
        "run": str(out), "source": source, "family": stored.family, "parameters": stored.parameters,
        "layers": backbone.layers, "width": backbone.width, "heads": backbone.heads, "stored": stored.stored,
        "reads": "images" if isinstance(stored.model, ImageModel) else "texts",
        "tokenizer": None if stored.tokenizer is None else type(stored.tokenizer.model).__name__,
        "vocabulary": None if stored.tokenizer is None else stored.tokenizer.get_vocab_size(),
        "ignored": stored.ignored,
    }  # fmt: skip
    write_whole(out / SETTINGS_FILE, f"# weft {version('weft')}\n# imported from {json.dumps(source)}\n")
    write_whole(
        out / "README.md",
        f"# {stored.family}, {stored.parameters:,} parameters\n\nImported from {source} by Weft {version('weft')}. "
        f"Start a table's model from it: `model: {{from: THIS_FOLDER}}`.\n",
    )
    write_manifest(out)
    return found


def export_hf(path: Path, out: Path) -> dict[str, Any]:
    """A run as a folder that ``transformers`` loads with equal outputs.

    An imported checkpoint is written as it is; of a run trained from a checkpoint, the fine-tuned encoder.

    Raises:
        UsageError: the run's model has no Hugging Face form.
    """
    if is_checkpoint(path):
        found = load_hf(path, stored_dtype(path))
        family = save_hf(found.model, out, found.tokenizer, found.words)
        _copy_pixels(path, out)
        return {"output": str(out), "family": family, "parameters": found.parameters}
    run = Run(path)
    copies = run.model.each()
    if copies[0].config.pretrained is None:
        raise UsageError(
            f"{path}: only a checkpoint, or a run trained from one (model: from), has a Hugging Face form. "
            f"This run's model reads columns that no other library knows."
        )
    if len(copies) > 1:
        raise UsageError(f"{path}: a run of {len(copies)} copies cannot be one checkpoint. Train with model.copies: 1.")
    model: LanguageModel | ImageModel
    if isinstance(copies[0].config.pretrained, PretrainedImage):
        model = extract_pictures(copies[0])
        family = save_hf(model, out)
        codec = pictures_of(copies[0]).codec
        write_whole(out / PIXELS_FILE, json.dumps(_preprocessor(codec), indent=1) + "\n")
        write_manifest(out)
    else:
        model = extract(copies[0])
        family = save_hf(model, out, run.columns.tokenizer)
    return {"output": str(out), "family": family, "parameters": sum(p.numel() for p in model.parameters())}


def _copy_pixels(folder: Path, out: Path) -> None:
    """How a checkpoint's pictures become numbers goes along with it."""
    if (folder / PIXELS_FILE).exists():
        write_whole(out / PIXELS_FILE, (folder / PIXELS_FILE).read_text(encoding="utf-8"))


def _preprocessor(codec: ImageCodec) -> dict[str, Any]:
    """How the pictures of a column become numbers, as ``transformers`` reads it."""
    return {
        "image_processor_type": "ViTImageProcessor", "size": {"height": codec.size, "width": codec.size},
        "do_resize": True, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [m / 255 for m in codec.mean], "image_std": [d / 255 for d in codec.deviation],
    }  # fmt: skip


def open_text_model(path: Path) -> TextModel:
    """The text model of an imported checkpoint, or the fine-tuned one of a run that was trained from one."""
    if not path.is_dir() or is_checkpoint(path):
        return load_text_model(path)
    run = Run(path)
    tokenizer = run.columns.tokenizer
    model = extract(run.model.each()[0])
    assert tokenizer is not None  # a run from a checkpoint reads texts
    return TextModel(model, tokenizer, str(model.config.family), describe(model, tokenizer))


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is an imported checkpoint rather than a trained run."""
    try:
        return "model_type" in json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
