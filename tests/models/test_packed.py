"""Packed matrices answer as the usual ones do, whether or not a gradient is asked for."""

import pytest
import torch

from weft.models.language import LanguageConfig, LanguageModel
from weft.models.packed import PackedLinear, pack
from weft.models.transformer import TransformerConfig


@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_model_gives_the_same_logits(tied):
    torch.manual_seed(0)
    config = TransformerConfig(256, 2, 4, attention="writing", max_positions=32, biases="all")
    model = LanguageModel(LanguageConfig(config, 300, tied=tied)).eval()
    ids = torch.randint(300, (3, 20))
    with torch.no_grad():
        before = model(ids)
    weights = {n: m.weight.clone() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    pack(model)
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    assert len(packed) == 2 * 4 + 1 and set(weights) <= set(packed)
    assert all(torch.equal(packed[n].weight, w) for n, w in weights.items())
    with torch.no_grad():
        torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=1e-5)
    states = model.tokens(ids)
    states.states_BTD = states.states_BTD.detach().requires_grad_()
    model.logits(model.backbone(states)).sum().backward()
    assert states.states_BTD.grad is not None and bool(states.states_BTD.grad.abs().sum() > 0)


def test_some_rows_of_a_packed_matrix_and_small_ones():
    layer = torch.nn.Linear(256, 300)
    packed, x = PackedLinear(layer.weight, layer.bias), torch.randn(2, 5, 256)
    with torch.no_grad():
        torch.testing.assert_close(packed(x, slice(100, 200)), layer(x)[..., 100:200], atol=1e-5, rtol=1e-5)
    small = LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2, attention="writing"), 30))
    pack(small)
    assert not any(isinstance(m, PackedLinear) for m in small.modules())


def test_bfloat16_is_packed_too():
    torch.manual_seed(0)
    config = TransformerConfig(256, 2, 4, attention="writing", max_positions=32)
    model = LanguageModel(LanguageConfig(config, 300)).eval().bfloat16()
    ids = torch.randint(300, (3, 20))
    with torch.no_grad():
        before = model(ids)
        pack(model)
        assert isinstance(model.output, PackedLinear)
        torch.testing.assert_close(model(ids), before, atol=0.1, rtol=0.05)
