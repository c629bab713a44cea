"""A language model of Llama's kind as one GGUF file, which llama.cpp and what is built on it run.

Numbers keep their type. Queries and keys are turned in neighbouring pairs there and in halves in a checkpoint, so that
of Llama's own architecture their rows are put in that order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from weft.errors import UsageError, listing
from weft.files import require_empty, verify_manifest
from weft.models.tokenizer_files import load_tokenizer, load_words
from weft.runs.weights import CONFIG_FILE

MODEL_FILE = "model.gguf"
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_QWEN = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
_END = "|\\s+(?!\\S)|\\s+"
_CUTS = {_QWEN + _END: "qwen2", _QWEN.replace("p{N}|", "p{N}{1,3}|", 1) + _END: "llama-bpe"}
"""How a tokenizer cuts texts before it joins letters -> what llama.cpp calls it."""


def export_gguf(path: Path, out: Path) -> dict[str, Any]:
    """Write an imported checkpoint or a run of ``next_token`` into the folder ``out``; returns what was written.

    Raises:
        UsageError: its model or tokenizer is of another kind, or the library of the extra is not there.
    """
    require_empty(out)
    try:
        import gguf
    except ImportError:
        raise UsageError("--to gguf: needs gguf, which is not there. python -m pip install 'weft[gguf]'") from None
    verify_manifest(path)
    shape = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    architecture = _architecture(path, shape)
    tokenizer = load_tokenizer(path)
    assert tokenizer is not None  # of a folder that writes
    cut = _cut(path, tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(out / MODEL_FILE, architecture)
    heads, groups = shape["num_attention_heads"], shape["num_key_value_heads"]
    width = shape.get("head_dim") or shape["hidden_size"] // heads
    for what, value in {
        "name": path.name, "block_count": shape["num_hidden_layers"],
        "context_length": shape.get("sliding_window") or shape["max_position_embeddings"],
        "embedding_length": shape["hidden_size"], "feed_forward_length": shape["intermediate_size"],
        "head_count": heads, "head_count_kv": groups, "key_length": width, "value_length": width,
        "rope_dimension_count": width, "rope_freq_base": shape["rope_theta"],
        "layer_norm_rms_eps": shape["rms_norm_eps"], "vocab_size": shape["vocab_size"],
    }.items():  # fmt: skip
        getattr(writer, f"add_{what}")(value)
    _add_tokenizer(writer, tokenizer, cut, shape, load_words(path))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], shape["num_hidden_layers"])
    parameters = 0
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118  it is no mapping
                values = stored.get_tensor(name)
                parameters += values.numel()
                if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                    values = _in_pairs(values, heads if "q_proj" in name else groups)
                there = names.get_name(name, try_suffixes=(".weight", ".bias"))
                assert there is not None, name
                _add(writer, there, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"output": str(out), "family": architecture, "parameters": parameters}


def _architecture(path: Path, shape: dict[str, Any]) -> str:
    """What llama.cpp calls the family. Raises UsageError where it is of no such kind."""
    family = str(shape.get("model_type"))
    if family not in ARCHITECTURES:
        raise UsageError(
            f"{path}: must be a language model of the families {listing(ARCHITECTURES)}, imported or trained with "
            f"target.next_token, to be a GGUF file. Got {family if 'model_type' in shape else 'a model of rows'}."
        )
    turned = (shape.get("rope_parameters") or shape.get("rope_scaling") or {}).get("rope_type", "default")
    if turned != "default":
        raise UsageError(f"{path}: positions that are scaled ({turned}) are not written as GGUF. Export it --to hf.")
    return ARCHITECTURES[family]


def _cut(path: Path, tokenizer: Tokenizer) -> str:
    """How texts are cut, in llama.cpp's word. Raises UsageError where it has none for it."""
    found = json.loads(tokenizer.to_str())
    before = found["pre_tokenizer"] or {}
    parts = before.get("pretokenizers", [before])
    last = parts[-1]
    bytes_only = found["model"]["type"] == "BPE" and last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    regexes = [part["pattern"].get("Regex") for part in parts[:-1] if part.get("type") == "Split"]
    if bytes_only and len(parts) == 1 and last["use_regex"] and found["normalizer"] is None:
        return "gpt-2"
    if bytes_only and len(parts) == 2 and regexes and regexes[0] in _CUTS:
        return _CUTS[regexes[0]]
    raise UsageError(
        f"{path}: the tokenizer must be byte-level BPE that cuts texts as GPT-2, Llama 3 or Qwen2 do, to be in a GGUF "
        f"file. Got another. Export it --to hf."
    )


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, cut: str, shape: dict[str, Any], words: dict[str, str]) -> None:
    import gguf

    special = tokenizer.get_added_tokens_decoder()
    known = {place: token for token, place in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for place in range(shape["vocab_size"]):
        kind = gguf.TokenType.NORMAL if place in known else gguf.TokenType.UNUSED
        if place in special:
            kind = gguf.TokenType.CONTROL if special[place].special else gguf.TokenType.USER_DEFINED
        tokens.append(known.get(place, f"[unused{place}]"))
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    begin, end = shape.get("bos_token_id"), shape.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    for given, add in ((begin, writer.add_bos_token_id), (end, writer.add_eos_token_id)):
        if given is not None:
            add(given)
    # whether a text begins with it is what the tokenizer does to an empty one
    writer.add_add_bos_token(begin is not None and tokenizer.encode("").ids[:1] == [begin])
    if "chat_template" in words:
        writer.add_chat_template(words["chat_template"])


def _in_pairs(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a matrix [H K, D], of each head's halves alternately one."""
    return values.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(values.shape)


def _add(writer: Any, name: str, values: torch.Tensor) -> None:
    """A tensor in its own type; those of one dimension in float32, as llama.cpp wants them."""
    import gguf

    if values.dim() == 1 or values.dtype == torch.float64:
        values = values.float()
    if values.dtype == torch.bfloat16:
        raw = values.contiguous().view(torch.int16).numpy().view(np.uint8)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, values.contiguous().numpy())
