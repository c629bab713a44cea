"""Changed texts: words by the share that was asked, in any script; the same for the same seed, epoch and row."""

import difflib

import numpy as np
import pyarrow as pa
import pytest
from tests.features.test_codecs import fitted

from weft.features.augment import WORD, Augmenter, hide_spans, mistyped, reworded
from weft.features.codecs import Ragged
from weft.features.columns import Columns
from weft.features.targets import ClassTarget
from weft.preprocess.clean import Cleaner
from weft.preprocess.ingest import CleanRows
from weft.training_settings import AugmentSettings

ENGLISH = " ".join(f"word{i}x" for i in range(200))
CHINESE = "".join(chr(0x4E00 + i) for i in range(200))
TEXTS = pa.array(["the blue shirt fits well", None, "很舒服的衣服，喜欢", "", "size", "it came late  and torn"] * 4)


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_the_share_of_words_asked_is_left_out_and_the_order_of_the_others_stays(text):
    words = WORD.findall(text)
    assert len(words) == 200
    kept = [WORD.findall(reworded(text, AugmentSettings(delete=0.3), random(s))) for s in range(40)]
    assert np.mean([len(k) for k in kept]) == pytest.approx(140, abs=3)
    assert all(k == [w for w in words if w in set(k)] for k in kept)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_swapped_words_are_all_still_there_near_their_place(text):
    words = WORD.findall(text)
    changed = reworded(text, AugmentSettings(swap=0.2), random())
    found = WORD.findall(changed)
    assert sorted(found) == sorted(words)
    moved = np.mean([a != b for a, b in zip(words, found, strict=True)])
    assert 0.25 < moved < 0.45  # a swap moves two
    assert [len(g) for g in WORD.split(changed)] == [len(g) for g in WORD.split(text)]


def test_a_typo_is_one_slip_in_the_word():
    for seed in range(200):
        slip = mistyped("fabric", random(seed))
        same = difflib.SequenceMatcher(None, "fabric", slip).ratio()
        assert abs(len(slip) - 6) <= 1 and same > 0.7
    assert len({mistyped("fabric", random(s)) for s in range(200)}) > 15
    assert mistyped("衣", random()) == "衣衣"
    changed = reworded(ENGLISH, AugmentSettings(typo=0.3), random()).split()
    assert 0.2 < np.mean([a != b for a, b in zip(ENGLISH.split(), changed, strict=True)]) < 0.4


@pytest.mark.parametrize("text", ["", " ", "!", "一", "a", "  a  b ", "🙂🙂", "a\u0301\n\tb"])
def test_no_text_becomes_empty_or_fails(text):
    for seed in range(20):
        changed = reworded(text, AugmentSettings(delete=0.9, swap=0.9, typo=0.9), random(seed))
        assert bool(changed.strip()) == bool(text.strip())


def test_tokens_are_hidden_in_spans_by_the_share_asked():
    tokens = Ragged(np.arange(10, 10 + 90_000, dtype=np.int32), np.arange(0, 90_001, 30))
    hidden = hide_spans(tokens, 0.2, 1, [random(i) for i in range(3_000)])
    here = (hidden.values == 1).reshape(3_000, 30)
    np.testing.assert_allclose(here.mean(axis=0), 0.2, atol=0.03)  # at the ends too
    assert here.mean() == pytest.approx(0.2, abs=0.005)
    after = here[:, 1:][here[:, :-1]].mean()
    assert after > 0.65  # alone, the next would be hidden in 0.2 of the cases
    assert np.array_equal(hidden.values[~here.ravel()], tokens.values[~here.ravel()]) and tokens.values[0] == 10


@pytest.fixture
def clean(tmp_path):
    table = pa.table({"": pa.array(range(24)), "column": TEXTS})
    with pa.OSFile(str(tmp_path / "clean.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return CleanRows(tmp_path / "clean.arrow", np.zeros(24, np.uint8))


def test_a_row_is_changed_by_seed_epoch_and_row_alone(clean):
    codec = fitted("text", TEXTS)
    columns = Columns(Cleaner({}), [codec], ClassTarget("y", ["a", "b"]), codec.tokenizer)
    settings = AugmentSettings(delete=0.3, swap=0.3, typo=0.3, mask=0.2)
    rows = np.arange(24)

    def texts(seed=1, rows=rows, epoch=0):
        made = Augmenter(settings, clean, columns, seed)({"column": {}, "y": {"value": rows}}, rows, epoch)
        assert made["y"]["value"] is rows
        return dict(zip(rows.tolist(), codec.decode(made["column"]), strict=True)), made["column"]

    first, codes = texts()
    assert texts()[0] == first
    assert texts(rows=rows[::-1].copy())[0] == first and texts(rows=rows[5:6])[0][5] == first[5]
    assert texts(epoch=1)[0] != first and texts(seed=2)[0] != first
    assert len({first[i] for i in range(0, 24, 6)}) > 1  # the same words in another row are changed otherwise
    assert all(first[i] is None for i in (1, 3, 7, 9))  # missing and empty texts stay so
    # the bag of the linear path is that of the changed text
    plain = codec.encode(TEXTS)
    assert not np.array_equal(codes["gram"].values, plain["gram"].values)
