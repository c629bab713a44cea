"""Copies: what fingerprints and shingles are, that near copies are found and nothing else, and which row stays."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from weft.config import from_mapping
from weft.data.plan import look
from weft.data.split import NAMES, TEST, TRAIN
from weft.data.table import Table
from weft.data.task_plans import look_texts
from weft.errors import SettingsError
from weft.preprocess import buckets, duplicates, minhash
from weft.preprocess.buckets import Buckets
from weft.preprocess.fingerprints import fingerprints, row_fingerprints, shingles
from weft.preprocess.ingest import COPY, NOT_USED, ingest, make_cleaner
from weft.progress import Silent

REVIEWS = Path("../shared/data/clothing_reviews.parquet")
CELLS = [
    pa.array(["", "a", "b", "ab", "a\0", "\0a", "12345678", "123456789", "12345678\0", None, "中文", "a" * 300]),
    pa.array([0.0, 1.0, -1.0, 1e-300, float("inf"), None]),
    pa.array([0, 1, -1, 2**60, None]), pa.array([True, False, None]),
    pa.array([[], ["a"], ["a", "b"], ["b", "a"], ["ab"], ["a", ""], ["", "a"], [None], None], pa.list_(pa.string())),
    pa.array([{"p": b"ab", "q": 1}, {"p": b"a", "q": 1}, {"p": b"ab", "q": 2}, None],
             pa.struct([("p", pa.large_binary()), ("q", pa.uint8())])),
]  # fmt: skip


def keys(array: pa.Array) -> list[tuple[int, ...]]:
    return [tuple(row) for row in fingerprints(array).tolist()]


@pytest.mark.parametrize("cells", CELLS, ids=lambda a: str(a.type)[:12])
def test_cells_have_one_fingerprint_where_they_are_equal_and_only_there(cells: pa.Array) -> None:
    found = keys(cells)
    assert len(set(found)) == len(cells)
    again = cells.take(pa.array([*range(len(cells) - 1, -1, -1), 0, 0]))
    assert keys(again) == [*found[::-1], found[0], found[0]]
    assert keys(cells.slice(1)) == found[1:] and keys(cells.slice(0, 0)) == []
    assert keys(pa.array([-0.0, 0.0]))[0] == keys(pa.array([0.0]))[0]


def test_rows_that_say_the_same_in_other_columns_are_not_equal() -> None:
    one = row_fingerprints({"a": pa.array(["x", "", None]), "b": pa.array(["", "x", "x"])}, 3)
    assert len({tuple(row) for row in one.tolist()}) == 3
    assert (row_fingerprints({"b": pa.array([""]), "a": pa.array(["x"])}, 1)[0] == one[0]).all()


def plainly(text: str | None) -> bytes:
    return re.sub(rb"[^0-9a-z\x80-\xff]", b"", (text or "").lower().encode())


def sets(texts: list[str | None]) -> list[set[int]]:
    """Shingles as the documentation says, one by one."""
    found = []
    for said in map(plainly, texts):
        pieces = [said[i : i + 5] for i in range(max(1, len(said) - 4))] if said else []
        found.append({int.from_bytes(piece, "little") for piece in pieces})
    return found


def test_shingles_and_their_overlap_are_those_of_sets() -> None:
    random = np.random.default_rng(0)
    letters = list("abcABC ,.!0éЖ中文，。\0")
    texts = ["".join(random.choice(letters, n)) for n in random.integers(0, 40, 300)]
    texts[3:9] = ["", "a", "!!", None, "ab c", "中"]
    array = pa.concat_arrays([pa.array(["before"]), pa.array(texts, pa.string())]).slice(1)
    values, counts = shingles(array)
    ends = np.cumsum(counts)
    wanted = sets(texts)
    assert [set(p.tolist()) for p in np.split(values, ends[:-1])] == wanted
    first, second = random.integers(0, 300, (2, 2_000))
    both, either = duplicates.jaccard(values, counts, first, second)
    assert both.tolist() == [len(wanted[a] & wanted[b]) for a, b in zip(first, second, strict=True)]
    assert either.tolist() == [len(wanted[a] | wanted[b]) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("size", [10, 50, 400])
@pytest.mark.parametrize("share", [0.8, 0.4])
def test_candidates_are_as_many_as_the_theory_says(size: int, share: float) -> None:
    """Of sets of any size 1 - (1 - s^8)^24 of the pairs are proposed, within four standard errors."""
    random, pairs = np.random.default_rng(size), 3_000
    shared = round(size * share)
    own = (size - shared) // 2
    elements = random.integers(0, 1 << 40, (pairs, shared + 2 * own), dtype=np.uint64)
    sides = elements[:, : shared + own], np.concatenate([elements[:, :shared], elements[:, shared + own :]], axis=1)
    owner = np.repeat(np.arange(pairs), shared + own)
    one, other = (minhash.bands(side.ravel(), owner, pairs) for side in sides)
    likeness = shared / (shared + 2 * own)
    wanted = 1 - (1 - likeness**minhash.ROWS) ** minhash.BANDS
    found = (one == other).any(axis=1).mean()
    # a set of ten has few minima to differ in: its bands hang together a little
    assert abs(found - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / pairs) + 0.03 * (size == 10)


def take_in(table: Any, folder: Path, **settings: Any) -> tuple[Any, np.ndarray, dict[str, Any], list[dict[str, Any]]]:
    chosen = from_mapping({"target": "y", **settings})
    source = Table.of(table)
    plan = look(chosen, source) if chosen.target.task == "row" else look_texts(chosen, source)
    clean, parts, found = ingest(
        chosen, plan, source, make_cleaner(chosen, plan), folder / "clean.arrow", folder / "r.parquet", Silent()
    )
    file = folder / "duplicates.parquet"
    rows = pq.read_table(file).to_pylist() if file.exists() else []
    assert found.read == len(parts) == (parts < 3).sum() + found.rejected + found.copies["left_out"]
    assert len(rows) == found.copies["left_out"] == (parts == COPY).sum()
    assert found.rejected == (parts == NOT_USED).sum() and (parts[[r["row"] for r in rows]] == COPY).all()
    assert all(parts[r["duplicate_of"]] < 3 for r in rows)  # the kept row is kept
    assert all(r["reason"] == f"duplicate of row {r['duplicate_of']}" for r in rows)
    return clean, parts, found.copies, rows


def changed(text: str, random: np.random.Generator, edits: int) -> str:
    words = text.split(" ")
    for place in random.integers(0, len(words), edits):
        words[place] = random.choice(["really", "blue", words[place].upper() + "!", words[place][::-1], ""])
    return " ".join(words)


@pytest.mark.skipif(not REVIEWS.exists(), reason="the shared data are not here")
def test_of_real_texts_all_near_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Beside all pairs by scikit-learn: what is left out is like a row that stays, and of those that stay hardly any
    are alike. Half of the rows are planted copies with words changed."""
    random = np.random.default_rng(0)
    texts = pq.read_table(REVIEWS, columns=["review_text"]).column(0).drop_null().to_pylist()
    own = [t for t in dict.fromkeys(texts) if len(t) > 100 and t.isascii()][:700]
    texts = own + [changed(t, random, int(random.integers(0, 12))) for t in own]
    order = random.permutation(len(texts))
    texts = [texts[i] for i in order]
    _, parts, facts, rows = take_in(
        {"t": texts}, tmp_path, target={"next_token": "t"}, preprocess={"duplicates": "near"}
    )
    counts = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True).fit_transform(
        [plainly(t).decode() for t in texts]
    )
    shared = (counts @ counts.T).toarray()
    sizes = shared.diagonal()
    alike = shared / (sizes[:, None] + sizes - shared)
    np.fill_diagonal(alike, 0)
    kept = parts < 3
    for row in rows:
        assert row["similarity"] == pytest.approx(
            1 if row["similarity"] == 1 else alike[row["row"], row["duplicate_of"]]
        )
        assert alike[row["row"], row["duplicate_of"]] >= 0.8
        assert row["duplicate_of"] < row["row"]  # all are learnt from alike as long as nothing is split
    missed = (alike[np.ix_(kept, kept)] >= 0.8).any(axis=1).sum()
    assert facts["left_out"] > 300 and 0 < facts["near"] <= facts["left_out"]
    assert missed <= 0.02 * facts["left_out"]


