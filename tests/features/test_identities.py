"""Identity words are found in people's sentences and exchanged so that the sentence stays one."""

import json
from importlib.resources import files

import numpy as np
import pytest

from weft.features.identities import Identities

WORDS = Identities()


def changed(text, a, b):
    """``text`` with the group called ``a`` exchanged for the one called ``b``."""
    for kind, one, other in WORDS.swaps([text]):
        names = {WORDS.name(kind, one, a.isascii()), WORDS.name(kind, other, a.isascii())}
        if names == {a, b}:
            return WORDS.swapped(text, kind, one, other)
    raise AssertionError(WORDS.swaps([text]))


@pytest.mark.parametrize(
    "text, a, b, expected",
    [
        ("She lost her bag.", "woman", "man", "He lost his bag."),
        ("Is he here, Mr Smith?", "man", "woman", "Is she here, Ms Smith?"),
        ("THE WOMEN and their husbands", "woman", "man", "THE MEN and their wives"),
        ("You are an Asian woman", "asian", "white", "You are a White woman"),
        ("a muslim and an atheist", "muslim", "atheist", "an atheist and a muslim"),
        ("Being african american is fun", "african american", "white", "Being white is fun"),
        ("我的女儿和他们的妈妈", "女人", "男人", "我的儿子和她们的爸爸"),
        ("其他人说他是穆斯林", "男人", "女人", "其他人说她是穆斯林"),
        ("作为一名佛教徒我感到高兴", "佛教徒", "穆斯林", "作为一名穆斯林我感到高兴"),
        ("上海人很好", "上海人", "四川人", "四川人很好"),
    ],
)
def test_an_identity_is_exchanged_in_its_sentence(text, a, b, expected):
    assert changed(text, a, b) == expected
    assert changed(expected, b, a) == text, "and back"


def test_a_colour_is_no_people():
    for text in ("a black dress", "It comes in black.", "a straight road", "white walls, black doors", "吉他", "其他"):
        assert WORDS.found(text) == [], text
    for text in ("black people", "a nice white.", "old men", "Straight couples"):
        assert len(WORDS.found(text)) >= 1, text
    assert WORDS.found("The ashen chairman sheds manly tears") == [], "parts of words are no words"


def test_the_texts_of_a_row_change_together_and_never_to_themselves():
    ways = WORDS.swaps(["She is kind", "她很好"])
    assert [w[0] for w in ways] == ["gender"]
    kind, a, b = ways[0]
    assert WORDS.swapped("她很好", kind, a, b) == "他很好" and WORDS.swaps(["nothing here", ""]) == []


def test_the_lists_hold_each_word_in_one_kind_and_change_it_to_another():
    stored = json.loads((files("weft.features") / "identities.json").read_text(encoding="utf-8"))
    kinds: dict[str, set[str]] = {}
    for kind, by_language in stored["kinds"].items():
        for lines in by_language.values():
            assert len({len(line) for line in lines}) <= 1, kind
            for word in (w for line in lines for w in line if w):
                kinds.setdefault(word, set()).add(kind)
                assert word == word.lower() and word.strip() == word
    assert [w for w, of in kinds.items() if len(of) > 1] == []
    random = np.random.default_rng(0)
    for word in random.choice(sorted(w for w in kinds if w not in stored["ambiguous"]), 80, replace=False).tolist():
        assert WORDS.swaps([word]), word
