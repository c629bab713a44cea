"""The CPU's path of causal attention and dropout against the equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from weft.models.attention import attend
from weft.models.causal import BLOCK, causal_attention, trains_here
from weft.models.dropout import dropout
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.tokens import Tokens
from weft.models.transformer import Transformer, TransformerConfig


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
@pytest.mark.parametrize("groups", [4, 2])
def test_output_and_gradients_are_those_of_the_equation(length: int, groups: int) -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, h, length, 8, dtype=torch.float64, requires_grad=True) for h in (4, groups, groups)]
    weight = torch.randn(2, 4, length, 8, dtype=torch.float64)
    found = torch.autograd.grad((causal_attention(*given) * weight).sum(), given)
    expected = torch.autograd.grad((attend(*given, None, True)[0] * weight).sum(), given)
    torch.testing.assert_close(causal_attention(*given), attend(*given, None, True)[0])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("length", [5, 2 * BLOCK + 9])
def test_what_a_mask_hides_is_not_read(length: int) -> None:
    torch.manual_seed(0)
    given = [torch.randn(3, 2, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    segments = torch.randint(0, 3, (3, length)).sort(dim=1).values
    mask = (segments[:, :, None] == segments[:, None, :])[:, None] & torch.ones(length, length, dtype=bool).tril()
    weight = torch.randn(3, 2, length, 4, dtype=torch.float64)
    found = torch.autograd.grad((causal_attention(*given, mask) * weight).sum(), given)
    expected = torch.autograd.grad((attend(*given, mask, False)[0] * weight).sum(), given)
    torch.testing.assert_close(causal_attention(*given, mask), attend(*given, mask, False)[0])
    torch.testing.assert_close(found, expected)


def test_the_path_is_taken_in_training_and_changes_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(TransformerConfig(32, 2, 4, attention="writing"), 50))
    ids, calls = torch.randint(0, 50, (2, 2 * BLOCK + 3)), []
    monkeypatch.setattr(
        "weft.models.attention.causal_attention", lambda *given: calls.append(1) or causal_attention(*given)
    )
    fast = model.loss(ids)
    assert len(calls) == 2  # one a block
    monkeypatch.setattr("weft.models.attention.trains_here", lambda *_: False)
    torch.testing.assert_close(fast, model.loss(ids))
    with torch.no_grad():
        assert not trains_here(torch.zeros(1, 1, 2 * BLOCK, 2))


@pytest.mark.parametrize("attention", ["reading", "writing", "rewriting"])
def test_bfloat16_training_is_the_fused_kernels(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(32, 2, 4, groups=2, attention=attention))
    states, mask = torch.randn(3, 20, 32), torch.rand(3, 20) > 0.3
    places, weight = torch.arange(20).expand(3, -1), torch.randn(3, 20, 32)

    def run() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = model(Tokens(states, mask, places, places))
        (y.float() * weight)[mask].sum().backward()
        return [y.float()[mask], *(p.grad.clone() for p in model.parameters())]

    ours = run()
    monkeypatch.setattr("weft.models.attention.trains_here", lambda *_: False)
    for a, b in zip(ours, run(), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999, requires_grad=True)
    y = dropout(x, share, True)
    assert abs((y == 0).float().mean() - share) < 3e-3
    assert torch.equal(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - share)))
    rows, columns = (y == 0).float().mean(1), (y == 0).float().mean(0)
    assert max(rows.std(), columns.std()) < 1.2 * (share * (1 - share) / 999) ** 0.5  # independent draws
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert dropout(x, share, False) is x and torch.equal(dropout(x, 0.0, True), x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, share, True), y)
    assert F.dropout(x, share).shape == y.shape


def test_readers_in_bfloat16_are_float32_but_for_rounding():
    torch.manual_seed(0)
    shape = TransformerConfig(64, 2, 4, norm="layer", norm_at="after", positions="learned", max_positions=48)
    model = LanguageModel(LanguageConfig(shape, 100, output="none")).eval()
    ids, mask = torch.randint(0, 100, (3, 40)), torch.ones(3, 40, dtype=torch.bool)
    for lengths in ((40, 40, 40), (40, 25, 7)):
        mask = torch.arange(40) < torch.tensor(lengths)[:, None]
        with torch.no_grad():
            exact = model.pooled(ids, mask)
            alone = torch.cat([model.pooled(row[None, :n]) for row, n in zip(ids, lengths, strict=True)])
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model.pooled(ids, mask).float()
        torch.testing.assert_close(exact, alone, atol=1e-5, rtol=1e-5)
        assert torch.nn.functional.cosine_similarity(rounded, exact).min() > 0.999
