"""Simple writers."""

from weft.results.metrics import Estimate
from weft.results.text_baselines import Lexicon, first_sentence, sentences
from weft.results.writing import simple_writers, writing_sentence


def test_a_first_sentence():
    assert first_sentence("  It rains. It pours.") == "It rains."
    assert first_sentence("Pi is 3.14 today! Yes.") == "Pi is 3.14 today!"
    assert first_sentence("今天很好。明天也好。") == "今天很好。"
    assert first_sentence("no stop at all") == "no stop at all" and first_sentence("") == ""
    assert [sentences(t) for t in ("", "one", "One. Two!", "一。二。三")] == [0, 1, 2, 3]


def test_a_word_becomes_what_it_shares_the_most_rows_with():
    """Dice by hand: 'cat' and '猫' stand together in all their rows; '是' is in every row, with '.' as well."""
    english = ["cat.", "dog.", "cat dog.", "bird.", "cat bird."]
    words = Lexicon(zip(english, ["是猫是", "是狗是", "是猫和狗", "鸟是", "是猫是鸟"], strict=True))
    assert words("Bird dog") == "鸟狗" and words("dog") == "狗" and words("unknown") == "" and words(".") == "是"
    assert words("dog dog") == "狗"  # said once
    spaced = Lexicon([("ein Hund", "a dog"), ("ein Haus", "a house"), ("Hund Haus", "dog house")])
    assert spaced("ein Haus") == "a house"


def test_simple_writers_are_judged_on_the_same_rows():
    pairs = [("a cat", "猫"), ("a dog", "狗"), ("cat", "猫"), ("dog", "狗")]
    found = {w["key"]: w for w in simple_writers(pairs, ["cat", "dog"], ["猫", "狗"])}
    assert set(found) == {"copy", "lexicon"}
    assert found["lexicon"]["metrics"]["exact_match"]["value"] == 1 and found["copy"]["metrics"]["chrf"]["value"] == 0
    texts = ["One is here. Two is there.", "Three is here. Four is there."]
    found = {w["key"]: w for w in simple_writers([], texts, ["One is here.", "Three is here."])}
    assert found["first"]["metrics"]["rougeL"]["value"] == 1
    losing = {"bleu": Estimate(1.0, 0.0, 2.0), "chrf": Estimate(1.0, 0.0, 2.0)}
    assert "has not learnt" in writing_sentence(losing, list(found.values()), "2 rows")
