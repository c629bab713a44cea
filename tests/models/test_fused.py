"""Norms and gates in few passes are the library's, forwards and backwards."""

import torch
import torch.nn.functional as F
from torch import nn

from weft.models.fused import GatedSiLU, Normed, RMSNorm, gated_silu


def test_the_norm_and_its_gradients_are_those_of_the_library_in_float64():
    torch.manual_seed(0)
    x, w, g = torch.randn(3, 5, 24) * 4, torch.randn(24), torch.randn(3, 5, 24)
    ours, reference = RMSNorm(24, eps=1e-6), nn.RMSNorm(24, eps=1e-6).double()
    nn.init.zeros_(x[0, 0])
    for norm, found in ((ours, x.clone().requires_grad_()), (reference, x.double().requires_grad_())):
        with torch.no_grad():
            norm.weight.copy_(w)
        y = norm(found)
        y.backward(g.to(y.dtype))
        norm.seen = y, found.grad, norm.weight.grad
    assert isinstance(ours.seen[0].grad_fn, type(Normed.apply(x, ours.weight, 1e-6).grad_fn))
    for mine, theirs in zip(ours.seen, reference.seen, strict=True):
        scale = theirs.abs().amax(-1, keepdim=True).clamp(min=1.0)
        assert ((mine.double() - theirs) / scale).abs().max() < 2e-6


def test_the_norm_without_gradients_is_the_same():
    torch.manual_seed(0)
    norm, x = RMSNorm(24, eps=1e-6), torch.randn(7, 24)
    nn.init.normal_(norm.weight)
    with torch.no_grad():
        theirs = F.rms_norm(x.double(), (24,), norm.weight.double(), 1e-6).float()
        torch.testing.assert_close(norm(x), theirs, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(norm(x[:, None]), theirs[:, None], atol=1e-6, rtol=1e-6)


def test_the_gate_and_its_gradient_are_those_of_the_library():
    torch.manual_seed(0)
    h = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(GatedSiLU.apply, (h,))
    h = torch.randn(2, 200, 16, requires_grad=True)  # longer than a piece
    gate, up = h.chunk(2, dim=-1)
    reference = F.silu(gate) * up
    torch.testing.assert_close(gated_silu(h), reference)
    g = torch.randn_like(reference)
    (found,), (wanted,) = (torch.autograd.grad(y, h, g) for y in (gated_silu(h), reference))
    torch.testing.assert_close(found, wanted)


def test_rows_side_by_side_have_their_own_gradients():
    torch.manual_seed(0)
    norm, x = RMSNorm(8, eps=1e-6), torch.randn(4, 16)

    def loss(row):
        return norm(gated_silu(row)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss))(x)
    for row, gradient in zip(x, found, strict=True):
        one = row.clone().requires_grad_()
        loss(one).backward()
        torch.testing.assert_close(gradient, one.grad, atol=1e-5, rtol=1e-4)
