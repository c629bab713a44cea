"""Attention of the fused kernel, over keys filled up to whole vectors, against the equation."""

import pytest
import torch

from weft.models.attention import VECTOR, Attention, attend, filled_up
from weft.models.shape import TransformerConfig


@pytest.mark.parametrize("tokens", [3, 8, 15, 16, 31, 41])
@pytest.mark.parametrize("masked", [False, True])
def test_a_reader_of_any_length_reads_its_own_tokens_alone(tokens, masked):
    torch.manual_seed(0)
    layer = Attention(TransformerConfig(32, 1, 4, groups=2)).eval()
    x = torch.randn(3, tokens, 32, requires_grad=True)
    mask = torch.ones(3, 1, 1, tokens, dtype=torch.bool)
    mask[0, ..., tokens // 2 :] = False
    given = mask if masked else None
    found, expected = (layer(x, given, False, None, transparent=transparent)[0] for transparent in (False, True))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_keys_are_filled_up_where_that_is_quicker_and_nobody_reads_what_is_added():
    for tokens, full in {3: 3, 7: 7, 8: 16, 15: 16, 16: 16, 17: 17, 24: 32, 47: 48}.items():
        q, key, value = torch.randn(3, 2, 4, tokens, 8)
        expected, _ = attend(q, key, value, None, False)
        filled = filled_up(key, value, None)
        assert filled[0].shape[2] == filled[1].shape[2] == full and (full == tokens or full % VECTOR == 0)
        filled[0][:, :, tokens:], filled[1][:, :, tokens:] = 1e3, 1e6
        y = torch.nn.functional.scaled_dot_product_attention(q, *filled)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-5)
    assert filled_up(key.bfloat16(), value.bfloat16(), None)[0].shape[2] == 47  # another kernel
