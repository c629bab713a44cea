"""Codes on disk give back any rows; batches visit each row once."""

import numpy as np
import pytest

from weft.features.batching import ROUNDS, collate, in_turn, permuted, shuffled
from weft.features.codecs import Ragged
from weft.features.store import TARGET, StoreWriter, lengths

RANDOM = np.random.default_rng(1)
LENGTHS = RANDOM.integers(0, 9, 100)


@pytest.fixture
def store(tmp_path):
    writer = StoreWriter(tmp_path / "store")
    for start in range(0, 100, 30):
        part = LENGTHS[start : start + 30]
        offsets = np.concatenate([[0], part.cumsum()])
        tokens = np.concatenate([np.full(n, start + i, np.int32) for i, n in enumerate(part)])
        rows = np.arange(start, start + len(part))
        codes = {
            "x": {"value": rows.astype(np.float32)},
            "t": {"tokens": Ragged(tokens, offsets)},
            TARGET: {"value": rows * 2},
        }
        writer.append(codes, len(part))
    return writer.close()


def test_takes_any_rows_in_any_order(store):
    rows = np.array([99, 0, 31, 30, 31])
    codes = store.take(rows)
    assert codes["x"]["value"].tolist() == rows.tolist()
    assert codes["t"]["tokens"].values.tolist() == [r for r in rows for _ in range(LENGTHS[r])]
    assert store.target(rows).tolist() == (rows * 2).tolist()


def test_lengths_count_tokens_only(store):
    np.testing.assert_array_equal(store.lengths()[np.array([99, 3, 0])], LENGTHS[[99, 3, 0]])
    assert lengths({"x": {"value": np.zeros(3)}}) is None


def test_a_batch_is_padded_and_knows_its_target(store):
    rows = np.array([5, 7, 50])
    batch = collate(store.take(rows), 3)
    tokens = batch.columns["t"]["tokens"]
    assert tokens.shape == (3, max(1, LENGTHS[rows].max()))
    assert (tokens >= 0).sum(1).tolist() == LENGTHS[rows].tolist()
    assert batch.target.tolist() == [10, 14, 100] and TARGET not in batch.columns


@pytest.mark.parametrize("by_length", [False, True])
def test_an_epoch_visits_each_row_once_in_an_order_of_its_own(by_length):
    rows = np.arange(0, 200, 2)
    sizes = np.repeat(RANDOM.integers(1, 50, 100), 2) if by_length else None
    epochs = [list(shuffled(rows, sizes, 8, seed=3, epoch=e)) for e in (0, 0, 1)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
        assert [len(b) for b in batches if len(b) != 8] in ([], [4])
    same, other = np.concatenate(epochs[1]), np.concatenate(epochs[2])
    assert np.concatenate(epochs[0]).tolist() == same.tolist() != other.tolist()


def test_rows_of_like_length_share_a_batch():
    rows, sizes = np.arange(256), RANDOM.integers(1, 100, 256)
    spread = [np.ptp(sizes[b]) for b in shuffled(rows, sizes, 8, 0, 0)]
    assert np.mean(spread) < 10  # at random it would be about 80


def test_reading_keeps_to_the_token_budget():
    rows, sizes = np.arange(100), RANDOM.integers(1, 60, 100)
    batches = list(in_turn(rows, sizes, budget=200, fixed=4))
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    assert all(len(b) * (sizes[b].max() + 4) <= 200 or len(b) == 1 for b in batches)


@pytest.mark.parametrize("count", [1, 2, 5, 64, 1_000, 4_097])
def test_a_permutation_holds_each_place_once_and_any_part_of_it_is_found_alone(count):
    keys = np.random.default_rng(0).integers(0, 1 << 63, ROUNDS, np.uint64)
    found = permuted(np.arange(count), count, keys)
    assert sorted(found.tolist()) == list(range(count))
    some = np.arange(count)[count // 3 : count // 2]
    assert permuted(some, count, keys).tolist() == found[some].tolist()


def test_permutations_are_as_good_as_drawn():
    """Every thing comes to every place equally often (chi-square), and neighbours do not stay together."""
    draws = np.random.default_rng(0)
    seen = np.zeros((12, 12))
    for _ in range(6_000):
        keys = draws.integers(0, 1 << 63, ROUNDS, np.uint64)
        seen[np.arange(12), permuted(np.arange(12), 12, keys)] += 1
    assert ((seen - 500) ** 2 / 500).sum() < 180  # 121 degrees of freedom: mean 121, deviation 16
    long = permuted(np.arange(100_000), 100_000, keys)
    assert (
        abs(np.corrcoef(long[:-1], long[1:])[0, 1]) < 0.015 and abs(np.corrcoef(np.arange(100_000), long)[0, 1]) < 0.015
    )


@pytest.mark.parametrize("by_length", [False, True])
def test_an_epoch_goes_on_from_any_batch(by_length):
    rows, sizes = np.arange(1_000), RANDOM.integers(1, 50, 1_000) if by_length else None
    whole = list(shuffled(rows, sizes, 8, 3, 1))
    for first in (1, 31, 32, 33, 100, 124):
        assert [b.tolist() for b in shuffled(rows, sizes, 8, 3, 1, first)] == [b.tolist() for b in whole[first:]]
