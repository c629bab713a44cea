"""Windows of events, and the correction of candidates that are drawn, against the whole catalogue."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from weft.data.split import TEST, TRAIN, VALID
from weft.features.events import Events, leave_last
from weft.features.next_items import Candidates, NextItems
from weft.features.pieces import IGNORED


def made(lengths, items=50, seed=0):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    events = Events(offsets, random.integers(1, items + 1, offsets[-1]).astype(np.int32),
                    random.integers(0, 1_000, offsets[-1]).astype(float), None,
                    np.zeros(offsets[-1], np.uint8))  # fmt: skip
    leave_last(events)
    return events


def asked_of(data, batch, row):
    """(items read, item asked for) at every place of a row that asks."""
    read = batch.items_BT[row, : batch.lengths_B[row]].tolist()
    codes = batch.candidates_M.tolist()
    return [
        ([codes[i] for i in read[:place]], codes[target])
        for place, target in enumerate(batch.targets_BT[row].tolist())
        if target != IGNORED
    ]


@pytest.mark.parametrize("drawn", [None, 20])
def test_every_training_event_is_asked_for_after_those_before_it_and_no_other(drawn):
    events = made([1, 2, 3, 7, 40, 23])
    data = NextItems(events, Candidates(np.ones(50, int), drawn, {}), context=8, seed=3)
    cuts = data.cuts()
    for epoch in (0, 1):
        found = []
        batch = data.batch(cuts, np.arange(len(cuts)), epoch)
        for row, user in enumerate(cuts.document):
            mine = events.items[events.offsets[user] : events.offsets[user + 1]].tolist()
            for read, target in asked_of(data, batch, row):
                # what is read stands right before what is asked for
                ends = [i for i in range(len(mine)) if mine[max(0, i - len(read)) : i] == read and mine[i] == target]
                assert ends and len(read) <= 8 and (len(read) >= 4 or mine[: len(read)] == read)
                found.append((user, ends))
        wanted = (events.parts == TRAIN).sum()
        assert len(found) == wanted
    again = data.batch(cuts, np.arange(len(cuts)), 1)
    for name, value in vars(batch).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(), getattr(again, name).nan_to_num()), name


def test_a_question_reads_the_last_events_and_no_later_one():
    events = made([12, 5])
    data = NextItems(events, Candidates(np.ones(50, int), None, {}), context=4)
    for part in (VALID, TEST):
        places = events.places(part)
        batch = data.questions(places)
        for row, place in enumerate(places):
            first = events.offsets[events.owners(np.array([place]))[0]]
            assert asked_of(data, batch, row) == [
                (events.items[max(first, place - 4) : place].tolist(), events.items[place])
            ]
    turned = np.concatenate(list(data.in_turn(events.places(TEST))))
    assert sorted(turned.tolist()) == events.places(TEST).tolist()


def test_drawn_candidates_agree_with_all_items_in_expectation():
    """The sum of the exponents is unbiased; loss and gradient of many draws are those of the full softmax."""
    random = np.random.default_rng(0)
    size, own = 400, np.array([0, 3, 17, 200])
    counts = random.zipf(1.3, size).clip(max=5_000)
    scores = torch.from_numpy(random.normal(0, 2, size))
    full = scores.exp().sum().item()

    def sums(drawn, corrected, repeats):
        candidates = Candidates(counts, drawn, {})
        found = []
        for seed in range(repeats):
            codes, weights = candidates.of(own, np.random.default_rng(seed))
            s = scores[codes[1:] - 1] + (torch.from_numpy(weights[1:]) if corrected else 0)
            found.append(s.exp().sum().item())
        return np.array(found)

    right = sums(32, True, 4_000)
    assert abs(right.mean() - full) < 4 * right.std() / len(right) ** 0.5
    wrong = sums(32, False, 500)
    assert abs(wrong.mean() - full) > 20 * wrong.std() / len(wrong) ** 0.5

    state = torch.from_numpy(random.normal(size=8))
    vectors = torch.from_numpy(random.normal(0, 0.4, (size, 8))).requires_grad_()
    F.cross_entropy((vectors @ state)[None], torch.tensor([16])).backward()
    wanted, vectors.grad = vectors.grad.clone(), None
    candidates, found = Candidates(counts, 1_024, {}), torch.zeros(size, 8, dtype=torch.float64)
    for seed in range(400):
        codes, weights = candidates.of(own, np.random.default_rng(seed))
        chosen = torch.from_numpy(codes[1:] - 1)
        logits = vectors[chosen] @ state + torch.from_numpy(weights[1:])
        F.cross_entropy(logits[None], torch.tensor([1])).backward()  # code 17, the second item of the batch
        found += vectors.grad / 400
        vectors.grad = None
    cosine = F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
    assert cosine > 0.999 and abs(found.norm() / wanted.norm() - 1) < 0.01
