"""Names by a model: the classes of transformers, words put together, beside the rules, in a table and a run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import FAST
from transformers import BertConfig, BertForTokenClassification

import weft
from weft.cli import call
from weft.data.personal import Found, merged
from weft.errors import CheckpointError, SettingsError
from weft.inference.names import NameModel
from weft.models.checkpoints import load_hf, save_hf
from weft.models.language import LanguageModel
from weft.preprocess.letters import Redactor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij"), ",", "."]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-address"]


def write(folder, labels=LABELS, seed=3, longest=24):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=longest, id2label=dict(enumerate(labels)), initializer_range=0.5,
        label2id={name: i for i, name in enumerate(labels)},
    )  # fmt: skip
    model = BertForTokenClassification(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    return write(folder), folder


def texts(rows, most, seed=0):
    random = np.random.default_rng(seed)
    words = ["".join(random.choice(list("abcdefghij"), random.integers(1, 4))) for _ in range(60)] + [",", "."]
    return [" ".join(random.choice(words, random.integers(1, most))) for _ in range(rows)]


def told(model, tokenizer, text):
    """What transformers says of each token of a text of one piece, put together word by word."""
    encoding = tokenizer.encode(text)
    with torch.no_grad():
        codes = model(torch.tensor([encoding.ids])).logits[0].argmax(-1).tolist()
    found, before = [], None
    if len({w for w in encoding.word_ids if w is not None}) < 4:
        return []
    for word in sorted({w for w in encoding.word_ids if w is not None}):
        places = [i for i, w in enumerate(encoding.word_ids) if w == word]
        label = LABELS[codes[places[0]]]
        kind = {"PER": "name", "address": "address"}.get(label[2:])
        start, end = encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1]
        if kind is not None and kind == before and label[0] == "I":
            found[-1] = Found(kind, found[-1].start, end)
        elif kind is not None:
            found.append(Found(kind, start, end))
        before = kind
    return found


def test_classes_are_those_of_transformers_and_words_are_put_together(original, tmp_path):
    model, folder = original
    found = load_hf(folder)
    assert isinstance(found.model, LanguageModel) and found.model.config.labels == tuple(LABELS)
    ids = torch.randint(5, len(WORDS), (3, 11))
    mask = torch.arange(11) < torch.tensor([[11], [7], [4]])
    with torch.no_grad():
        expected, ours = model(ids, attention_mask=mask.long()).logits, found.model.tags(ids, mask)
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-5, rtol=0)
    assert save_hf(found.model, tmp_path / "out", found.tokenizer) == "bert"
    again = BertForTokenClassification.from_pretrained(tmp_path / "out")
    assert again.config.id2label == dict(enumerate(LABELS))
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)
    names, some = NameModel(folder), [t for t in texts(60, 8) if len(found.tokenizer.encode(t)) <= 24]
    assert len(some) > 30
    expected = [told(model, names.tokenizer, t) for t in some]
    assert names(some) == expected and sum(map(len, expected)) > 30
    assert names([]) == [] and names([""]) == [[]]
    short = [t for t in some if len(t.split()) < 4]
    assert short and not any(names(short)), "a word alone is no sentence"


def test_a_long_text_is_read_in_pieces_that_overlap(original):
    model, folder = original
    names = NameModel(folder)
    (text,) = texts(1, 200, seed=4)
    encoding = names.tokenizer.encode(text, add_special_tokens=False)
    room, margin = 22, 5
    assert names.room == room and len(encoding) > 4 * room
    (codes,) = names._codes([encoding])
    for start in range(0, len(encoding) - 2 * margin, room - 2 * margin):
        ids = encoding.ids[start : start + room]
        with torch.no_grad():
            logits = model(torch.tensor([[2, *ids, 3]])).logits[0, 1:-1].argmax(-1).numpy()
        last = start + room >= len(encoding)
        inner = slice(margin if start else 0, None if last else room - margin)
        assert (codes[start : start + room][inner] == logits[inner]).all()


def test_rules_and_model_are_put_together_without_overlaps():
    text = "call 13800138000 Ann Lee Smith, 5 High St"
    rules = [Found("phone", 5, 16), Found("name", 17, 24)]
    model = [Found("name", 12, 20), Found("name", 21, 30), Found("address", 32, 41)]
    found = merged(text, rules, model)
    assert [(f.kind, text[f.start : f.end]) for f in found] == [
        ("phone", "13800138000"), ("name", "Ann"), ("name", "Lee Smith"), ("address", "5 High St"),
    ]  # fmt: skip
    assert merged(text, rules, []) == rules


def test_a_table_and_a_run_are_redacted_with_the_model(original, tmp_path, capsys):
    names = NameModel(original[1])
    table = pa.table({"note": texts(40, 6), "n": list(range(40)), "y": ["a", "b"] * 20})
    pq.write_table(table, tmp_path / "t.parquet")
    out = tmp_path / "safe.parquet"
    arguments = ["redact", str(tmp_path / "t.parquet"), "-o", str(out), "--names", str(original[1])]
    assert call([*arguments, "--kinds", "name"]) == 0
    expected = [
        "".join(f"[NAME]{r}" if i else r for i, r in enumerate(_between(t, names([t])[0])))
        for t in table["note"].to_pylist()
    ]
    assert pq.read_table(out)["note"].to_pylist() == expected
    assert call([*arguments, "--kinds", "email"]) == 2 and "name and address" in capsys.readouterr().err

    settings = FAST | {"preprocess": {"redact": {"kinds": ["name"], "names": str(original[1])}}}
    run = weft.train(table, "y", tmp_path / "run", quiet=True, features={"note": "text"}, **settings)
    kept = json.loads((tmp_path / "run" / "columns.json").read_text())["cleaner"]["redact"]
    assert kept["names"] == str(original[1]) and kept["names_check"] == names.check
    assert "[NAME]" in run.columns.cleaner.letters(table["note"].combine_chunks(), "note").to_pylist()[0] + str(
        expected
    )
    other = tmp_path / "other"
    other.mkdir()
    write(other, seed=4)
    with pytest.raises(SettingsError, match="must hold the model of names that the run learnt with"):
        Redactor.from_dict(kept | {"names": str(other)})


def _between(text, found):
    """What stands around the names of a text."""
    ends = [(f.start, f.end) for f in found if f.kind == "name"]
    return [text[a:b] for a, b in zip([0, *(e for _, e in ends)], [*(s for s, _ in ends), len(text)], strict=True)]


def test_a_checkpoint_without_such_classes_is_refused(tmp_path):
    write(tmp_path, labels=["LABEL_0", "B-ORG"])
    with pytest.raises(CheckpointError, match=r"must tell the class of each token .*Got 'LABEL_0', 'B-ORG'"):
        NameModel(tmp_path)
