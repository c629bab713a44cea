"""Few bits a number: the codes stand for what they should, and products of them are those of these numbers."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from weft.models.language import LanguageConfig, LanguageModel
from weft.models.packed import pack
from weft.models.quantised import Embedding8, Linear8, codes8, load_state, matrices, quantise, restored
from weft.models.tensor_file import TensorFile
from weft.models.transformer import TransformerConfig


@pytest.mark.parametrize("columns", [64, 77])  # of whole groups, and not
@pytest.mark.parametrize("bits", [8, 4])
def test_codes_are_within_half_a_step(bits, columns):
    w = np.random.default_rng(0).normal(size=(9, columns)).astype(np.float32) + 0.5
    state = quantise({"a.weight": torch.tensor(w), "b": torch.ones(3)}, ["a.weight"], bits)
    assert set(state) == {"b", "a.weight.codes", "a.weight.scale"} | ({"a.weight.low"} if bits == 4 else set())
    assert state["a.weight.codes"].numel() == 9 * columns if bits == 8 else 9 * -(-columns // 32) * 16
    found = restored(state, "a.weight", columns).numpy()
    if bits == 8:
        step = np.abs(w).max(axis=1, keepdims=True) / 127
    else:
        groups = [w[:, i : i + 32] for i in range(0, columns, 32)]
        steps = [(g.max(axis=1) - g.min(axis=1))[:, None].repeat(g.shape[1], 1) / 15 for g in groups]
        step = np.concatenate(steps, axis=1) * 1.05  # the scale itself has 16 bits
    assert (np.abs(found - w) <= 0.5 * step + 1e-3 * (bits == 4)).all()


@pytest.mark.parametrize("rows", [3, 600])  # at once, and in pieces
def test_a_product_of_8_bit_numbers(rows):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(40, 96), torch.randn(40), torch.randn(rows, 2, 96)
    x[0] *= 1_000  # its own scale: the other rows lose nothing by it
    layer = Linear8(*codes8(weight), bias)
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, layer.weight, bias)
        assert torch.allclose(layer.weight, weight, atol=0.02)
        for row in (0, 1, -1):
            error = (layer(x)[row] - expected[row]).norm() / (expected[row] - bias).norm()
            assert error < 0.015
        torch.testing.assert_close(layer(x[1:2]), layer(x)[1:2], atol=1e-5, rtol=1e-5)  # whatever comes with it
        torch.testing.assert_close(layer(x, slice(5, 9)), layer(x)[..., 5:9])
        halved = layer(x.bfloat16())
        assert halved.dtype == torch.bfloat16 and (halved - expected)[1:].norm() / expected[1:].norm() < 0.015
    x.requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad[0, 0], layer.weight.sum(dim=0))


def test_a_model_takes_codes_and_answers_as_with_the_numbers_they_stand_for():
    torch.manual_seed(0)
    config = LanguageConfig(TransformerConfig(128, 2, 4, attention="writing"), 300)
    model, ids = LanguageModel(config).eval(), torch.randint(300, (2, 9))
    names = list(matrices(model))
    assert "table.weight" in names and len(names) == 1 + 2 * 4
    for bits in (8, 4):
        small = quantise(model.state_dict(), names, bits)
        quick, slow = LanguageModel(config).eval(), LanguageModel(config).eval()
        load_state(quick, small), load_state(slow, small, quick=False)
        assert isinstance(quick.table, Embedding8) and isinstance(quick.backbone.blocks[1].attention.qkv, Linear8)
        assert not any(isinstance(m, (Linear8, Embedding8)) for m in slow.modules())
        pack(quick)  # leaves them as they are
        with torch.no_grad():
            a, b = quick(ids), slow(ids)
            assert (a - b).norm() / b.norm() < 0.05
            assert (a - model(ids)).norm() / b.norm() < (0.05 if bits == 8 else 0.4)
    del small["table.weight.scale"]
    with pytest.raises((KeyError, RuntimeError)):
        load_state(LanguageModel(config), small)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor of floating point has that is made meanwhile."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.most = max(self.most, made.numel())
        return made


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_of_few_bits_is_never_there_in_float32(tmp_path, bits):
    config = LanguageConfig(TransformerConfig(32, 1, 2, attention="writing"), 4_000)
    model = LanguageModel(config)
    small = quantise(model.state_dict(), list(matrices(model)), bits)
    save_file(small, tmp_path / "model.safetensors")
    file, whole = TensorFile(tmp_path / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(file) == set(whole) and len(file) == len(whole) and all(torch.equal(file[n], whole[n]) for n in whole)
    with pytest.raises(KeyError):
        file["table.weight"]
    with torch.device("meta"):
        empty = LanguageModel(config)
    with Largest() as made:
        load_state(empty, file)
    assert made.most < 4_000 * 32 / 4
    step = 0.5 * empty.table.scale[:, None] + 1e-6
    assert ((empty.table.weight - restored(small, "table.weight", 32)).abs() <= step).all()
