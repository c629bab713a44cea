"""The model of the next item: nothing of the future, nothing of the batch; the look back against a plain loop."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from weft.features.categories import CategoryCodec
from weft.features.events import Events
from weft.features.next_items import Candidates, NextItems
from weft.features.pieces import IGNORED
from weft.models.histories import count_bins
from weft.models.ranking import Lookback, RankingConfig, RankingModel
from weft.models.recurrent import RecurrentConfig
from weft.models.transformer import TransformerConfig

ITEMS = 30
BACKBONES = {
    "transformer": TransformerConfig(width=16, layers=2, heads=2, attention="writing"),
    "gru": RecurrentConfig(16, 1, "gru", "writing"),
}


def made(lengths=(9, 4, 1, 6), seed=0):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    size = int(offsets[-1])
    items, stars = random.integers(0, ITEMS + 1, size).astype(np.int32), random.integers(1, 6, size).astype(np.float32)
    return Events(offsets, items, np.cumsum(random.exponential(99, size)), stars, np.zeros(size, np.uint8))


def model_of(backbone, repeats=True):
    torch.manual_seed(0)
    model = RankingModel(RankingConfig(BACKBONES[backbone], ITEMS, 8, 0.0, True, (3.0, 1.0), repeats)).eval()
    with torch.no_grad():  # what starts at zero says something too
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def data_of(events):
    return NextItems(events, Candidates(np.ones(ITEMS, int), None, {}), context=8)


def scores(model, data, places):
    vectors, bias = model.all_items(data.candidates.known_of, ITEMS)
    with torch.no_grad():
        return model.scores(data.questions(places), vectors, bias)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_later_events_change_no_earlier_score(backbone):
    model, events = model_of(backbone), made()
    data = data_of(events)
    cuts = data.cuts()

    def places_of(changed):
        batch = data.batch(cuts, np.arange(len(cuts)), 0)
        asked = torch.ones_like(batch.targets_BT, dtype=torch.bool)
        vectors, bias = model.items(batch.candidates_M, batch.columns)
        with torch.no_grad():
            return model._scores(batch, vectors, bias, asked)[1].reshape(*asked.shape, -1)

    before = places_of(events)
    rows, widths = len(cuts), before.shape[1]
    starts, stops = cuts.spans(np.arange(rows), 0, 0)
    row = int(np.argmax(stops - starts))
    user = cuts.document[row]
    begin = events.offsets[user] + max(0, stops[row] - 1 - 8)
    for late in (2, 3):
        place = begin + late  # the event read at place late + 1
        old = events.items[place], events.ratings[place]
        events.items[place], events.ratings[place] = (old[0] + 7) % ITEMS + 1, 1.0
        after = places_of(events)
        events.items[place], events.ratings[place] = old
        torch.testing.assert_close(after[row, : late + 1], before[row, : late + 1], rtol=0, atol=0)
        assert late + 1 < widths and not torch.allclose(after[row, late + 1], before[row, late + 1])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("repeats", [True, False])
def test_a_row_scores_alone_as_beside_longer_ones(backbone, repeats):
    model, events = model_of(backbone, repeats), made()
    places = np.array([0, 3, 8, 9, 13, 19])
    together = scores(model, data_of(events), places)
    alone = torch.cat([scores(model, data_of(events), places[[i]]) for i in range(len(places))])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together.shape == (6, ITEMS)
    # and what is asked at the end is what the training asks at that place
    data = data_of(events)
    batch = data.questions(np.array([8]))
    nats = model.loss(batch).item()
    target = batch.targets_BT[batch.targets_BT != IGNORED].item()
    assert nats == pytest.approx(-together[2].log_softmax(0)[target - 1].item(), abs=1e-5)


def test_the_look_back_is_that_of_a_plain_loop():
    random = np.random.default_rng(1)
    items = torch.from_numpy(random.integers(0, 5, (6, 11)))
    places = torch.arange(12).expand(6, -1)
    found = Lookback.of(items, places)
    for row in range(6):
        had = items[row].tolist()
        for read in range(12):
            last = {item: s for s, item in enumerate(had[:read]) if item}
            assert found.last[row, read].nonzero().flatten().tolist() == sorted(last.values())
            for item, s in last.items():
                others = sum(other > s for other in last.values())
                times = had[:read].count(item) - 1
                wanted = [others, times, read - 1 - s]
                assert [b[row, read, s].item() for b in found.bins] == count_bins(torch.tensor(wanted)).tolist()


def test_counts_are_binned_finely_where_they_are_few():
    bins = count_bins(torch.tensor([-1, 0, 5, 7, 8, 11, 12, 16, 64, 10_000])).tolist()
    assert bins[:4] == [0, 0, 5, 7] and bins == sorted(bins) and bins[-1] == 15 and len(set(bins)) == 8


def test_an_item_without_events_has_the_vector_that_its_columns_say():
    codec = CategoryCodec("kind")
    kinds = pa.array(["a", "b"] * 5)
    codec.observe(np.arange(10), kinds)
    codec.finish()
    torch.manual_seed(0)
    config = RankingConfig(BACKBONES["gru"], 8, 8, 0.0, False, None, False)
    model = RankingModel(config, [codec]).eval()
    with torch.no_grad():
        model.items.ids.weight.normal_()
    candidates = Candidates(np.ones(10, int), None, {"kind": codec.encode(kinds)})
    vectors, _ = model.all_items(candidates.known_of, 10)
    whole = model.items(torch.arange(11), candidates.known_of(np.arange(11)))[0]
    torch.testing.assert_close(vectors, whole.detach())
    # of ten items eight have vectors of their own: the others differ by their columns alone
    assert not torch.allclose(vectors[1], vectors[3]) and not torch.allclose(vectors[9], vectors[10])
    said = vectors[9] - model.items.ids.weight[0]
    torch.testing.assert_close(vectors[1] - model.items.ids.weight[1], said.detach())  # both are of kind a
    model.train()
    dropped = sum(
        not torch.equal(model.items(torch.arange(11), candidates.known_of(np.arange(11)))[0], whole) for _ in range(5)
    )
    assert dropped == 5
