"""Losses and scores of the heads against torch's and NumPy's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from weft.features.targets import OUTSIDE, UNSEEN
from weft.models.heads import ClassHead, Directions, LabelsHead
from weft.models.row import SCORES, combine, energy


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_row_of_no_class_should_be_as_likely_of_each(smoothing):
    head = ClassHead(4, 4, [5, 3, 2], 0.0, smoothing=smoothing).train()
    out = torch.randn(7, 3)
    target = torch.tensor([0, OUTSIDE, 2, UNSEEN, 1, OUTSIDE, 1])
    soft = torch.full((7, 3), 1 / 3)  # torch's cross-entropy with probabilities as targets
    for row, code in enumerate(target.tolist()):
        if code >= 0:
            soft[row] = F.one_hot(torch.tensor(code), 3) * (1 - smoothing) + smoothing / 3
    counted = target != UNSEEN
    torch.testing.assert_close(head.loss(out, target), F.cross_entropy(out[counted], soft[counted]))
    known = target >= 0
    torch.testing.assert_close(
        head.loss(out[known], target[known]), F.cross_entropy(out[known], target[known], label_smoothing=smoothing)
    )


def test_a_batch_of_such_rows_alone_has_a_loss():
    head = ClassHead(4, 4, [5, 3, 2], 0.0)
    assert head.loss(torch.zeros(2, 3), torch.tensor([OUTSIDE, OUTSIDE])).item() == pytest.approx(np.log(3))


def test_the_loss_of_labels_is_torchs_over_the_rows_that_are_known():
    head = LabelsHead(4, 4, [0.5, 0.1, 0.9], 0.0)
    out, target = torch.randn(6, 3), torch.randint(0, 2, (6, 3), dtype=torch.int8)
    target[2] = UNSEEN
    known = [0, 1, 3, 4, 5]
    expected = F.binary_cross_entropy_with_logits(out[known], target[known].float(), reduction="none").sum(1).mean()
    torch.testing.assert_close(head.loss(out, target), expected)


@pytest.mark.parametrize("directions", [False, True])
def test_labels_begin_at_their_shares(directions):
    head = LabelsHead(4, 4, [0.5, 0.1, 0.0], 0.0, from_zero=True, directions=directions)
    if directions:
        torch.nn.init.constant_(head.read.log_scale, -20.0)
    share = head(torch.randn(5, 4)).sigmoid()
    torch.testing.assert_close(share, torch.tensor([0.5, 0.1, 1e-4]).expand(5, 3), atol=1e-6, rtol=1e-3)


def test_directions_begin_as_means_of_the_rows_of_each_class_or_label():
    read, member = torch.randn(20, 6), (torch.rand(20, 3) < 0.4).long()
    member[:, 2] = 0
    head = Directions(6, 3, 0.0)
    before = head.weight[2].clone()
    head.begin(read, member)
    unit = read / read.norm(dim=1, keepdim=True)
    centre = unit.mean(0)
    for k in range(2):
        mean = (unit - centre)[member[:, k] > 0].sum(0)
        torch.testing.assert_close(head.weight[k], mean / mean.norm())
    torch.testing.assert_close(head.weight[2], before)


def test_energy_is_the_log_of_the_sum_of_exponents():
    out = np.random.default_rng(0).normal(0, 3, (9, 5)).astype(np.float32)
    expected = np.log(np.exp(out.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(energy(torch.from_numpy(out)).numpy(), expected, rtol=1e-5)
    shifted = torch.from_numpy(out + 1)
    p, q = (combine([t.log_softmax(-1)], "class", torch.ones(())) for t in (torch.from_numpy(out), shifted))
    probability = SCORES["probability"](p, energy(shifted))
    torch.testing.assert_close(probability, SCORES["probability"](q, energy(shifted)))
    np.testing.assert_allclose(SCORES["energy"](q, energy(shifted)).numpy(), expected + 1, rtol=1e-5)


def test_labels_of_several_copies_are_the_mean_of_their_probabilities():
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    found = combine([a, b], "labels", torch.tensor(3.0))
    np.testing.assert_allclose(found.numpy(), (1 / (1 + np.exp(-a.numpy())) + 1 / (1 + np.exp(-b.numpy()))) / 2, 1e-5)
