"""Several processes that train one model, each on its share of the rows of a step.

    data    every process holds the model; gradients are added up (all-reduce)
    shard   each holds a piece of every weight, gradient and moment, and has a block's weights while it goes through
            the block (FSDP2; Rajbhandari 2020, Zhao 2023)
    tensor  T of them split the matrices of each block, heads and inner width, and see the same rows (Shoeybi 2019)

The gradient of a step is  sum_r w_r g_r / sum_r w_r,  with w_r what the loss of share r is the mean of (rows, tokens),
so that it is that of one process on all rows. Of a matrix that holds several (queries, keys, values; gate and up) the
rows are put in another order while it is split, so that each process has its part of each.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from weft import memory, processes
from weft.errors import SettingsError
from weft.models.backbone import best_device
from weft.models.deferred import numbers
from weft.models.tensor_file import write_tensors
from weft.models.transformer import Block, Transformer
from weft.training import parallel
from weft.training.adapters import LoraLinear
from weft.training.loop import Recipe
from weft.training.parallel import LOST, Alone

T = TypeVar("T")
BUCKET = 1 << 24
"""Numbers of gradients that are added up at once."""
DISCONNECTED = re.compile(r"gloo/transport|Connection (closed|reset)|Broken pipe|ncclRemoteError|ncclSystemError")
"""What the libraries say where another process is gone."""
LONGEST_WAIT = timedelta(days=7)
"""For the first process, which prepares the data."""


@contextmanager
def joined() -> Iterator[bool]:
    """While open, this process is one of those that torchrun started; whether it did so again."""
    device = best_device()
    if device == "cuda":
        torch.cuda.set_device(processes.number_here())
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=LONGEST_WAIT)
    # what blocks return is never changed in place
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    parallel.joined.append(Team)
    try:
        again = torch.tensor(processes.started_again())
        dist.all_reduce(again, dist.ReduceOp.MAX)  # one machine knows of it, another may not
        yield bool(again)
    except RuntimeError as error:
        if DISCONNECTED.search(str(error)):
            sys.exit(LOST)
        raise
    finally:
        parallel.joined.pop()
        dist.destroy_process_group()


class _Call(nn.Module):
    """A model as the root of what is sharded, whatever of it is called."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], T]) -> T:
        return call()


class _Whole(torch.autograd.Function):
    """Rows of all shares from those that stand at the places ``own`` of one."""

    @staticmethod
    def forward(context: Any, rows: Tensor, own: slice, count: int, group: Any) -> Tensor:
        context.own, context.group, context.rows = own, group, len(rows)
        found = rows.new_zeros(count, *rows.shape[1:])
        found[own] = rows[: len(found[own])]  # a row of another's is left out
        dist.all_reduce(found, group=group)
        return found

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=context.group)
        found = total.new_zeros(context.rows, *total.shape[1:])
        found[: len(total[context.own])] = total[context.own]
        return found, None, None, None


