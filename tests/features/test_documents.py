"""Texts as ids on disk: the same whatever the batches, learnt from the training texts only."""

import numpy as np
import pyarrow as pa
import pytest
from tests.texts import sentences

from weft.data.split import TEST, TRAIN, VALID, Splitter
from weft.data_settings import SplitSettings
from weft.features import documents as module
from weft.features.documents import Documents, Marks, encode_documents, learn_tokenizer
from weft.features.tokenizer import END
from weft.preprocess.ingest import ROW, CleanRows
from weft.progress import Silent


def clean(path, texts, parts=None, size=7):
    """Cleaned rows on disk in batches of ``size``."""
    table = pa.table({ROW: np.arange(len(texts)), "t": pa.array(texts, pa.string())})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=size)
    return CleanRows(path, np.zeros(len(texts), np.uint8) if parts is None else parts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return learn_tokenizer(clean(tmp_path_factory.mktemp("t") / "a", sentences(200)), ["t"], 320, 0)


@pytest.mark.parametrize("most", [1, 50, 1 << 21])
def test_each_text_is_its_tokens_and_the_end_whatever_is_encoded_at_once(tokenizer, tmp_path, monkeypatch, most):
    texts = [*sentences(30, seed=1), "花", "x" * 300, "\n\n", *sentences(3, seed=2)]
    monkeypatch.setattr(module, "AT_ONCE", most)
    monkeypatch.setattr("weft.features.tokenizer.SLICE", 64)
    end = tokenizer.token_to_id(END)
    found = encode_documents(clean(tmp_path / "a", texts), "t", tokenizer, end, tmp_path / "store", Silent())
    assert found.letters.tolist() == [len(t) for t in texts]
    assert found.bytes.tolist() == [len(t.encode()) for t in texts]
    direct = Documents.of(texts, tokenizer, end)
    for number, text in enumerate(texts):
        ids = found.tokens.values[found.tokens.offsets[number] : found.tokens.offsets[number + 1]].tolist()
        assert ids[-1] == end and tokenizer.decode(ids[:-1]) == text
        if len(text) <= 64:
            assert ids[:-1] == tokenizer.encode(text, add_special_tokens=False).ids
    assert np.array_equal(direct.tokens.values, found.tokens.values)
    assert np.array_equal(direct.tokens.offsets, found.tokens.offsets)


def test_no_end_where_a_tokenizer_has_none(tokenizer):
    found = Documents.of(["a cat.", ""], tokenizer, None)
    assert found.lengths().tolist() == [len(tokenizer.encode("a cat.", add_special_tokens=False)), 0]


def test_ids_take_two_bytes_where_they_fit(tokenizer):
    assert Documents.of(["a"], tokenizer, 2).tokens.values.dtype == np.uint16


def test_the_tokenizer_learns_from_the_training_texts_only(tmp_path):
    texts = ["zebra zebra zebra"] * 20 + ["qqq qqq xxx"] * 20 + ["vvv jjj"] * 20
    parts = np.repeat(np.array([TRAIN, VALID, TEST], np.uint8), 20)
    for vocabulary in (320, "characters"):
        found = learn_tokenizer(clean(tmp_path / f"{vocabulary}", texts, parts), ["t"], vocabulary, 0)
        names = {n.strip("Ġ") for n in found.get_vocab()}
        assert ("zebra" in names or "z" in names) and not names & {"qqq", "xxx", "vvv", "jjj"}
        if vocabulary == "characters":
            assert not names & set("qxvj")


def test_of_very_much_text_the_tokenizer_learns_from_a_sample(tmp_path, monkeypatch):
    texts = [chr(0x4E00 + i) * 10 for i in range(400)]
    rows = clean(tmp_path / "a", texts)
    monkeypatch.setattr(module, "LEARN_LETTERS", 1_000)
    learnt = {*learn_tokenizer(rows, ["t"], "characters", 0).get_vocab()} & {text[0] for text in texts}
    assert 70 < len(learnt) < 130
    assert any(ord(letter) > 0x4E00 + 300 for letter in learnt)  # drawn, not the first


def test_a_sample_is_of_the_training_texts_that_chance_dealt(tmp_path, monkeypatch):
    """The split and the sample are drawn apart: the rows that a split leaves to learn from are not those left out."""
    texts = [chr(0x4E00 + i) * 10 for i in range(1_000)]
    splitter = Splitter(SplitSettings(), 0, stratify=False)
    splitter.observe(np.arange(1_000), None, None)
    rows = clean(tmp_path / "a", texts, splitter.assign())
    monkeypatch.setattr(module, "LEARN_LETTERS", 10 * rows.count(TRAIN) // 5)
    learnt = {*learn_tokenizer(rows, ["t"], "characters", 0).get_vocab()} & {text[0] for text in texts}
    assert 0.15 * rows.count(TRAIN) < len(learnt) < 0.25 * rows.count(TRAIN)


def test_marks_are_those_of_the_tokenizer_itself(tokenizer):
    from tests.writers import byte_fallback, byte_level

    end = tokenizer.token_to_id(END)
    assert Marks.of(tokenizer) == Marks(end, end, 1)
    assert Marks.of(byte_fallback()) == Marks(0, 1, None)
    assert Marks.of(byte_level()) == Marks(None, None, None)
    assert Marks.of(byte_level(begin=True)) == Marks(0, None, None)


def test_rows_are_taken_in_any_order_from_any_batches(tmp_path):
    rows = clean(tmp_path / "a", texts := sentences(50))
    places = np.array([49, 0, 7, 7, 13, 6, 48, 0])
    assert rows.take(places, ["t"])["t"].to_pylist() == [texts[i] for i in places]
    assert rows.take(np.zeros(0, np.int64), ["t"])["t"].to_pylist() == []
