"""Tensors written to a safetensors file one after another, so that no two of them need be in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(file: Path, like: Mapping[str, Tensor], values: Iterable[Tensor]) -> None:
    """``values`` in the order of the names; ``like`` says their shapes and types, and need hold no numbers.

    The format: 8 bytes with the length of a JSON header, the header, the numbers (safetensors, "Format").
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in like.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    with file.open("wb") as stream:
        stream.write(len(said).to_bytes(8, "little") + said)
        for (name, tensor), value in zip(like.items(), values, strict=True):
            assert (value.shape, value.dtype) == (tensor.shape, tensor.dtype), name
            stream.write(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
