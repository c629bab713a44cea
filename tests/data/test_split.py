"""Splits: the same rows on every run, whatever the batch size, and the shares that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from weft.data.split import TEST, TRAIN, VALID, Splitter, uniform
from weft.data_settings import SplitSettings
from weft.errors import DataError


def split(
    rows: int | np.ndarray,
    settings: dict[str, Any] | None = None,
    target: list | None = None,
    column: list | None = None,
    batch: int = 10**9,
    seed: int = 0,
) -> np.ndarray:
    numbers = np.arange(rows) if isinstance(rows, int) else rows
    splitter = Splitter(
        SplitSettings(**{"test": 0.15, "valid": 0.1, **(settings or {})}), seed, stratify=target is not None
    )
    for start in range(0, len(numbers), batch):
        piece = slice(start, start + batch)
        splitter.observe(
            numbers[piece],
            None if target is None else pa.array(target[piece]),
            None if column is None else pa.array(column[piece]),
        )
    return splitter.assign()


CLASSES = ["rare" if i % 50 == 0 else "odd" if i % 3 else "even" for i in range(1_000)]
CASES = [
    ({}, None, None),
    ({}, CLASSES, None),
    ({"by": "c"}, None, [f"customer {i % 97}" for i in range(1_000)]),
    ({"time": "t"}, CLASSES, [float((i * 37) % 1_000) for i in range(1_000)]),
    ({"column": "s"}, CLASSES, ["test" if i % 5 == 0 else "train" for i in range(1_000)]),
]


@pytest.mark.parametrize(("settings", "target", "column"), CASES)
def test_the_same_rows_whatever_the_batch_size(settings: dict, target: list | None, column: list | None) -> None:
    whole = split(1_000, settings, target, column)
    for batch in (1, 7, 333):
        assert (split(1_000, settings, target, column, batch) == whole).all()
    if not settings.get("time"):
        assert (split(1_000, settings, target, column, seed=1) != whole).any()


def test_the_rows_are_those_of_the_day_this_was_written() -> None:
    assert np.flatnonzero(split(40) == TEST).tolist() == [3, 10, 18, 20, 21, 33]
    assert np.flatnonzero(split(40) == VALID).tolist() == [5, 11, 16, 35]
    assert uniform(0, np.arange(3)).round(6).tolist() == [0.883311, 0.566562, 0.59119]


def test_random_shares_are_exact_to_one_row() -> None:
    for rows in (20, 37, 1_000, 1_003):
        counts = np.bincount(split(rows), minlength=3)
        assert abs(counts[TEST] - 0.15 * rows) <= 1 and abs(counts[VALID] - 0.1 * rows) <= 1 and counts.sum() == rows
    assert (split(100, {"test": 0.0}) == TEST).sum() == 0


def test_stratified_shares_are_exact_to_one_row_in_each_class() -> None:
    parts, names = split(1_000, {}, CLASSES), np.array(CLASSES)
    for name in ("rare", "odd", "even"):
        size = (names == name).sum()
        for part, share in ((TEST, 0.15), (VALID, 0.1)):
            assert abs((parts[names == name] == part).sum() - share * size) <= 1.2
    assert abs((parts == TEST).sum() - 150) <= 1 and abs((parts == VALID).sum() - 100) <= 1


def test_many_small_classes_still_fill_every_part() -> None:
    parts = split(231, {}, [f"class {i % 77}" for i in range(231)])
    assert abs((parts == TEST).sum() - 0.15 * 231) <= 1 and abs((parts == VALID).sum() - 0.1 * 231) <= 1


def test_a_row_keeps_its_draw_when_others_are_set_aside() -> None:
    whole, kept = split(1_000), np.delete(np.arange(1_000), np.arange(0, 1_000, 100))
    assert (split(kept) != whole[kept]).mean() < 0.02


def test_a_group_is_never_on_two_sides() -> None:
    groups = [f"customer {i % 97}" if i % 10 else None for i in range(1_000)]
    parts = split(1_000, {"by": "c"}, CLASSES, groups)
    sides: dict[str | None, set[int]] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        sides.setdefault(group, set()).add(part)
    assert all(len(side) == 1 for side in sides.values()) and set(parts.tolist()) == {TRAIN, VALID, TEST}


def test_the_latest_are_last_and_a_missing_time_is_earliest() -> None:
    times = np.random.default_rng(0).permutation(200).astype(float)
    cells = [None if t < 5 else t for t in times]
    parts = split(200, {"time": "t"}, None, cells)
    assert times[parts == TRAIN].max() < times[parts == VALID].min()
    assert times[parts == VALID].max() < times[parts == TEST].min()
    assert np.bincount(parts).tolist() == [150, 20, 30] and (parts[times < 5] == TRAIN).all()


def test_a_column_says_it_in_its_own_words() -> None:
    words = ["Train", " training", "VAL", "validation", "dev", "valid", "eval", "test", "Testing", "holdout"]
    assert split(10, {"column": "s"}, None, words).tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2]


def test_a_column_without_valid_has_it_drawn_from_train() -> None:
    words = ["test" if i % 5 == 0 else "train" for i in range(1_000)]
    parts = split(1_000, {"column": "s"}, CLASSES, words)
    assert (parts[::5] == TEST).all() and (parts == TEST).sum() == 200
    assert abs((parts == VALID).sum() - 800 * 0.1 / 0.85) <= 1


@pytest.mark.parametrize("word", ["tset", "", None])
def test_a_column_with_another_word(word: str | None) -> None:
    with pytest.raises(DataError, match=r"'s' must say train, valid or test\. Got .* in row 12\."):
        split(np.array([3, 12]), {"column": "s"}, None, ["train", word])


@pytest.mark.parametrize(
    ("rows", "settings", "column", "empty"),
    [
        (3, {}, None, "'valid', 'test'"),
        (0, {"test": 0.0}, None, "'train', 'valid'"),
        (50, {"by": "c"}, ["one"] * 50, "Got none in"),
        (50, {"column": "s"}, ["train"] * 50, "'test'"),
        (4, {"time": "t"}, [1.0, 2.0, 3.0, 4.0], "'valid'"),
    ],
)
def test_a_part_without_rows_is_said(rows: int, settings: dict, column: list | None, empty: str) -> None:
    with pytest.raises(DataError, match=f"every part must hold rows.*{empty}"):
        split(rows, settings, None, column)


def lowest(seed: int, rows: np.ndarray, share: float, strata: np.ndarray) -> np.ndarray:
    """Places of the lowest draws of each stratum, by sorting all of them: what the splitter finds without it."""
    draw = uniform(seed, rows)
    ends = np.floor(np.cumsum(np.bincount(strata)) * share + 0.5 - 1e-9).astype(int)
    chosen = []
    for stratum, wanted in enumerate(np.diff(ends, prepend=0)):
        places = np.flatnonzero(strata == stratum)
        chosen.append(places[np.argsort(draw[places], kind="stable")[:wanted]])
    return np.sort(np.concatenate(chosen))


@pytest.mark.parametrize("classes", [1, 3, 300])
def test_the_lowest_draws_are_found_without_sorting_all(classes: int) -> None:
    random = np.random.default_rng(0)
    rows = np.sort(random.choice(400_000, 200_000, replace=False))
    strata = np.minimum(random.geometric(min(1.0, 5 / classes), len(rows)) - 1, classes - 1)
    _, strata = np.unique(strata, return_inverse=True)
    first = {name: i for i, name in enumerate(dict.fromkeys(strata.tolist()))}  # strata in the order they come in
    strata = np.array([first[s] for s in strata.tolist()])
    found = split(rows, {}, [str(s) for s in strata], batch=16_384)
    test = lowest(0, rows, 0.15, strata)
    assert np.flatnonzero(found == TEST).tolist() == test.tolist()
    rest = np.setdiff1d(np.arange(len(rows)), test)
    assert np.flatnonzero(found == VALID).tolist() == rest[lowest(0, rows[rest], 0.1 / 0.85, strata[rest])].tolist()


def test_of_one_time_the_last_rows_are_the_latest() -> None:
    times = np.random.default_rng(0).integers(0, 20, 1_000).astype(float)
    found = split(1_000, {"time": "t"}, column=times.tolist(), batch=77)
    order = np.argsort(times, kind="stable")
    assert (
        (found[order[850:]] == TEST).all() and (found[order[750:850]] == VALID).all() and (found == TRAIN).sum() == 750
    )
