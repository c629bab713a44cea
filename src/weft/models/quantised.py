"""Matrices of 8 or 4 bits a number in place of 32, for models that only answer.

    8 bits: w = scale * code,        a scale a row,          codes -127 to 127
    4 bits: w = low + scale * code,  both for every 32 of a row, codes 0 to 15

Either is multiplied as 8-bit integers where the processor can (torch's FBGEMM), each row of the input brought to 8 bits
by its own largest number, so that no row depends on the others; elsewhere, and where a gradient is asked for, as the
numbers that the codes stand for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1 << 14
"""Numbers of a matrix below which it stays as it is."""
GROUP = 32
CODES, SCALE, LOW = ".codes", ".scale", ".low"
ENGINE = "fbgemm"
AT_ONCE = 256
"""Rows of the input whose steps stay in the processor's cache."""


def matrices(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose matrices are worth making smaller, by the names of these."""
    return {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, nn.Embedding)) and layer.weight.numel() >= LEAST
    }


def quantise(state: dict[str, Tensor], names: list[str], bits: int) -> dict[str, Tensor]:
    """The tensors of a model, those of ``names`` as codes and what these stand for."""
    found = {n: t for n, t in state.items() if n not in names}
    for name in names:
        weight = state[name].float()
        parts = dict(zip((CODES, SCALE), codes8(weight), strict=True)) if bits == 8 else _codes4(weight)
        found |= {name + leaf: part for leaf, part in parts.items()}
    return found


def codes8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The 8-bit codes of a matrix [N, K], and the scale of each row [N]."""
    scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _codes4(weight: Tensor) -> dict[str, Tensor]:
    """Two codes a byte; a last group that is short is filled up with its last column."""
    filled = F.pad(weight[None], (0, -weight.shape[1] % GROUP), mode="replicate")[0].unflatten(1, (-1, GROUP))
    low, high = filled.amin(dim=2), filled.amax(dim=2)
    scale, low = ((high - low) / 15).clamp(min=1e-7).half(), low.half()
    codes = ((filled - low.float()[..., None]) / scale.float()[..., None]).round().clamp(0, 15).to(torch.uint8)
    codes = codes.flatten(1)
    return {CODES: codes[:, ::2] | codes[:, 1::2] << 4, SCALE: scale, LOW: low}


def restored(state: Mapping[str, Tensor], name: str, columns: int) -> Tensor:
    """The numbers that the codes of a matrix with so many ``columns`` stand for [N, K]."""
    codes, scale = state[name + CODES], state[name + SCALE]
    if codes.dtype == torch.int8:
        return codes.float() * scale.float()[:, None]
    return _of4(codes, scale, state[name + LOW], columns)


def _of4(codes: Tensor, scale: Tensor, low: Tensor, columns: int) -> Tensor:
    both = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1).float().unflatten(1, (-1, GROUP))
    return (low.float()[..., None] + scale.float()[..., None] * both).flatten(1)[:, :columns]


