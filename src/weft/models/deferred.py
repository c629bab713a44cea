"""A model whose numbers are not made before it is known who holds which of them: a start on the "meta" device.

While :func:`deferred` is open, memory that a layer asks for without numbers (``torch.empty``) is not given, and what is
then to stand there is noted: a draw, with the state of the generator before it, or the tensor that it is a copy of,
which may lie in a file. A draw is made at once as well and thrown away, so that what is drawn after it is what it was
before; :func:`numbers` makes it again, the same bits, a tensor at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWN = {"normal_", "uniform_", "kaiming_uniform_"}
SET = {"fill_", "zero_", "constant_"}
KEPT = {"requires_grad_", "detach_"}
"""Functions that end so and change no number."""


@dataclass(frozen=True)
class _Part:
    """Numbers of a part of a tensor's memory; ``place``: size, strides and offset there."""

    place: tuple[Any, ...]
    write: Callable[[Tensor], Any]
    source: Callable[[], Tensor] | None = None
    """What is written, if it is there without being written."""


_parts: WeakKeyDictionary[torch.UntypedStorage, list[_Part]] = WeakKeyDictionary()


@contextmanager
def deferred(on: bool = True) -> Iterator[None]:
    """While open, layers are made without numbers; not ``on``: as always."""
    if not on:
        yield
        return
    with _Deferred(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # it is noted
        yield


def numbers(tensor: Tensor) -> Callable[[], Tensor]:
    """What makes the numbers of a tensor that was made while :func:`deferred` was open, on the CPU."""
    storage = tensor.untyped_storage()
    assert storage in _parts, f"nothing was to stand in this tensor of shape {tuple(tensor.shape)}"
    count = storage.nbytes() // tensor.element_size()
    return partial(_made, list(_parts[storage]), count, tensor.dtype, _place(tensor))


def _made(parts: list[_Part], count: int, dtype: torch.dtype, place: tuple[Any, ...]) -> Tensor:
    last = parts[-1]
    if len(parts) == 1 and last.source is not None and last.place == place:
        return last.source()
    memory = torch.empty(count, dtype=dtype, device="cpu")
    with torch.random.fork_rng(devices=[]):
        for part in parts:
            part.write(memory.as_strided(*part.place))
    return memory.as_strided(*place)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.size(), tensor.stride(), tensor.storage_offset()


def _note(tensor: Tensor, write: Callable[[Tensor], Any], source: Callable[[], Tensor] | None = None) -> None:
    storage = tensor.untyped_storage()
    part = _Part(_place(tensor), write, source)
    whole = tensor.nbytes == storage.nbytes()
    _parts[storage] = [part] if whole else [*_parts.get(storage, []), part]


class _Deferred(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func is torch.empty:
            return func(*args, **kwargs | {"device": "meta"})
        if str(kwargs.get("device")) == "meta" and name != "empty_like":
            return func(*args, **kwargs | {"device": "cpu"})  # zeros, as beside a matrix without numbers
        tensor = args[0] if args else kwargs.get("tensor")
        if not isinstance(tensor, Tensor) or not tensor.is_meta:
            return func(*args, **kwargs)
        if name == "to":
            return _as(tensor, next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)), None))
        if name == "empty_like":
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        if name == "clone":
            return self._copied(torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"), tensor)
        if name == "copy_":
            return self._copied(tensor, args[1])
        if name in DRAWN | SET:
            return self._written(tensor, func, args[1:], {k: v for k, v in kwargs.items() if k != "tensor"}, name)
        changes = name == "__setitem__" or (name.endswith("_") and not name.startswith("_"))
        assert name in KEPT or not changes, f"{name} has nothing to change: the numbers are not made yet"
        return func(*args, **kwargs)

    @staticmethod
    def _written(tensor: Tensor, func: Any, args: Any, kwargs: Any, name: str) -> Tensor:
        if name in SET:
            _note(tensor, lambda view: func(view, *args, **kwargs))
            return tensor
        state = torch.get_rng_state()

        def draw(view: Tensor) -> None:
            torch.set_rng_state(state)
            func(view, *args, **kwargs)

        with torch.no_grad():
            # how the generator goes depends on the strides too
            func(torch.empty_strided(*_place(tensor)[:2], dtype=tensor.dtype, device="cpu"), *args, **kwargs)
        _note(tensor, torch.no_grad()(draw))
        return tensor

    @staticmethod
    def _copied(tensor: Tensor, source: Tensor) -> Tensor:
        made = numbers(source) if source.is_meta else source.detach
        _note(tensor, lambda view: view.copy_(made()), made)
        return tensor


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """On no device yet, whichever is asked for."""
    if dtype in (None, tensor.dtype):
        return tensor
    assert tensor.untyped_storage() not in _parts
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