def text(number: int, change: int = 0) -> str:
    """A text of its own for each number, with some words of its end changed."""
    random = np.random.default_rng(number)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 6)) for _ in range(40)]
    return " ".join([*words[: 40 - change], *(w[::-1] for w in words[40 - change :])])


def rows_of(count: int, **odd: dict[str, Any]) -> dict[str, list[Any]]:
    """Rows without copies; ``odd`` changes cells of some (``r5={"t": ...}``)."""
    table: dict[str, list[Any]] = {
        "t": [text(i) for i in range(count)], "x": [i / 3 for i in range(count)],
        "c": [f"w{i % 4}" for i in range(count)], "y": ["yes" if i % 2 else "no" for i in range(count)],
    }  # fmt: skip
    for key, cells in odd.items():
        for name, value in cells.items():
            if name not in table:
                table[name] = [f"what is the name of {text(100 + i)[:12]}" for i in range(count)]
            table[name][int(key[1:])] = value
    return table


COPIED = {"x": 1.0, "c": "w3"}


@pytest.mark.parametrize("way", ["off", "exact", "near"])
def test_which_rows_are_copies_and_of_what(tmp_path: Path, way: str) -> None:
    table = rows_of(
        80, r3=COPIED, r10={"t": text(3), "y": "yes", **COPIED}, r21={"t": f" {text(3)} ", "y": "no", **COPIED},
        r30={"t": text(3, 2), "y": "yes", **COPIED}, r33={"t": text(3, 2), "y": "yes", **COPIED},
        r34={"t": text(3, 2), "y": "no", **COPIED},  # like row 3, but with the answer of row 21
        r40={"t": text(40, 0)}, r41={"t": text(40, 0), "y": "no", "c": "w0"},  # x is another
        r50={"t": text(3, 20), "y": "yes", **COPIED},
    )  # fmt: skip
    _, parts, facts, rows = take_in(table, tmp_path, preprocess={"duplicates": way})
    found = {r["row"]: r["duplicate_of"] for r in rows}
    near = {30: 3, 33: 3, 34: 21, 41: 40} if way == "near" else {33: 30}
    assert found == ({} if way == "off" else {10: 3, **near})
    assert facts["rows"] == (5 if way == "near" else 2) and facts["near"] == (4 if way == "near" else 0)
    assert facts["differing"] == 6  # rows 3 and 10 against 21, 30 and 33 against 34
    assert [3, 21] in facts["differing_examples"] and parts[21] < 3


