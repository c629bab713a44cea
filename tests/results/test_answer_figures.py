"""Figures of answers apart by whether there is one; guesses by shared words; the threshold by a search of all."""

import numpy as np
import pytest

from weft.results.answers import Guesses, answer_metrics, f1_each
from weft.training.calibration import fit_threshold


def test_figures_with_and_without_an_answer_apart():
    golds = ["the red house", "Paris", "", "", "six"]
    written = ["red house", "London", "", "no", ""]
    found, ones = answer_metrics(written, golds), np.ones(5)
    assert found["exact_match"](ones) == pytest.approx(2 / 5)
    assert found["answer_f1_given"](ones) == pytest.approx(1 / 3)
    assert found["no_answer"](ones) == pytest.approx(1 / 2)
    assert f1_each(written, golds).tolist() == [1, 0, 1, 0, 0]
    assert set(answer_metrics(["a"], ["a"])) == {"exact_match", "answer_f1"}


def test_the_threshold_is_the_best_of_all():
    random = np.random.default_rng(0)
    for _ in range(60):
        n = int(random.integers(1, 12))
        margin = random.integers(-3, 4, n).astype(float)
        margin[random.random(n) < 0.1] = -np.inf
        answered = random.random(n)
        silent = (random.random(n) < 0.4).astype(float)
        answered[silent > 0] = 0

        def score(threshold, margin=margin, answered=answered, silent=silent):
            return np.where(margin > threshold, answered, silent).sum()

        best = max(score(t) for t in [-np.inf, *np.arange(-4, 5) + 0.5, np.inf])
        assert score(fit_threshold(margin, answered, silent)) == pytest.approx(best)


def test_the_sentence_that_shares_rare_words():
    context = "The cat sat. The zebra ran to Paris in May! 斑马在巴黎。猫在家。"
    guesses = Guesses([context, "The cat.", "The dog. 猫"], ["to Paris"])
    assert guesses.sentence("Where did the zebra go?", context) == "The zebra ran to Paris in May!"
    assert guesses.sentence("斑马呢", context) == "斑马在巴黎。"


def test_the_nearest_words_are_those_beside_the_question_and_not_in_it():
    guesses = Guesses(["it is a b", "it is c d"], ["one two", "three four", ""])
    assert guesses.length == 2
    context = "Everest stands 8848 metres above, far away"
    assert guesses.span("how tall is Everest", context) == "stands 8848"
    assert guesses.span("x", "短") == "短" and guesses.span("x", "...") == ""
