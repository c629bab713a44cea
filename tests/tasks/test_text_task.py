"""A column written from others, by the six steps: learnt, written, judged."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

import weft
from weft.cli import call
from weft.errors import DataError, SettingsError, UsageError
from weft.inference.sampling import Sampling
from weft.results.writing import judge_texts, writing_figures, writing_sentence

WORDS = ["ab", "cd", "ef", "gh", "ij"]
TRANSFORMER = {"width": 48, "layers": 2, "dropout": 0.0}
LSTM = {"backbone": "rnn", "cell": "lstm", "width": 96, "layers": 1, "dropout": 0.0}


def table(how, rows=700, most=3):
    random = np.random.default_rng(0)
    source = [list(random.choice(WORDS, random.integers(1, most + 1))) for _ in range(rows)]
    return pa.table({"id": range(rows), "s": [" ".join(x) for x in source], "t": [" ".join(how(x)) for x in source]})


def learn(out, data, model, epochs, **more):
    return weft.train(
        data, {"column": "t", "type": "text"}, out, quiet=True, features={"s": "text"}, model=model,
        training={"epochs": epochs, "batch_rows": 32, "precision": "float32", "learning_rate": 0.005}, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reversed_(tmp_path_factory):
    """A Transformer that has learnt to turn the words of a row around."""
    return learn(tmp_path_factory.mktemp("run") / "run", table(lambda x: x[::-1]), TRANSFORMER, 12)


def metrics(run):
    return {k: e["value"] for k, e in run.figures["models"][0]["metrics"].items()}


def test_a_transformer_learns_to_reverse(reversed_):
    assert metrics(reversed_)["exact_match"] > 0.95 and metrics(reversed_)["perplexity"] < 1.3
    config = json.loads((reversed_.path / "config.json").read_text())
    assert config["language"]["backbone"]["attention"] == "rewriting"  # the source is read both ways


def test_a_recurrent_network_learns_to_copy(tmp_path):
    run = learn(tmp_path / "run", table(lambda x: x, most=2), LSTM, 20)
    assert metrics(run)["exact_match"] > 0.95
    assert run.predict(pa.table({"s": ["ab cd", "ef"]}))["t"].to_pylist() == ["ab cd", "ef"]


def test_texts_come_in_the_order_of_the_rows_to_memory_and_files(reversed_, tmp_path):
    rows = pa.table({"s": ["ab cd ef", None, "gh", "cd ab"] * 3, "x": range(12)})
    texts = reversed_.predict(rows)
    assert texts.column_names == ["t"] and texts["t"].to_pylist()[::2] == ["ef cd ab", "gh"] * 3
    assert texts["t"].to_pylist()[3] == "ab cd"
    pq.write_table(rows, tmp_path / "rows.parquet")
    assert call(["predict", str(reversed_.path), str(tmp_path / "rows.parquet"), "-o", str(tmp_path / "o.parquet"),
                 "--keep", "x"]) == 0  # fmt: skip
    found = pq.read_table(tmp_path / "o.parquet")
    assert found["t"].to_pylist() == texts["t"].to_pylist() and found["x"].to_pylist() == list(range(12))
    alone = [reversed_.predict(rows.slice(i, 1))["t"][0].as_py() for i in range(4)]
    assert alone == texts["t"].to_pylist()[:4]  # whatever shares the batch
    assert call(["predict", str(reversed_.path), str(tmp_path / "rows.parquet"), "-o", str(tmp_path / "b.parquet"),
                 "--beams", "3"]) == 0  # fmt: skip
    assert pq.read_table(tmp_path / "b.parquet")["t"].to_pylist()[0] == "ef cd ab"


def test_figures_are_sacrebleus_on_the_texts_themselves(reversed_):
    data = table(lambda x: x[::-1])
    found = reversed_.evaluate(data)
    test = np.load(reversed_.path / "split.npy") == 2
    chosen = data.filter(pa.array(test))
    written, references = reversed_.predict(chosen)["t"].to_pylist(), [chosen["t"].to_pylist()]
    assert found["rows"] == test.sum() and found["part"] == "test rows of the training data"
    assert found["metrics"]["bleu"]["value"] == pytest.approx(BLEU().corpus_score(written, references).score)
    assert found["metrics"]["chrf"]["value"] == pytest.approx(CHRF().corpus_score(written, references).score)
    ours = metrics(reversed_)
    for key in ("bleu", "chrf", "perplexity", "exact_match"):
        assert found["metrics"][key]["value"] == pytest.approx(ours[key], rel=1e-5), key
    assert reversed_.evaluate(data, everything=True)["rows"] == len(data)
    others = {m["key"]: m["metrics"]["chrf"]["value"] for m in reversed_.figures["models"][1:]}
    assert set(others) == {"copy", "lexicon"} and max(others.values()) < ours["chrf"]


def test_other_rows_are_judged_in_the_units_of_the_training(reversed_):
    """13a for its English, though the first rows hold Chinese; and what was cut is said."""
    found = reversed_.evaluate(pa.table({"s": ["ab", "ab cd " * 60], "t": ["你好", "你好吗" * 90]}))
    assert "tok:13a" in found["signatures"]["bleu"] and len(found["said"]) == 2


def test_all_right_is_no_certainty():
    found, scores = judge_texts(["ab cd ef gh"] * 5, ["ab cd ef gh"] * 5)
    assert writing_figures(found)["bleu"].to_dict() == {"value": pytest.approx(100), "low": None, "high": None}
    assert "no 95 % interval" in writing_sentence(found, [], "5 rows") and scores.language == "other"


def test_generate_reads_the_prompt_as_a_source(reversed_, capsys):
    assert call(["generate", str(reversed_.path), "ab cd ef"]) == 0
    assert capsys.readouterr().out == "ef cd ab\n"
    assert call(["generate", str(reversed_.path), "ab cd", "--next", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next"][0]["text"].strip() == "cd"
    assert reversed_.generate(["ab cd ef"], Sampling(max_tokens=20, beams=2))[0].text == "ef cd ab"
    assert call(["generate", str(reversed_.path), "ab", "--chat"]) == 2
    assert "weft predict" in capsys.readouterr().err
    assert call(["generate", str(reversed_.path), "\ud800"]) == 1
    assert "surrogate" in capsys.readouterr().err
    assert call(["generate", str(reversed_.path), "ab " * 99]) == 0
    assert "of the source were left out" in capsys.readouterr().err


def test_a_prompt_is_read_as_a_row_is(reversed_):
    """A separator that a person typed is letters; letters are normalised."""
    (separator,) = reversed_.pairing.separator
    ids, lost = reversed_.source("<sep>")
    assert ids.count(separator) == 1 and len(ids) > 5 and lost == 0
    assert reversed_.source("e\u0301")[0] == reversed_.source("\u00e9")[0]


def test_check_says_what_is_read(tmp_path, capsys):
    pq.write_table(table(lambda x: x), tmp_path / "t.parquet")
    (tmp_path / "w.yaml").write_text(
        f"data: {{source: {tmp_path / 't.parquet'}}}\nfeatures: {{s: text}}\ntarget: {{column: t, type: text}}\n"
    )
    assert call(["check", str(tmp_path / "w.yaml")]) == 0
    out = capsys.readouterr().out
    assert "of training on this machine" in out and "parameters" in out
    assert "700" in out and "features does not name it" in out and "weft run" in out


def test_the_report_shows_texts_beside_references(reversed_):
    page = (reversed_.path / "report.html").read_text()
    assert "nrefs:1" in page and "Word for word" in page and reversed_.figures["samples"][0]["reference"] in page
    assert "rewritten" not in page and call(["report", str(reversed_.path)]) == 0
    assert call(["evaluate", str(reversed_.path), "nothing.csv"]) == 1


def test_a_causal_checkpoint_learns_it_and_keeps_its_form(tmp_path):
    """The separator of a tokenizer that has none is a line end; transformers goes on from it as we do."""
    import torch
    from tests.writers import byte_level, memorised
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from weft.models.checkpoints import save_hf

    tokenizer = byte_level(begin=True)
    save_hf(memorised(["ab cd ef gh ij"], tokenizer), tmp_path / "base", tokenizer)
    run = weft.train(
        table(lambda x: x, most=1), {"column": "t", "type": "text"}, tmp_path / "run", quiet=True,
        features={"s": "text"}, model={"from": str(tmp_path / "base")},
        training={"epochs": 6, "batch_rows": 32, "precision": "float32", "learning_rate": 0.003},
    )  # fmt: skip
    assert metrics(run)["exact_match"] > 0.95 and run.figures["model"]["family"] == "llama"
    theirs, words = AutoModelForCausalLM.from_pretrained(run.path), AutoTokenizer.from_pretrained(run.path)
    assert (words.bos_token, words.eos_token) == ("<s>", "</s>")
    with torch.no_grad():
        ids = theirs.generate(torch.tensor([words("ab\n").input_ids]), max_new_tokens=5, do_sample=False)
    assert words.decode(ids[0], skip_special_tokens=True) == "ab\nab"


def test_several_sources_and_wrong_ones(tmp_path):
    data = table(lambda x: x[::-1], rows=400)
    both = data.append_column("u", data["s"])
    run = weft.train(
        both, {"column": "t", "type": "text", "max_tokens": 12, "beams": 2}, tmp_path / "run", quiet=True,
        features={"u": "text", "s": {"type": "text", "max_tokens": 48}}, model={"width": 16, "layers": 1},
        training={"epochs": 1, "label_smoothing": 0.2}, results={"baselines": False},
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"vocabulary must be the same .*Got 400 for 'u', 500 for 's'"):
        weft.train(
            both, {"column": "t", "type": "text"}, tmp_path / "two", quiet=True,
            features={n: {"type": "text", "vocabulary": v} for n, v in (("u", 400), ("s", 500))},
        )  # fmt: skip
    assert run.pairing.sources == ("u", "s") and run.pairing.target_room == 12 and run.pairing.source_room == 36
    with pytest.raises(UsageError, match="not from one text"):
        run.generate("ab")
    with pytest.raises(DataError, match="Got no 'u'"):
        run.predict(data)
    assert len(run.predict(data.slice(0, 2), allow_missing=True)) == 2
    with pytest.raises(DataError, match="must hold the target 't'"):
        run.evaluate(both.drop_columns(["t"]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": {"s": "number"}}, "written from texts. Got number"),
        ({"features": {"id": "text"}}, "'id' must hold texts"),
        ({"features": {"t": "text"}}, "cannot be read as well"),
        ({"features": {"s": "off", "id": "off"}}, "there must be a text column"),
        ({"target": {"column": "t", "type": "text", "positive": "a"}}, "positive is for a target of type class"),
        ({"target": {"column": "t", "type": "class", "beams": 2}}, "beams is for a target of type text"),
        ({"target": "t", "training": {"label_smoothing": 0.1}}, "label_smoothing is for"),
    ],
)
def test_wrong_settings_say_so(tmp_path, settings, words):
    with pytest.raises(SettingsError, match=words):
        weft.train(table(lambda x: x), **{"target": {"column": "t", "type": "text"}, **settings}, out=tmp_path / "run")
