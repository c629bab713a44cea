"""Tensors written to a safetensors file, or read from one, one after another: no two of them need be in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
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


def read_tensor(file: Path, name: str) -> Tensor:
    """One tensor of a file, which is opened anew: pages that were read stay in memory until it is closed."""
    with safe_open(file, "pt") as stream:
        return stream.get_tensor(name)


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a file, each read when it is asked for."""

    def __init__(self, file: Path):
        self.file = file
        with safe_open(file, "pt") as stream:
            self._names = dict.fromkeys(stream.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return read_tensor(self.file, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
