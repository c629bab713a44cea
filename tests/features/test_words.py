"""Looking words up gives what the tokenizer gives, letter for letter."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from weft.features import words
from weft.features.tokenizer import WRITING, train_tokenizer
from weft.features.words import Speller

RANDOM = np.random.default_rng(0)
LETTERS = [
    "a", "b", "don't", "It's", " ", " ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85",
    "\x1c", ".", "!?", "42", "x1y2", "İ", "ß", "é", "很舒服", "🙂", "<pad>", "\x00", "'", "'ll", "_",
]  # fmt: skip
WILD = ["".join(RANDOM.choice(LETTERS, n)) for n in RANDOM.integers(0, 14, 3_000)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(WILD * 2 + ["two  spaces   three \n lines"] * 20, 600, lowercase=True)


def spelt(tokenizer: Tokenizer, texts: list[str | None]) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch([t or "" for t in texts], add_special_tokens=False)]


def rows(found: words.Ragged) -> list[list[int]]:
    return [r.tolist() for r in np.split(found.values, found.offsets[1:-1])]


def test_any_string_has_the_tokens_that_the_tokenizer_gives_it(tokenizer: Tokenizer) -> None:
    speller, texts = Speller(tokenizer), [*WILD, *(" ".join(RANDOM.choice(WILD, 4)) for _ in range(2_000)), None, ""]
    assert speller.by_word
    expected = spelt(tokenizer, texts)
    assert rows(speller(pa.array(texts, pa.string()))) == expected
    assert rows(speller(pa.array(texts[::-1], pa.string()))) == expected[::-1]  # now from what is remembered
    assert rows(speller(pa.array(texts, pa.string()).slice(7))) == expected[7:]


def test_words_are_forgotten_beyond_the_limit_and_texts_come_in_pieces(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 50)
    monkeypatch.setattr(words, "LETTERS_AT_ONCE", 100)
    speller = Speller(tokenizer)
    assert rows(speller(pa.array(WILD, pa.string()))) == spelt(tokenizer, WILD)
    assert len(speller._places) < 200


def test_other_tokenizers_spell_every_text() -> None:
    """Without a space before the first word, the first word is another than those after it."""
    tokenizer = train_tokenizer(WILD, 600, special=WRITING)
    speller = Speller(tokenizer)
    assert not speller.by_word
    assert rows(speller(pa.array(WILD, pa.string()))) == spelt(tokenizer, WILD)


def test_no_text_at_all(tokenizer: Tokenizer) -> None:
    found = Speller(tokenizer)(pa.array([], pa.string()))
    assert found.offsets.tolist() == [0] and len(found.values) == 0
