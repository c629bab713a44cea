"""Checkpoints of other libraries: a Hugging Face folder -> our model, and back, with equal logits.

A folder holds ``config.json``, weights as safetensors (one file, or several and an index), and often
``tokenizer.json``. Every name, shape and number type is compared before any weight is read; then each
tensor goes straight to its place, so that the memory needed is that of the weights and of one tensor.
Nothing is unpickled and no code of a checkpoint is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from weft.errors import CheckpointError, did_you_mean, listing
from weft.files import MANIFEST, verify_manifest, whole_folder
from weft.models.families import FAMILIES, Config, Family, Settings, Unfit
from weft.models.language import ImageConfig, ImageModel, LanguageConfig, LanguageModel
from weft.models.tensor_file import read_tensor, write_tensors
from weft.models.tokenizer_files import check_tokenizer, load_tokenizer, load_words, read_json, save_tokenizer, words_of
from weft.models.transformer import TransformerConfig

Model = LanguageModel | ImageModel

FLOATS = ("F64", "F32", "F16", "BF16")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OLD_LEAVES = {"gamma": "weight", "beta": "bias"}
"""What norms called their vectors in the first BERT."""


@dataclass
class Pretrained:
    """What was in a folder."""

    model: Model
    tokenizer: Tokenizer | None
    family: str
    parameters: int
    stored: str
    """The number type in the files, e.g. "BF16"."""
    ignored: list[str]
    """Names in the files that the model does without."""
    words: dict[str, str] = field(default_factory=dict)
    """Of tokenizer_config.json: the names of special tokens, and ``chat_template`` if there is one."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: Path
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Place:
    """Where a stored tensor belongs: rows of one of our parameters, perhaps turned."""

    ours: str
    rows: slice
    turned: bool
    shape: tuple[int, ...]
    """Its shape in the file."""

    def of(self, state: dict[str, Tensor]) -> Tensor:
        """The part of our parameters, in the shape of the file."""
        part = state[self.ours][self.rows]
        if self.turned:
            return part.T
        return part.unsqueeze(0) if part.dim() < len(self.shape) else part


# ---- reading