def test_of_a_chain_of_changes_each_row_that_is_left_out_is_like_one_that_stays(tmp_path: Path) -> None:
    chain = rows_of(60, **{f"r{i}": {"t": text(3, 2 * i), "y": "yes", **COPIED} for i in range(12)})
    _, _, _, rows = take_in(chain, tmp_path, preprocess={"duplicates": "near"})
    left = {r["row"]: r["duplicate_of"] for r in rows}
    wanted: dict[int, int] = {}
    shingled = sets(chain["t"][:12])
    for row in range(12):
        for first in range(row):
            share = len(shingled[row] & shingled[first]) / len(shingled[row] | shingled[first])
            if first not in wanted and share >= 0.8:
                wanted[row] = first
                break
    assert left.keys() == wanted.keys() and 3 < len(left) < 11
    for row, first in left.items():
        assert len(shingled[row] & shingled[first]) >= 0.8 * len(shingled[row] | shingled[first]) and first not in left


def test_a_column_that_differs_is_not_hidden_by_a_long_one_that_does_not(tmp_path: Path) -> None:
    """Two questions about one text are two rows; so are two short texts with other numbers."""
    table = rows_of(60, r7={"t": text(6), "q": "where was he born"}, r9={"t": text(8)})
    table["q"][9] = table["q"][8] + "?"
    settings = {"features": {"q": "text", "t": "text", "x": "off", "c": "off"}, "preprocess": {"duplicates": "near"}}
    table["y"] = ["no"] * 30 + ["yes"] * 30
    assert {r["row"]: r["duplicate_of"] for r in take_in(table, tmp_path, **settings)[3]} == {9: 8}