def _as8(state: Mapping[str, Tensor], name: str, columns: int) -> tuple[Tensor, Tensor]:
    """A matrix of 8 or 4 bits as codes of 8 and their scales; few of its rows are there as float32 at once."""
    codes, scale = state[name + CODES], state[name + SCALE]
    if codes.dtype == torch.int8:
        return codes, scale.float()
    low, found = state[name + LOW], (torch.empty(len(codes), columns, dtype=torch.int8), torch.empty(len(codes)))
    for start in range(0, len(codes), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        found[0][rows], found[1][rows] = codes8(_of4(codes[rows], scale[rows], low[rows], columns))
    return found


def load_state(model: nn.Module, state: Mapping[str, Tensor], quick: bool = True) -> None:
    """Put the tensors of a file into a model, whose matrices then are 8-bit where they are codes in the file.

    Args:
        model: on the device "meta" it takes the number types of the file.
        state: each tensor is asked for once, one matrix after another.
        quick: leave it False for a model that goes on learning: it then has the numbers that the codes stand for.

    Raises:
        RuntimeError: as ``load_state_dict``, naming what does not fit.
    """
    names = [n.removesuffix(CODES) for n in state if n.endswith(CODES)]
    fresh = any(p.is_meta for p in model.parameters())  # it takes the numbers as its own, not as those of the file
    rest = {
        n: state[n].clone() if fresh else state[n]
        for n in state
        if not n.endswith((CODES, SCALE, LOW)) or n.rpartition(".")[0] not in names
    }
    quick = quick and ENGINE in torch.backends.quantized.supported_engines
    layers = matrices(model)
    for name in names:
        place, leaf = name.rpartition(".")[::2]
        layer = layers[name]
        assert leaf == "weight" and isinstance(layer, (nn.Linear, nn.Embedding))
        if not quick:
            rest[name] = restored(state, name, layer.weight.shape[1])
            continue
        codes, scale = _as8(state, name, layer.weight.shape[1])
        if codes.shape != layer.weight.shape or scale.shape != codes.shape[:1]:
            raise RuntimeError(f"{name} must be {tuple(layer.weight.shape)}. Got {tuple(codes.shape)}")
        small: Linear8 | Embedding8
        if isinstance(layer, nn.Linear):
            small = Linear8(codes, scale, layer.bias)
        else:
            small = Embedding8(codes.clone(), scale.clone())
        parent, _, own = place.rpartition(".")
        setattr(model.get_submodule(parent), own, small)
        rest |= {f"{place}.{n}": t for n, t in small.state_dict().items() if n != "bias"}
    model.load_state_dict(rest, assign=fresh)


class Linear8(nn.Module):
    """y = x W^T + b with a matrix of 8-bit integers, which is kept in FBGEMM's order only. Inputs of any float type."""

    def __init__(self, codes: Tensor, scale: Tensor, bias: Tensor | None):
        super().__init__()
        self.scale = nn.Buffer(scale.clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        engine, torch.backends.quantized.engine = torch.backends.quantized.engine, ENGINE
        try:
            with warnings.catch_warnings():  # of what torch may call otherwise some day
                warnings.simplefilter("ignore")
                zeros = torch.zeros(len(codes), dtype=torch.int64)
                whole = torch._make_per_channel_quantized_tensor(codes, scale.double(), zeros, 0)
                self.packed = torch.ops.quantized.linear_prepack(whole, None)
        finally:
            torch.backends.quantized.engine = engine

    @property
    def weight(self) -> Tensor:
        """The numbers that its codes stand for, made anew."""
        return torch.ops.quantized.linear_unpack(self.packed)[0].dequantize()

    def forward(self, x: Tensor, rows: slice | None = None) -> Tensor:
        if torch.is_grad_enabled():
            rows = rows or slice(None)
            return F.linear(x, self.weight.to(x.dtype)[rows], None if self.bias is None else self.bias[rows])
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                y = self._products(x.flatten(0, -2))
        else:
            y = self._products(x.flatten(0, -2))
        y = y.view(*x.shape[:-1], -1)
        return y if rows is None else y[..., rows]

    __call__ = forward  # it answers only, without hooks, and is called some hundred times a token

    def _products(self, x_NK: Tensor) -> Tensor:
        if len(x_NK) <= AT_ONCE:
            return self._product(x_NK).to(x_NK.dtype)
        y = x_NK.new_empty(len(x_NK), len(self.scale))
        for piece, made in zip(x_NK.split(AT_ONCE), y.split(AT_ONCE), strict=True):
            made.copy_(self._product(piece))
        return y

    def _product(self, x_NK: Tensor) -> Tensor:
        x_NK = x_NK.float()
        most = x_NK.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12)  # as a norm it would take 20 times as long
        # 127 steps to either side of 128, of numbers from -1 to 1
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default
        y = multiply(x_NK / most, 1 / 127, 128, self.packed)
        return y.mul_(most) if self.bias is None else torch.addcmul(self.bias, y, most)


class Embedding8(nn.Module):
    """A table of 8-bit integers; a row is looked up as the numbers that it stands for."""

    def __init__(self, codes: Tensor, scale: Tensor):
        super().__init__()
        self.codes, self.scale = nn.Buffer(codes), nn.Buffer(scale)

    @property
    def weight(self) -> Tensor:
        """All of it, made anew."""
        return self.codes * self.scale[:, None]

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes[ids] * self.scale[ids].unsqueeze(-1)