def load_hf(folder: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Pretrained:
    """The model and the tokenizer of a Hugging Face folder, weights as ``dtype``.

    Raises:
        CheckpointError: naming all that does not fit. Nothing was then loaded.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: must be a folder with config.json and weights. There is no such folder.")
    if (folder / MANIFEST).is_file() and "sha256" in read_json(folder / MANIFEST):
        verify_manifest(folder)
    settings, family, name = _settings(folder)
    stored = _stored(folder)
    files = _canonical(folder, family, stored)
    shapes = {n: s.shape for n, s in stored.items()} | {n: stored[f].shape for n, f in files.items()}
    try:
        config = family.read(settings, shapes)
        with torch.device("meta"), Empty():
            model = _build(config)
    except ValueError as error:  # Unfit, or a shape that no Transformer can have
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
    tokenizer = load_tokenizer(folder)
    if tokenizer is not None and isinstance(config, LanguageConfig):
        check_tokenizer(folder, tokenizer, config.vocabulary)
    expected, copies = _places(family, model)
    ignored = [f for n, f in files.items() if n not in expected and (n in copies or _ignored(family, n))]
    _compare(folder, family, expected, files, stored, set(ignored))
    _compare_copies(folder, {files[c]: files[n] for c, n in copies.items() if c in files}, stored)
    model = model.to(dtype).to_empty(device=device)
    state = model.state_dict()
    for n, place in expected.items():
        with torch.no_grad():
            place.of(state).copy_(read_tensor(stored[files[n]].file, files[n]))
    parameters = sum(p.numel() for p in model.parameters())
    kinds = sorted({stored[files[n]].kind for n in expected})
    return Pretrained(model.eval(), tokenizer, name, parameters, ", ".join(kinds), ignored, load_words(folder))


def _settings(folder: Path) -> tuple[Settings, Family, str]:
    path = folder / "config.json"
    values = read_json(path)
    if "auto_map" in values:
        raise CheckpointError(
            f"{path}: must describe a model that is known here. It asks to run code of its own ('auto_map'), "
            "which is never done."
        )
    if "quantization_config" in values:
        raise CheckpointError(
            f"{path}: weights must be floating point. They are quantised ('quantization_config'). "
            "Take the original checkpoint."
        )
    name = values.get("model_type")
    if name not in FAMILIES:
        raise CheckpointError(
            f"{path}: 'model_type' must be one of {listing(FAMILIES)}. Got {name!r}.{did_you_mean(str(name), FAMILIES)}"
        )
    return Settings(values), FAMILIES[name], name


def _stored(folder: Path) -> dict[str, Stored]:
    """Every tensor in the files, by the headers alone."""
    if (folder / WEIGHTS).exists():
        return dict(_header(folder / WEIGHTS))
    if not (folder / INDEX).exists():
        pickled = sorted(p.name for pattern in PICKLED for p in folder.glob(pattern))
        if pickled:
            raise CheckpointError(
                f"{folder}: weights must be safetensors. Got pickle files ({listing(pickled)}), which can run code "
                "when read. Convert them where you trust them: transformers.AutoModel.from_pretrained(folder)"
                ".save_pretrained(new_folder) writes safetensors."
            )
        others = sorted(p.name for p in folder.glob("*.safetensors"))
        raise CheckpointError(
            f"{folder}: must hold {WEIGHTS} or {INDEX}. Got {listing(others)}. Copy the whole checkpoint."
        )
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(f, str) and Path(f).name == f for f in index.values()):
        raise CheckpointError(f"{folder / INDEX}: 'weight_map' must give a file of this folder to every name.")
    files = sorted(set(index.values()))
    gone = [f for f in files if not (folder / f).exists()]
    if gone:
        raise CheckpointError(
            f"{folder}: must hold all {len(files)} files that {INDEX} names. Missing: {listing(gone)}. Copy them too."
        )
    stored = {name: entry for file in files for name, entry in _header(folder / file)}
    absent = [name for name, file in index.items() if name not in stored or stored[name].file.name != file]
    if absent:
        raise CheckpointError(f"{folder / INDEX}: files must hold the names it gives them. Missing: {listing(absent)}.")
    return stored


def _header(file: Path) -> Iterator[tuple[str, Stored]]:
    try:
        with safe_open(file, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a dict)
                part = shard.get_slice(name)
                yield name, Stored(file, tuple(part.get_shape()), part.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: must be a whole safetensors file of {file.stat().st_size:,} bytes or more. Got: {error}. "
            "It was cut short or damaged; copy it again."
        ) from None


class Empty(TorchFunctionMode):
    """Parameters get no numbers, as a file is about to give them: to draw some for no memory at all ("meta"), torch
    would import its compiler, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def _build(config: Config) -> Model:
    return ImageModel(config) if isinstance(config, ImageConfig) else LanguageModel(config)


def _canonical(folder: Path, family: Family, stored: Iterable[str]) -> dict[str, str]:
    """Name in the family's table -> name in the files: without the prefix, old leaves renamed."""
    found: dict[str, str] = {}
    for name in stored:
        stem, _, leaf = name.removeprefix(family.prefix).rpartition(".")
        plain = f"{stem}.{OLD_LEAVES.get(leaf, leaf)}" if stem else leaf
        if plain in found:
            raise CheckpointError(f"{folder}: a tensor must be stored once. Got '{found[plain]}' and '{name}'.")
        found[plain] = name
    return found


def _places(family: Family, model: Model) -> tuple[dict[str, Place], dict[str, str]]:
    """Names that must be there and where they go; names that may be there as copies of others."""
    state, backbone = model.state_dict(), model.config.backbone
    if not isinstance(backbone, TransformerConfig):
        raise CheckpointError("a Hugging Face checkpoint must hold a Transformer. Got a recurrent network.")
    q, kv, up = (
        backbone.heads * backbone.key_width, backbone.key_groups * backbone.key_width, backbone.hidden_width,
    )  # fmt: skip
    parts = {"q": slice(q), "k": slice(q, q + kv), "v": slice(q + kv, None), "gate": slice(up), "up": slice(up, None)}
    places: dict[str, Place] = {}
    for pattern, target in (family.body | family.head).items():
        if target is None:
            continue
        for layer in range(backbone.layers) if "{}" in pattern else [0]:
            ours, _, part = target.format(layer).partition(":")
            for leaf in ("", ".weight", ".bias"):
                if ours + leaf in state:
                    shape = tuple(state[ours + leaf][parts.get(part, slice(None))].shape)
                    turned = part == "turned" and len(shape) == 2
                    stored = shape[::-1] if turned else (1, *shape) if part == "one" else shape
                    places[pattern.format(layer) + leaf] = Place(
                        ours + leaf, parts.get(part, slice(None)), turned, stored
                    )
    table = next((n for n, p in places.items() if p.ours == "table.weight"), None)
    copies = {}
    if table is not None and isinstance(model.config, LanguageConfig) and model.config.tied:
        copies = {f"{n}.weight": table for n, target in family.head.items() if target == "output"}
    return places, copies


def _ignored(family: Family, name: str) -> bool:
    return any(
        target is None and re.fullmatch(re.escape(pattern).replace(r"\{\}", r"\d+") + r"(\.weight|\.bias)?", name)
        for pattern, target in (family.body | family.head).items()
    )


def _compare(
    folder: Path, family: Family, expected: dict[str, Place], found: dict[str, str], stored: dict[str, Stored],
    ignored: set[str],
) -> None:  # fmt: skip
    unknown = [f for n, f in found.items() if n not in expected and f not in ignored]
    heads = tuple(f"{n}." for n in family.head)
    prefix = family.prefix if any(f.startswith(family.prefix) for f in found.values()) else ""
    missing = [n if f"{n}.".startswith(heads) else prefix + n for n in expected if n not in found]
    shapes, kinds = [], []
    for name, place in expected.items():
        if name in found:
            entry = stored[found[name]]
            if entry.shape != place.shape:
                shapes.append(f"{found[name]} is {list(entry.shape)} instead of {list(place.shape)}")
            if entry.kind not in FLOATS:
                kinds.append(f"{found[name]} is {entry.kind}")
    problems = [
        f"{what}: {listing(names)}"
        for what, names in (("unknown", unknown), ("missing", missing), ("of another shape", shapes),
                            ("not floating point", kinds))
        if names
    ]  # fmt: skip
    if problems:
        raise CheckpointError(
            f"{folder}: the weights must be those that config.json describes. Got weights {'; '.join(problems)}. "
            "Take both from one checkpoint, unchanged."
        )


def _compare_copies(folder: Path, copies: dict[str, str], stored: dict[str, Stored]) -> None:
    """A tied matrix may be stored a second time if it says the same."""
    for copy, original in copies.items():
        if not torch.equal(*(read_tensor(stored[name].file, name) for name in (copy, original))):
            raise CheckpointError(
                f"{folder}: '{copy}' must equal '{original}', as config.json says tie_word_embeddings. They differ. "
                "Set it to false if the output matrix is meant to be its own."
            )


# ---- writing


def save_hf(
    model: Model, folder: str | Path, tokenizer: Tokenizer | None = None, words: Mapping[str, str] | None = None,
    shard_bytes: int = 4 * 2**30,
) -> str:  # fmt: skip
    """Write a folder that ``transformers`` loads with equal logits, whole or not at all; returns the family.

    The family is the one the model was read from, else the first whose shape it has.

    Args:
        words: the names of special tokens and the chat template; those of the model's config where left out.

    Raises:
        CheckpointError: no family has the model's shape, or the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: must be a new or an empty folder. It holds files. Choose another name.")
    name, settings = _describe(model.config)
    places, _ = _places(FAMILIES[name], model)
    state = model.state_dict()
    over = sorted(set(state) - {p.ours for p in places.values()})
    if over:
        raise CheckpointError(
            f"{folder}: the model must hold only what {name} checkpoints hold. Got {listing(over)} too. "
            "Merge or remove adapters first."
        )
    headed = not settings["architectures"][0].endswith("Model") or name == "gpt2"
    prefix = FAMILIES[name].prefix if headed else ""
    heads = tuple(f"{n}." for n in FAMILIES[name].head)
    named = {n if f"{n}.".startswith(heads) else prefix + n: place for n, place in places.items()}
    settings["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    with whole_folder(folder) as beside:
        (beside / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
        if tokenizer is not None:
            save_tokenizer(tokenizer, words_of(model.config, tokenizer) | dict(words or {}), beside)
        _save_weights(beside, state, named, shard_bytes)
    return name


def _describe(config: Config) -> tuple[str, dict[str, Any]]:
    """The family and the config.json that, read again, gives this config."""
    families = [config.family] if config.family else list(FAMILIES)
    for name in families:
        family = FAMILIES[name]
        try:
            settings = family.write(config)
            # what a head adds follows from the names in the files: told here by those it would write
            names: dict[str, tuple[int, ...]] = {}
            if isinstance(config, LanguageConfig):
                names |= {"pooler.dense.weight": ()} if config.pooler else {}
                names |= {"cls.predictions.bias": ()} if config.output == "transform" else {}
                names |= {"lm_head.weight": ()} if config.output == "linear" else {}
                names |= {"qa_outputs.weight": ()} if config.span else {}
                names |= {"classifier.weight": ()} if config.labels else {}
            elif config.classes:
                names["classifier.weight"] = (config.classes,)
            if _plain(family.read(Settings(settings), names)) == _plain(config):
                return name, settings
        except (Unfit, AttributeError, AssertionError):
            continue
    raise CheckpointError(
        f"the model must have the shape of a family of checkpoints ({listing(families)}). It has not."
    )


def _plain(config: Config) -> Config:
    """The config with its defaults resolved, without what changes no output or no file states."""
    b = config.backbone
    assert isinstance(b, TransformerConfig)
    b = replace(
        b, dropout=0.0, attention_dropout=0.0, groups=b.key_groups, head_width=b.key_width, ffn_width=b.hidden_width,
        max_positions=b.max_positions if b.positions == "learned" else None,
    )  # fmt: skip
    if isinstance(config, ImageConfig):
        return replace(config, backbone=b, family=None, labels=())
    return replace(config, backbone=b, family=None)


def _save_weights(folder: Path, state: dict[str, Tensor], named: dict[str, Place], shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    size = total = 0
    for name, place in named.items():
        part = place.of(state)
        bytes_ = part.numel() * part.element_size()
        if shards[-1] and size + bytes_ > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size, total = size + bytes_, total + bytes_
    index: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {n: named[n].of(state) for n in names}
        write_tensors(folder / file, tensors, tensors.values())
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        whole = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / INDEX).write_text(json.dumps(whole, indent=1) + "\n")
