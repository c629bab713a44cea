"""The summary of a long column against its equation in NumPy; padding and empty columns do not matter."""

import numpy as np
import pytest
import torch

from weft.models.summary import Summary
from weft.models.tokens import Tokens


def tokens(states, lengths):
    b, t, _ = states.shape
    mask = torch.arange(t) < torch.tensor(lengths)[:, None]
    return Tokens(states, mask, torch.arange(t).expand(b, t), torch.full((b, t), 3))


def by_hand(summary, x):
    """One row [T, D] by the equation of the module's first lines."""
    kv = summary.kv.weight.detach().numpy()
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + np.finfo(np.float32).eps) * summary.norm.weight.detach().numpy()
    k, v = np.split(x @ kv.T, 2, axis=-1)
    q, heads, n = summary.query.detach().numpy(), summary.heads, len(x)
    count, width = q.shape
    d = width // heads
    out = np.zeros((count, width))
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        for i in range(count):
            place = count * (np.arange(n) + 0.5) / n
            slope = np.exp(summary.log_slope[h].item())
            score = k[:, part] @ q[i, part] / np.sqrt(d) - slope * (place - i - 0.5) ** 2
            weight = np.exp(score - score.max())
            out[i, part] = weight / weight.sum() @ v[:, part]
    return out @ summary.out.weight.detach().numpy().T


@pytest.mark.parametrize(("width", "queries"), [(64, 4), (16, 1), (72, 5)])
def test_it_is_its_equation(width, queries):
    torch.manual_seed(0)
    summary = Summary(width, queries)
    x, lengths = torch.randn(3, 20, width), [20, 3, 11]
    found = summary(tokens(x, lengths))
    assert found.shape == (3, queries, width) and found.mask_BT.all()
    assert (found.columns_BT == 3).all() and found.positions_BT.tolist() == [list(range(queries))] * 3
    for row, n in enumerate(lengths):
        expected = by_hand(summary, x[row, :n].double().numpy())
        np.testing.assert_allclose(found.states_BTD[row].detach().numpy(), expected, atol=1e-5)


def test_a_query_looks_at_its_own_part_first_and_a_flat_head_anywhere():
    summary = Summary(64, 8)
    with torch.no_grad():
        summary.query.zero_()
        summary.kv.weight.zero_()
        summary.kv.weight[64:].copy_(torch.eye(64))
        summary.out.weight.copy_(torch.eye(64))
        summary.norm.weight.zero_()[0] = summary.norm.weight[32] = 1.0
    steep, flat = summary.log_slope.exp().tolist()
    assert steep > 1 > 0.1 > flat
    x = torch.zeros(1, 80, 64)
    x[:, 45] = 1.0  # in the fifth part of eight
    found = summary(tokens(x, [80])).states_BTD[0].detach()
    assert found[:, 0].argmax() == 4 and found[0, 0] < 1e-3 * found[4, 0]
    assert found[0, 32] > 0.5 * found[4, 32]


def test_a_row_without_tokens_has_none_and_nothing_turns_into_nan():
    torch.manual_seed(0)
    summary = Summary(32, 4)
    x = torch.randn(2, 6, 32, requires_grad=True)
    found = summary(tokens(x, [0, 6]))
    assert found.mask_BT.tolist() == [[False] * 4, [True] * 4] and torch.isfinite(found.states_BTD).all()
    found.states_BTD[1].sum().backward()
    assert torch.isfinite(x.grad).all() and not x.grad[0].any()
    alone = summary(tokens(x[1:, :], [6]))
    torch.testing.assert_close(alone.states_BTD[0], found.states_BTD[1])
