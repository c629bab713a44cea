"""A token at a time: the quick ways of one token are the equations, whatever the batch and the room of the cache."""

import pytest
import torch

from weft.models.attention import attend, attend_once
from weft.models.fused import RMSNorm
from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.packed import PackedNorm, pack
from weft.models.shape import TransformerConfig


@pytest.mark.parametrize("rows", [1, 9])  # fused, and as products of matrices
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_one_token_is_the_equation(rows, masked):
    torch.manual_seed(0)
    q, (keys, values) = torch.randn(rows, 6, 1, 8), torch.randn(2, rows, 2, 20, 8)
    room = torch.randn(2, rows, 2, 30, 8)
    room[:, :, :, :20] = torch.stack([keys, values])
    mask = torch.rand(rows, 1, 1, 20) < 0.5 if masked else None
    if mask is not None:
        mask[..., -1] = True
    expected, _ = attend(q, keys, values, mask, causal=False)
    torch.testing.assert_close(attend_once(q, *room[:, :, :, :20], mask), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_norm_of_one_token_is_that_of_torch(kind):
    norm = RMSNorm(64, eps=1e-3).to(kind)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 1, 64).to(kind) * 0.1
    with torch.no_grad():
        tolerance = {"atol": 1e-6, "rtol": 1e-5} if kind == torch.float32 else {"atol": 2e-3, "rtol": 2e-2}
        expected = torch.nn.functional.rms_norm(x, (64,), norm.weight, 1e-3)
        torch.testing.assert_close(PackedNorm(norm)(x), expected, **tolerance)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [{"groups": 2}, {"qk_norm": True}, {"positions": "learned", "norm": "layer"}])
def test_a_cache_grows_and_its_rows_may_change_while_logits_stay_those_of_the_whole_text(packed, shape):
    torch.manual_seed(0)
    config = TransformerConfig(128, 2, 4, attention="writing", max_positions=90, **shape)
    model = LanguageModel(LanguageConfig(config, 600)).eval()
    ids = torch.randint(600, (3, 90))
    with torch.no_grad():
        expected = model(ids[[2, 0]])[:, -1]
    if packed:
        pack(model)
        assert "norm" in shape or isinstance(model.backbone.blocks[0].attention_norm, PackedNorm)
    going = Continuation(model, ids[:, :7])
    for place in range(7, 90):  # past the room that the cache begins with
        going.step(ids[:, place])
        if place == 40:
            ids = ids[[2, 0]]
            going.select(torch.tensor([2, 0]))
    torch.testing.assert_close(going.logits_BV, expected, atol=3e-5, rtol=1e-4)


def test_a_cache_holds_keys_and_values_and_nothing_they_were_part_of():
    config = TransformerConfig(64, 2, 4, groups=2, attention="writing")
    cache = Continuation(LanguageModel(LanguageConfig(config, 300)).eval(), torch.randint(300, (3, 70))).cache
    held = sum(tensor.untyped_storage().nbytes() for pair in cache.pairs for tensor in pair)
    assert held == 4 * 2 * 2 * 3 * 2 * (70 + 70) * 16  # bytes, keys and values, blocks, texts, groups, places, width
