"""What owners learnt apart, put together, is what all rows teach: exactly where counts and sums are, else nearly."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from tests.texts import sentences

from weft.config import TargetSettings
from weft.data_settings import FeatureSettings
from weft.features.categories import CategoryCodec
from weft.features.codecs import NumberCodec, TextCodec
from weft.features.fit import fit_apart
from weft.features.images import ImageCodec
from weft.features.targets import ClassTarget, new_target
from weft.features.tokenizer import tokenizer_of_words, train_tokenizer, words_of
from weft.preprocess.clean import CleanBatch
from weft.preprocess.pictures import TYPE


def fitted(kind, values, settings=None):
    codec = kind("x", settings)
    codec.observe(np.arange(len(values)), values)
    codec.finish()
    return codec


def merged(kind, parts, settings=None):
    first, *rest = (fitted(kind, part, settings) for part in parts)
    for other in rest:
        first.merge(other)
    return first


def test_numbers_of_unequal_owners():
    random = np.random.default_rng(0)
    parts = [random.normal(5 * k, 1 + k, size) for k, size in enumerate((8_000, 500, 2_000))]
    parts[0][:900], parts[2][:50] = 40.0, -7.0
    found, every = merged(NumberCodec, [pa.array(p) for p in parts]), np.concatenate(parts)
    assert found.mean == pytest.approx(every.mean(), rel=1e-12) and found.deviation == pytest.approx(every.std())
    assert {40.0, -7.0} <= set(found.spikes.tolist())
    edges = found.edges * found.deviation + found.mean
    assert np.all(np.diff(edges) > 0) and 17 <= len(edges) <= 33
    assert (edges[0], edges[-1]) == (pytest.approx(every.min()), pytest.approx(every.max()))
    assert np.abs(found.median - np.median(every)) < 0.6
    shares = np.searchsorted(np.sort(every), edges) / len(every)  # of the rows below each edge
    assert np.diff(shares).max() < 0.2  # no bin holds most of the rows


def test_few_distinct_numbers_are_each_an_edge_and_nobody_s_rows_change_nothing():
    found = merged(NumberCodec, [pa.array([1.0, 2, 3] * 5), pa.array([None, None], pa.float64()), pa.array([3.0, 9])])
    np.testing.assert_allclose(found.edges * found.deviation + found.mean, [1, 2, 3, 9])


def test_categories_and_pictures_are_those_of_all_rows():
    words = pa.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["b"] * 2 + ["d"])
    assert merged(CategoryCodec, [words[:6], words[6:11], words[11:]]).categories == ["b", "a", "c", "d"]
    shades = np.random.default_rng(0).integers(0, 256, (20, 5 * 7)).astype(np.uint8)
    cells = [{"height": 5 + 2 * (i > 12), "width": 7 if i <= 12 else 5, "channels": 1, "pixels": s.tobytes()}
             for i, s in enumerate(shades)]  # fmt: skip
    photos = pa.array(cells, TYPE)
    apart, whole = merged(ImageCodec, [photos[:9], photos[9:]]), fitted(ImageCodec, photos)
    assert apart.state() == whole.state()


def test_a_tokenizer_of_counted_words_is_that_of_the_texts():
    texts = [f"{a} {b}! It's {i % 7}" for i, (a, b) in enumerate(zip(sentences(200), sentences(200), strict=True))] * 2
    for lowercase in (True, False):
        counts = words_of(texts, lowercase)
        assert tokenizer_of_words(counts, 400, lowercase).to_str() == train_tokenizer(texts, 400, lowercase).to_str()
    assert words_of(["one rare rare", "one more"], True) == {"Ġone": 2}


def test_owners_learn_texts_and_classes_apart():
    """Of n-grams those leave an owner that two of its texts hold; a class may be one owner's alone."""
    owners = [["good dress", "good dress", "secret"], ["good coat", "bad coat", "secret", "bad coat"]]
    classes = [["yes"] * 3, ["no"] * 4]
    batches = [CleanBatch(np.arange(len(t)), {"t": pa.array(t), "y": pa.array(c)}, [])
               for t, c in zip(owners, classes, strict=True)]  # fmt: skip
    codecs, target = [TextCodec("t", FeatureSettings(type="text"))], new_target("class", TargetSettings(column="y"))
    tokenizer = fit_apart(codecs, target, [lambda names, b=b: [b] for b in batches])
    assert isinstance(target, ClassTarget) and (target.classes, target.counts) == (["no", "yes"], [4, 3])
    assert "Ġsecret" not in tokenizer.get_vocab() and "Ġgood" in tokenizer.get_vocab()
    wanted, size = Counter(), tokenizer.get_vocab_size() + 1
    for texts in owners:
        held = Counter()
        for text in texts:
            ids = [i + 1 for i in tokenizer.encode(text, add_special_tokens=False).ids]
            held.update({*ids, *(a * size + b for a, b in pairwise(ids))})
        wanted.update({gram: n for gram, n in held.items() if n > 1})
    assert dict(zip(codecs[0].grams.tolist(), codecs[0].documents.tolist(), strict=True)) == dict(wanted)
    assert codecs[0].texts == 7