class Team(Alone):
    """All processes. Raises SettingsError where the recipe is not for several, or not for so many."""

    def __init__(self, recipe: Recipe):
        self.number, self.count = dist.get_rank(), dist.get_world_size()
        t = recipe.tensor
        self.tensor, self.shares, self.share = t, self.count // t, self.number // t
        self.shard, self.bfloat16 = recipe.shard and self.shares > 1, recipe.bfloat16
        self.mesh = init_device_mesh(best_device(), (self.shares, t), mesh_dim_names=("data", "tensor"))
        self.pieces = t * (self.shares if self.shard else 1)
        self.root: FSDPModule | None = None
        self.restore: Callable[[], None] = lambda: None
        self.splits: dict[int, tuple[int, Tensor | None]] = {}
        """By the id of a parameter that several processes split: along which axis, and the order of its rows."""
        self.partial: list[nn.Parameter] = []
        """Whose gradients are also to be added up over the processes that split a matrix."""

    def lay(self, model: nn.Module) -> None:
        self.model, self.restore = model, _restorer(model)
        later = {name: numbers(p) for name, p in model.named_parameters() if p.is_meta}
        for tensor in [*model.parameters(), *model.buffers()]:
            if not tensor.is_meta:
                dist.broadcast(tensor.detach(), 0)
        named: dict[str, tuple[int, Tensor | None]] = {}
        if self.tensor > 1:
            for name, module in model.named_modules():
                if isinstance(module, Transformer):
                    self._split(module, name, named)
            if not named:
                raise SettingsError(["training.parallel.tensor: is for a Transformer. Remove it."])
        if self.shard:
            self._shard(model)
        if later:
            device = self.mesh.device_type
            (self.root or model)._apply(lambda t: torch.empty_like(t, device=device) if t.is_meta else t)
        found = dict(model.named_parameters())
        self.splits = {id(found[name]): how for name, how in named.items()}
        norms = ("q_norm.weight", "k_norm.weight")
        self.partial = [p for name, p in found.items() if self.tensor > 1 and name.endswith(norms)]
        with torch.no_grad():
            for name in list(later):
                self.own(found[name]).copy_(self.part(found[name], later.pop(name)()))
        memory.give_back()  # where whole tensors were

    def _split(self, module: Transformer, name: str, named: dict[str, tuple[int, Tensor | None]]) -> None:
        c, t = module.config, self.tensor
        for what, size in {"heads": c.heads, "groups of keys": c.key_groups, "inner width": c.hidden_width}.items():
            if size % t:
                raise SettingsError(
                    [f"training.parallel.tensor: must divide the {what} of the model. Got {t} and {size}."]
                )
        q, k, f = c.heads * c.key_width, c.key_groups * c.key_width, c.hidden_width
        rows = {"attention.qkv": [q, k, k], "cross.q": [q], "cross.kv": [k, k],
                "feed_forward.up": [f, f] if c.feed_forward == "gated_silu" else [f]}  # fmt: skip
        for number, block in enumerate(module.blocks):
            assert isinstance(block, Block)
            plan: dict[str, Any] = {}
            for ending, linear in block.named_modules():
                if not isinstance(linear, nn.Linear):
                    continue
                if isinstance(linear, LoraLinear):
                    raise SettingsError(["training.parallel.tensor: an adapter is not split. Remove one of them."])
                place = ".".join(filter(None, (name, f"blocks.{number}", ending)))
                if ending in rows:
                    parts = [part.chunk(t) for part in torch.arange(linear.out_features).split(rows[ending])]
                    order = torch.cat([part[i] for i in range(t) for part in parts])
                    for kind, p in linear.named_parameters():
                        if not p.is_meta:
                            p.data = p.data[order.to(p.device)]
                        named[f"{place}.{kind}"] = 0, order
                    plan[ending] = ColwiseParallel()
                else:
                    named[f"{place}.weight"] = 1, None
                    plan[ending] = RowwiseParallel()
            parallelize_module(block, self.mesh["tensor"], plan)
            for attention in (block.attention, getattr(block, "cross", None)):
                if attention is not None:
                    attention.config = replace(c, heads=c.heads // t, groups=c.key_groups // t, head_width=c.key_width)
                    attention.whole = False

    def _shard(self, model: nn.Module) -> None:
        mesh: Any = self.mesh["data"]
        kind = torch.bfloat16 if self.bfloat16 else None
        inner = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in [m for m in model.modules() if isinstance(m, Block)]:
            for part in (block.attention, getattr(block, "cross", None), block.feed_forward):
                if part is not None:
                    fully_shard(part, mesh=mesh, mp_policy=inner)
        single = {p for p in model.parameters() if not self._sharded(p)}
        self.root = fully_shard(_Call(model), mesh=mesh, ignored_params=single)
        for module in self.root.modules():  # type: ignore[attr-defined]
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                module.set_reduce_scatter_unused_params(True)

    @torch.no_grad()
    def gather(self, file: Path) -> None:
        if self.pieces == 1:
            return
        like = {n: torch.empty(p.shape, dtype=p.dtype, device="meta") for n, p in self.model.named_parameters()}
        whole = (self.full(p, self.own(p)) for p in self.model.parameters())  # nobody holds more than one
        if self.number == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(file, like, whole)
        else:
            for _ in whole:
                pass
        self.restore()
        if self.number == 0:
            found = load_file(file)  # mapped: what is not looked at takes no memory
            for name, p in self.model.named_parameters():
                p.data = found[name].to(p.device)

    def within(self, call: Callable[[], T]) -> T:
        if self.root is None:
            return call()
        with torch.autocast(self.mesh.device_type, torch.bfloat16, enabled=self.bfloat16):  # as the weights come
            found = self.root(call)  # type: ignore[operator]
        if not torch.is_grad_enabled():
            self.root.reshard()
        return found

    def places(self, count: int) -> tuple[np.ndarray, float]:
        if self.share >= count:  # one of another's, which counts nothing, so that nobody waits for this process
            return np.arange(count)[:1], 0.0
        return np.arange(self.share, count, self.shares), 1.0  # rows of like length stand side by side

    def whole(self, own: Tensor, count: int) -> Tensor:
        return cast(
            Tensor, _Whole.apply(own, slice(self.share, count, self.shares), count, self.mesh.get_group("data"))
        )

    def read(self, batches: Sequence[np.ndarray], call: Callable[[np.ndarray], Tensor]) -> Tensor:
        found, stops = torch.empty(0), np.cumsum([len(rows) for rows in batches])
        for first in range(0, len(batches), self.shares):
            place = first + self.share
            # where none is left it reads one of another's, as all must go through the blocks together
            said = call(batches[place if place < len(batches) else first]).cpu()
            if first == 0:
                found = said.new_zeros(stops[-1], *said.shape[1:])
            if place < len(batches):
                found[stops[place] - len(said) : stops[place]] = said
        return self.add_up(found)

    def own(self, tensor: Tensor) -> Tensor:
        return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()

    def add_up(self, value: Tensor) -> Tensor:
        found = value.double()
        dist.all_reduce(found)
        return (found / self.tensor).to(value.dtype)

    def first(self, *values: float) -> list[float]:
        told = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(told, 0)
        return told.tolist()

    def most(self, value: int) -> int:
        told = torch.tensor(value)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    @staticmethod
    def wait() -> None:
        dist.all_reduce(torch.zeros(()))

    @staticmethod
    def spent(seconds: float) -> float:
        total = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        rest = [p for p in parameters if not self._sharded(p)]
        there = torch.tensor([p.grad is not None for p in rest], dtype=torch.int32)
        if len(rest):
            dist.all_reduce(there, dist.ReduceOp.MAX)
        for p, some in zip(rest, there.tolist(), strict=True):
            if some and p.grad is None:  # the rows of this process do not need it, those of another do
                p.grad = torch.zeros_like(p)
        self._add([self.own(p.grad) for p in rest if p.grad is not None], "data")
        self._add([self.own(p.grad) for p in self.partial if p.grad is not None], "tensor")

    def _add(self, tensors: list[Tensor], axis: str) -> None:
        """Sums of tensors over the processes along an axis, many in one go."""
        waiting: list[Tensor] = []
        for place, tensor in enumerate(tensors):
            waiting.append(tensor)
            if place == len(tensors) - 1 or sum(x.numel() for x in waiting) + tensors[place + 1].numel() > BUCKET:
                joined = torch.cat([x.flatten() for x in waiting])
                dist.all_reduce(joined, group=self.mesh.get_group(axis))
                for x, found in zip(waiting, joined.split([x.numel() for x in waiting]), strict=True):
                    x.copy_(found.view_as(x))
                waiting = []

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], longest: float) -> Tensor:
        own = [(p, self.own(p.grad)) for p in parameters if p.grad is not None]
        squares = [torch.linalg.vector_norm(g.float()) ** 2 / (self.count // self._holders(p)) for p, g in own]
        total = torch.stack(squares).sum() if squares else torch.zeros((), device=self.mesh.device_type)
        dist.all_reduce(total)
        length = total.sqrt()
        torch._foreach_mul_([g for _, g in own if g.numel()], (longest / (length + 1e-6)).clamp(max=1.0))
        return length

    def _sharded(self, p: Tensor) -> bool:
        return self.shard and p.dim() > 0 and p.numel() > 0  # a number, or nothing, is not cut

    def _holders(self, p: Tensor) -> int:
        """How many processes it takes to hold all of a parameter."""
        return (self.shares if self._sharded(p) else 1) * (self.tensor if id(p) in self.splits else 1)

    @torch.no_grad()
    def full(self, parameter: Tensor, own: Tensor) -> Tensor:
        axis, order = self.splits.get(id(parameter), (None, None))
        shape = list(parameter.shape)
        if axis is not None:
            shape[axis] //= self.tensor
        if self._sharded(parameter):
            size = -(-shape[0] // self.shares)
            padded = own.new_zeros(size, *shape[1:])
            padded[: len(own)] = own
            own = torch.cat(self._all(padded, "data"))[: shape[0]]
        if axis is not None:
            own = torch.cat(self._all(own.contiguous(), "tensor"), dim=axis)
        return own if order is None else own[order.argsort().to(own.device)]

    def _all(self, tensor: Tensor, axis: str) -> list[Tensor]:
        group = self.mesh.get_group(axis)
        found = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(found, tensor, group=group)
        return found

    def part(self, parameter: Tensor | None, full: Tensor) -> Tensor:
        if parameter is None:
            return full
        axis, order = self.splits.get(id(parameter), (None, None))
        if axis is not None:
            found = full if order is None else full[order.to(full.device)]
            full = found.chunk(self.tensor, dim=axis)[self.number % self.tensor]
        if self._sharded(parameter):
            size = -(-len(full) // self.shares)
            full = full[self.share * size : (self.share + 1) * size]
        return full

    def cut(self, parameter: Tensor | None, tensor: Tensor) -> dict[str, Tensor]:
        if parameter is None:
            return {} if self.number else {"": tensor.detach()}
        sharded, split = self._sharded(parameter), id(parameter) in self.splits
        if (self.share and not sharded) or (self.number % self.tensor and not split):
            return {}  # others hold the same
        tensor = self.own(tensor)
        if not sharded and not split:
            return {"": tensor}
        if not tensor.numel():
            return {}
        width = parameter.shape[1] if parameter.dim() > 1 else 1
        # the number that each element has in the whole says where the rows of this piece stand there
        places = torch.arange(parameter.shape[0])[:, None] * width + torch.arange(width)
        places = self.part(parameter, places)
        rows, column = places[:, 0] // width, int(places[0, 0] % width)
        breaks = (rows.diff() != 1).nonzero().flatten().add(1).tolist()
        return {
            f"@{int(rows[start])},{column}": tensor[start:stop].contiguous()
            for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True)
        }

    def random(self) -> dict[str, Tensor]:
        return {f"{name}.{self.number}": state for name, state in super().random().items()}


def _restorer(model: nn.Module) -> Callable[[], None]:
    """Puts every module back as it is now, with parameters that hold nothing."""
    places = {id(p): (number, p.requires_grad) for number, p in enumerate(model.parameters())}
    device, kept = best_device(), []
    for module in model.modules():
        names = {name: None if p is None else places[id(p)] for name, p in module._parameters.items()}
        state = {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(module).items() if k != "_parameters"}
        kept.append((module, type(module), state, names))

    def restore() -> None:
        made = {number: nn.Parameter(torch.empty(0, device=device), learns) for number, learns in places.values()}
        for module, kind, state, names in kept:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(state)
            module._parameters = {name: None if at is None else made[at[0]] for name, at in names.items()}

    return restore