def test_the_row_that_is_learnt_from_stays_and_its_copies_are_not_judged(tmp_path: Path) -> None:
    table = rows_of(
        60, r3=COPIED, r50={"t": text(3), "y": "yes", **COPIED}, r20={"t": text(10), "x": 10 / 3, "c": "w2"}
    )
    table["s"] = [("test", "train", "valid")[i % 3] for i in range(60)]
    table["s"][3], table["s"][50], table["s"][10], table["s"][20] = "test", "train", "valid", "train"
    split = {"split": {"column": "s"}}
    (tmp_path / "off").mkdir()
    _, parts, facts, _ = take_in(table, tmp_path / "off", data=split)
    assert (facts["in_test"], facts["in_valid"], facts["rows"]) == (1, 1, 2)
    assert [NAMES[p] for p in parts[[3, 10, 20, 50]]] == ["test", "valid", "train", "train"]
    _, parts, facts, rows = take_in(table, tmp_path, data=split, preprocess={"duplicates": "exact"})
    assert {r["row"]: r["duplicate_of"] for r in rows} == {3: 50, 10: 20}
    assert (facts["in_test"], facts["in_valid"]) == (1, 1) and parts[50] == TRAIN and parts[3] == COPY


@pytest.mark.parametrize("split", [{}, {"by": "g"}, {"time": "x"}, {"test": 0.3}])
def test_the_split_is_that_of_the_rows_that_stay(tmp_path: Path, split: dict[str, Any]) -> None:
    once = rows_of(120)
    once["g"] = [f"of {i % 40}" for i in range(120)]
    twice = {name: [*cells, *cells[:60]] for name, cells in once.items()}
    settings = {"data": {"split": split}}
    (tmp_path / "once").mkdir()
    _, parts, _, _ = take_in(once, tmp_path / "once", **settings)
    _, found, facts, _ = take_in(twice, tmp_path, preprocess={"duplicates": "exact"}, **settings)
    assert (found[:120] == parts).all() and (found[120:] == COPY).all() and facts["left_out"] == 60
    assert (found == TEST).any()


def test_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows_of(300, **{f"r{i}": {"t": text(i // 2, i % 3), "x": 0.0, "c": "w1", "y": "no"} for i in range(200)})
    found = []
    for held in (buckets.HELD, 60_000):
        monkeypatch.setattr(buckets, "HELD", held)
        folder = tmp_path / str(held)
        folder.mkdir()
        found.append(take_in(table, folder, preprocess={"duplicates": "near"})[2:])
        assert {p.name for p in folder.rglob("*")} <= {"clean.arrow", "duplicates.parquet", "clean.copies"}
    assert found[0] == found[1] and found[0][0]["left_out"] > 90


def test_records_of_one_key_are_met_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "HELD", 4_000)
    kept = Buckets(tmp_path / "b", np.dtype([("key", "<u8"), ("n", "<i4")]))
    values = np.random.default_rng(0).integers(0, 1 << 63, 500, dtype=np.uint64)
    for number in range(6):
        kept.add(key=values, n=number)
    met = list(itertools.chain(kept))
    owner = [{int(k) for k in records["key"]} for records in met]
    assert sum(map(len, met)) == 3_000 and sum(map(len, owner)) == len(set(values.tolist()))
    assert all((np.unique(r["key"], return_counts=True)[1] == 6).all() for r in met) and not (tmp_path / "b").exists()


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(SettingsError, match="near compares texts"):
        take_in({"x": [1.5, 2.5, 3.5, 4.5] * 9, "y": ["a", "b"] * 18}, Path(), preprocess={"duplicates": "near"})
    with pytest.raises(SettingsError, match="counts once as it is"):
        from_mapping({"target": {"column": "i", "type": "ranking"}, "preprocess": {"duplicates": "exact"}})
