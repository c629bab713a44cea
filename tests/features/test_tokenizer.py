"""Every string has tokens, and they say it back."""

import random

import pytest
from tests.texts import sentences
from tokenizers import Tokenizer

from weft.features import tokenizer as module
from weft.features.tokenizer import (
    END,
    SPECIAL,
    WRITING,
    begin_with,
    character_tokenizer,
    is_own,
    slices,
    train_tokenizer,
)

TEXTS = [
    *sentences(300),
    "春天的花开了，我们去公园看花。" * 3,
    "naïve café über",
    "1\t2\n\n3  4",
    "emoji 👩‍👩‍👧 and 🇨🇳",
]
ODD = [
    "", " ", "\n", "\r\n", "\0\x01\x1b\x7f\x85\ufeff\u200b\u2028", "never seen: ѝ ꙮ 𝕏 \U0010ffff",
    "，。！？「」『』：；",
    "<pad><mask><end><sep><system><user><assistant>", " leading and trailing ", "a" * 70_000, "e\u0301 and é", "\ufffd",
]  # fmt: skip
MADE = {
    "bytes": lambda: train_tokenizer(TEXTS, 400, special=WRITING),
    "characters": lambda: character_tokenizer(TEXTS),
}


@pytest.fixture(scope="module", params=MADE)
def made(request):
    tokenizer = MADE[request.param]()
    begin_with(tokenizer, END)
    return tokenizer


def any_string(seed):
    """Letters of any plane, control characters among them; no surrogates, which are no letters."""
    draw = random.Random(seed)
    points = (draw.choice([draw.randrange(0x20), draw.randrange(0x3000), draw.randrange(0x110000)]) for _ in range(60))
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


@pytest.mark.parametrize("text", [*TEXTS[-4:], *ODD, *map(any_string, range(20))], ids=lambda t: ascii(t[:12]))
def test_any_string_comes_back_from_its_tokens(made, text):
    ids = made.encode(text, add_special_tokens=False).ids
    assert made.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & set(range(len(WRITING)))  # "<pad>" in a text is letters, never the token


def test_the_ids_are_the_same_after_save_and_load(made, tmp_path):
    from weft.models.tokenizer_files import load_tokenizer

    made.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    for text in [*TEXTS, *ODD]:
        assert loaded.encode(text).ids == made.encode(text).ids
        assert loaded.encode(text).ids[0] == made.token_to_id(END)


def test_a_tokenizer_of_another_library_keeps_its_own_ways(tmp_path):
    from tests.writers import byte_level

    from weft.models.tokenizer_files import load_tokenizer

    byte_level().save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert not is_own(loaded) and loaded.encode("</s>").ids == [1]
    assert is_own(MADE["bytes"]())


def test_a_vocabulary_has_the_marks_of_every_task_and_the_size_asked(made):
    assert [made.token_to_id(t) for t in SPECIAL] == [0, 1, 2] and all(made.token_to_id(t) is not None for t in WRITING)
    assert train_tokenizer(TEXTS, 350).get_vocab_size() == 350


def test_characters_are_one_token_each_and_rare_ones_their_bytes():
    tokenizer = character_tokenizer(["aabb花花x"])
    known = tokenizer.encode("ab花", add_special_tokens=False)
    assert known.tokens == ["a", "b", "花"]
    assert tokenizer.encode("x园", add_special_tokens=False).tokens == ["<0x78>", "<0xE5>", "<0x9B>", "<0xAD>"]


def test_a_long_text_in_slices_is_the_text(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 50)
    texts = ["", "ab", "x" * 49, "x" * 50, "x" * 51, "x" * 1_000, "word " * 90, "line\n" * 90, " ".join(TEXTS)]
    for text in texts:
        found = list(slices(text))
        assert "".join(found) == text and max(map(len, found)) <= 50
    assert all(s.endswith("\n") for s in list(slices("a line\n" * 90))[:-1])
    assert all(s.startswith(" ") for s in list(slices("some words " * 90))[1:-1])  # a space belongs to the word after


def test_slices_change_no_token_where_a_line_ends(monkeypatch):
    text = "\n".join(sentences(400))
    tokenizer = Tokenizer.from_str(MADE["bytes"]().to_str())
    whole = tokenizer.encode(text).ids
    monkeypatch.setattr(module, "SLICE", 500)
    pieces = list(slices(text))
    assert len(pieces) > 20 and [i for p in pieces for i in tokenizer.encode(p).ids] == whole
