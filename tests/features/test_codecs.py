"""Every column type passes the same suite: round trip, saving, missing values, values never seen, batches."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest

from weft.data.histories import HISTORY
from weft.data_settings import FeatureSettings
from weft.features.codecs import CODECS, Ragged, TextCodec
from weft.features.targets import ClassTarget, NumberTarget
from weft.features.tokenizer import train_tokenizer
from weft.preprocess import pictures

RANDOM = np.random.default_rng(0)
WORDS = ["blue", "shirt", "fits", "很", "舒服", "returning", "size", "naïve", "🙂"]
PICTURES = RANDOM.integers(0, 256, (200, 9, 9), dtype=np.uint8)


def clean_pictures(arrays):
    """As the cleaner gives them; None is no picture."""
    return pa.array(
        [None if a is None else {"height": len(a), "width": a.shape[1], "channels": a[0, 0].size,
                                 "pixels": a.tobytes()} for a in arrays],
        pictures.TYPE,
    )  # fmt: skip


VALUES = {
    "number": pa.array([1.5, None, -3.25, 1e6, 0.0] * 40, pa.float64()),
    "category": pa.array(["red", "green", None, "蓝", "red"] * 40, pa.string()),
    "time": pa.array([0.0, 1_700_000_000.0, None, -86_400.0, 4_102_444_800.0] * 40, pa.float64()),
    "sequence": pa.array(
        [
            None
            if i % 9 == 4
            else [{"item": f"i{(i * k) % 13}", "time": 60.0 * k * k, "rating": k % 5 or None} for k in range(i % 6)]
            for i in range(200)
        ],
        HISTORY,
    ),
    "text": pa.array(
        [None if i % 7 == 3 else " ".join(RANDOM.choice(WORDS, 1 + i % 9)) for i in range(200)], pa.string()
    ),
    "image": clean_pictures([None if i % 7 == 3 else p for i, p in enumerate(PICTURES)]),
}
NEVER_SEEN = {
    "number": pa.array([1e30, -1e30], pa.float64()),
    "category": pa.array(["purple", "Red"], pa.string()),
    "time": pa.array([9e9, -9e9], pa.float64()),
    "sequence": pa.array([[{"item": "new", "time": -1e9, "rating": 1e9}], []], HISTORY),
    "text": pa.array(["Ωmega 谢谢 \x00<pad>", ""], pa.string()),
    "image": clean_pictures([np.full((40, 3), 7, np.uint8), np.zeros((2, 5, 3), np.uint8)]),
}


def fitted(kind, values=None, settings=None):
    values = VALUES[kind] if values is None else values
    codec = CODECS[kind]("column", settings)
    if isinstance(codec, TextCodec):
        codec.tokenizer = train_tokenizer(values.drop_null().to_pylist(), 400)
        codec.observe(np.arange(len(values)), values)
        codec.count(values)
    else:
        codec.observe(np.arange(len(values)), values)
    codec.finish()
    return codec


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        x, y = a[name], b[name]
        if isinstance(x, Ragged):
            np.testing.assert_array_equal(x.offsets, y.offsets)
            x, y = x.values, y.values
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def joined(parts):
    out = {}
    for name in parts[0]:
        first = parts[0][name]
        if isinstance(first, Ragged):
            lengths = np.concatenate([p[name].lengths() for p in parts])
            out[name] = Ragged(np.concatenate([p[name].values for p in parts]), np.concatenate([[0], lengths.cumsum()]))
        else:
            out[name] = np.concatenate([p[name] for p in parts])
    return out


@pytest.mark.parametrize("kind", CODECS)
class TestEveryCodec:
    def test_declares_the_fields_it_encodes(self, kind):
        codes = fitted(kind).encode(VALUES[kind])
        assert {
            name: (array.values if isinstance(array, Ragged) else array).dtype for name, array in codes.items()
        } == {name: np.dtype(dtype) for name, dtype in CODECS[kind].fields.items()}

    def test_decodes_what_it_encoded(self, kind):
        codec = fitted(kind)
        back = codec.decode(codec.encode(VALUES[kind]))
        for place, (got, value) in enumerate(zip(back, VALUES[kind].to_pylist(), strict=True)):
            if kind == "image" and value is not None:
                np.testing.assert_array_equal(got, PICTURES[place])
            elif kind == "number" and value is not None:
                assert got == pytest.approx(value, rel=1e-5, abs=0.1)  # float32 of a deviation of 4e5
            elif kind == "sequence":
                assert (got or []) == [event["item"] for event in value or ()]
            else:
                assert got == value

    def test_is_the_same_after_saving_as_json(self, kind):
        codec = fitted(kind)
        again = CODECS[kind]("column", None)
        again.restore(json.loads(json.dumps(codec.state())))
        if isinstance(codec, TextCodec):
            again.tokenizer = codec.tokenizer
        same(codec.encode(VALUES[kind]), again.encode(VALUES[kind]))

    def test_does_not_depend_on_the_batches(self, kind):
        whole, values = fitted(kind), VALUES[kind]
        parts = [values.slice(i, 33) for i in range(0, len(values), 33)]
        other = CODECS[kind]("column", None)
        if isinstance(other, TextCodec):
            other.tokenizer = whole.tokenizer
        for start, part in zip(range(0, 200, 33), parts, strict=True):
            other.observe(np.arange(start, start + len(part)), part)
            if isinstance(other, TextCodec):
                other.count(part)
        other.finish()
        a, b = whole.encode(values), joined([other.encode(p) for p in parts])
        for name in a:
            x, y = (c[name].values if isinstance(c[name], Ragged) else c[name] for c in (a, b))
            np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=1e-5)

    def test_encodes_values_never_seen(self, kind):
        codes = fitted(kind).encode(NEVER_SEEN[kind])
        for array in codes.values():
            values = array.values if isinstance(array, Ragged) else array
            assert np.isfinite(values.astype(float)).all()

    def test_encodes_all_missing_and_no_rows(self, kind):
        codec = fitted(kind)
        none = codec.encode(pa.nulls(3, VALUES[kind].type))
        assert codec.decode(none) == [None, None, None]
        assert codec.decode(codec.encode(VALUES[kind].slice(0, 0))) == []

    def test_fits_a_column_without_a_value(self, kind):
        values = pa.nulls(30, VALUES[kind].type)
        codec = fitted(kind, values)
        assert codec.decode(codec.encode(values)) == [None] * 30


@pytest.mark.parametrize("kind", CODECS)
def test_batches_seen_apart_and_joined_are_to_the_bit_a_stream_of_them(kind):
    """Of a sample smaller than the rows too, and whatever came first."""
    values, rows = VALUES[kind], np.arange(len(VALUES[kind]))
    stream, apart = (CODECS[kind](kind) for _ in range(2))
    for codec in (stream, apart):
        for sampler in (getattr(codec, "_sampler", None), getattr(codec, "_lengths", None)):
            if sampler is not None:
                sampler.size = 70
    for start in range(0, len(values), 33):
        piece = slice(start, start + 33)
        stream.observe(rows[piece], values[piece])
        alone = CODECS[kind](kind)
        alone.observe(rows[piece], values[piece])
        apart.join(alone)
    for codec in (stream, apart):
        if isinstance(codec, TextCodec):
            codec.tokenizer = train_tokenizer(WORDS, lowercase=True)
        codec.finish()
    assert json.dumps(apart.state()) == json.dumps(stream.state())
    if kind == "text":
        assert np.array_equal(apart.lengths, stream.lengths)


def test_number_bins_hold_rows_and_values_alike():
    values = np.concatenate([np.zeros(5_000), RANDOM.lognormal(0, 2, 1_000)])
    codec = fitted("number", pa.array(values))
    edges = codec.edges * codec.deviation + codec.mean
    assert len(edges) <= 33 and np.all(np.diff(edges) > 0)
    assert edges[0] == pytest.approx(values.min()) and edges[-1] == pytest.approx(values.max())
    assert (edges > np.quantile(values, 0.9)).sum() >= 10  # quantiles of the rows alone would leave three


def test_a_frequent_value_is_a_spike_and_a_rare_one_is_not():
    values = pa.array([40.0] * 50 + [35.5] * 9 + [1.0] * 3 + list(np.linspace(2, 30, 100)))
    spike = fitted("number", values).encode(pa.array([40.0, 35.5, 1.0, 7.77, None]))["spike"]
    assert spike[0] > 0 and spike[1] > 0 and spike[0] != spike[1]
    assert spike[2:].tolist() == [0, 0, 0]


def test_the_moments_of_a_stream_are_numpys():
    values = RANDOM.normal(1e6, 3.0, 50_000)
    codec = CODECS["number"]("x")
    for start in range(0, 50_000, 777):
        part = values[start : start + 777]
        codec.observe(np.arange(start, start + len(part)), pa.array(part))
    codec.finish()
    assert codec.mean == pytest.approx(values.mean(), rel=1e-12)
    assert codec.deviation == pytest.approx(values.std(), rel=1e-9)


def test_categories_beyond_the_limit_are_unknown():
    values = pa.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"])
    codec = fitted("category", values, FeatureSettings(type="category", max_categories=2))
    assert codec.categories == ["a", "b"]
    assert codec.encode(pa.array(["a", "b", "c", None]))["code"].tolist() == [2, 3, 1, 0]


def test_a_long_text_keeps_its_beginning_and_its_whole_bag():
    values = pa.array(["one two three four five six seven eight nine ten"] * 3)
    codec = fitted("text", values, FeatureSettings(type="text", max_tokens=4))
    codes = codec.encode(values)
    assert codes["tokens"].lengths().tolist() == [4, 4, 4]
    assert codes["gram"].lengths()[0] > 4
    whole = codec.tokenizer.decode(codec.tokenizer.encode(values[0].as_py(), add_special_tokens=False).ids[:4])
    assert codec.decode(codes)[0] == whole


def test_a_special_token_written_in_a_text_is_plain_letters():
    codec = fitted("text", pa.array(["hello <pad> world", "<mask> hello"] * 5))
    codes = codec.encode(pa.array(["<pad><mask><end>"]))
    specials = {codec.tokenizer.token_to_id(t) for t in ("<pad>", "<mask>", "<end>")}
    assert not specials & set(codes["tokens"].values.tolist())


def test_the_bag_is_scikit_learns_tfidf():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["the cat sat", "the cat sat on the mat", "a dog sat", "the dog and the cat", "mat"] * 2 + ["odd one out"]
    codec = fitted("text", pa.array(texts))
    tokens = [[str(i) for i in codec.tokenizer.encode(t, add_special_tokens=False).ids] for t in texts]
    oracle = TfidfVectorizer(analyzer=_grams, min_df=2, sublinear_tf=True).fit_transform(tokens).toarray()
    codes = codec.encode(pa.array(texts))
    ours = np.zeros((len(texts), len(codec.grams)))
    rows = np.repeat(np.arange(len(texts)), codes["gram"].lengths())
    ours[rows, codes["gram"].values] = codes["weight"].values
    assert ours.shape == oracle.shape
    np.testing.assert_allclose(ours @ ours.T, oracle @ oracle.T, atol=1e-5)


def _grams(tokens):
    return tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]


def test_class_target_orders_numbers_as_numbers_and_marks_the_unseen():
    target = ClassTarget("y")
    target.observe(pa.array(["10", "9", "2", "9"]))
    target.finish()
    assert target.classes == ["2", "9", "10"] and target.counts == [1, 2, 1]
    assert target.encode(pa.array(["10", "3"])).tolist() == [2, -1]


def test_number_target_is_standardised():
    target = NumberTarget("y")
    target.observe(pa.array([1.0, 2.0, 3.0, 4.0]))
    target.finish()
    np.testing.assert_allclose(target.encode(pa.array([2.5, 4.0])), [0.0, 1.5 / np.std([1, 2, 3, 4])], rtol=1e-6)
