"""A token at a time: the quick ways of one token are the equations, whatever the batch and the room of the cache."""

import pytest
import torch

from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.transformer import RMSNorm, TransformerConfig, attend, attend_once


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
def test_the_norm_of_few_numbers_is_that_of_torch(kind):
    ours, theirs = RMSNorm(64, eps=1e-3).to(kind), torch.nn.RMSNorm(64, eps=1e-3).to(kind)
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 64).to(kind) * 0.1
    with torch.no_grad():
        tolerance = {"atol": 1e-6, "rtol": 1e-5} if kind == torch.float32 else {"atol": 2e-3, "rtol": 2e-2}
        torch.testing.assert_close(ours(x), theirs(x), **tolerance)


def test_a_cache_grows_and_its_rows_may_change_while_logits_stay_those_of_the_whole_text():
    torch.manual_seed(0)
    config = TransformerConfig(32, 2, 4, groups=2, attention="writing")
    model = LanguageModel(LanguageConfig(config, 50)).eval()
    ids = torch.randint(50, (3, 90))
    going = Continuation(model, ids[:, :7])
    for place in range(7, 90):  # past the room that the cache begins with
        going.step(ids[:, place])
        if place == 40:
            ids = ids[[2, 0]]
            going.select(torch.tensor([2, 0]))
    with torch.no_grad():
        torch.testing.assert_close(going.logits_BV, model(ids)[:, -1], atol=1e-5, rtol=1e-5)
