"""Figures of language models: by hand, and beside n-grams on the same tokens."""

import json
import math
import re

import numpy as np
import pytest
from tests.texts import documents

from weft.features.documents import Documents, Marks
from weft.features.pieces import Corpus
from weft.results import svg
from weft.results.language import Surprise, estimates, language_sentence, learning
from weft.results.language_baselines import ngram_models
from weft.results.ngrams import NGram

LN2 = math.log(2)


def test_figures_are_the_sums_of_the_pieces_by_hand():
    lost = Surprise(np.array([10.0, 30.0]), np.array([5, 10]), np.array([20.0, 40.0]), np.array([20.0, 60.0]))
    found = estimates(lost, masked=False)
    assert found["bits_per_byte"].value == pytest.approx(40 / LN2 / 80)
    assert found["bits_per_letter"].value == pytest.approx(40 / LN2 / 60)
    assert found["nats_per_letter"].value == pytest.approx(40 / 60)
    assert found["perplexity"].value == pytest.approx(math.exp(40 / 15))
    assert estimates(lost, masked=True)["masked_perplexity"].value == pytest.approx(math.exp(40 / 15))


def test_the_size_of_a_document_is_dealt_to_its_pieces():
    found = documents([np.arange(20), np.arange(5)])
    corpus = Corpus(Documents(found.tokens, np.array([100, 7]), np.array([300, 7])), Marks(2, 2, 1), 8)
    cuts = corpus.cuts(np.arange(2))
    numbers = np.arange(len(cuts))
    start, stop = cuts.spans(numbers)
    lost = Surprise.of(corpus, cuts, numbers, np.ones(len(cuts)), stop - start)
    assert lost.tokens.sum() == 25 and (lost.tokens > 0).all()  # the empty first piece is left out
    assert lost.letters.sum() == pytest.approx(107) and lost.bytes.sum() == pytest.approx(307)
    assert sorted(lost.bytes) == pytest.approx([7, 60, 120, 120])


def test_of_many_pieces_some_are_drawn_from_all():
    corpus = Corpus(documents([np.arange(8)] * 1_000), Marks(2, 2, 1), 8)
    cuts = corpus.cuts(np.arange(1_000))
    assert len(cuts.some(8_000, 0)) == 1_000
    some = cuts.some(800, 0)
    assert len(some) == 100 and len(set(some)) == 100 and (np.diff(some) > 0).all() and some.max() > 800
    assert (some == cuts.some(800, 0)).all() and not (some == cuts.some(800, 1)).all()


@pytest.mark.parametrize("begin", [0, None])
def test_n_grams_are_asked_for_the_tokens_that_the_model_is(begin):
    """Cut into pieces, with and without a first token: the sums over whole documents, by the n-grams themselves."""
    random = np.random.default_rng(0)
    texts = [random.choice([5, 6, 7], n, p=[0.5, 0.3, 0.2]) for n in random.integers(1, 60, 400)]
    corpus = Corpus(documents(texts), Marks(begin, begin, 1), 16)
    cuts = corpus.cuts(np.arange(300, 400))
    found = ngram_models(corpus, np.arange(300), cuts, np.arange(len(cuts)), 10, 0)
    assert [f["title"] for f in found] == ["Single tokens", "7-grams (Kneser-Ney)"]
    whole = [t if begin is None else np.concatenate([[begin], t]) for t in texts]
    for order, one in zip((1, 7), found, strict=True):
        model = NGram(10, order).fit(whole[:300])
        nats, asked = sum(model.nats(t) for t in whole[300:]), sum(len(t) - 1 for t in whole[300:])
        assert one["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(nats / asked), rel=1e-6)


def test_n_grams_know_what_was_before_a_piece():
    """Every token follows from the one before, also across the cut of two pieces."""
    texts = [(np.arange(50) + k) % 30 + 3 for k in range(60)]
    corpus = Corpus(documents(texts), Marks(0, 0, 1), 10)
    cuts = corpus.cuts(np.arange(40, 60))
    _, many = ngram_models(corpus, np.arange(40), cuts, np.arange(len(cuts)), 40, 0)
    # only the first token of a text is open: one of 30, 20 times among 1,000
    assert many["metrics"]["perplexity"]["value"] < 1.35


def test_the_sentence_names_the_best_simple_model():
    lost = Surprise(np.full(9, 10.0), np.full(9, 5), np.full(9, 20.0), np.full(9, 20.0))
    found = estimates(lost, masked=False)
    others = [{"title": f"{v}-grams", "metrics": {"bits_per_byte": {"value": v}}} for v in (4.5, 2.25)]
    said = language_sentence(found, others, "9 pieces of texts it never saw")
    assert said.startswith("In 9 pieces") and "0.721 bits" in said and said.endswith("(2.25-grams) needs 2.250.")
    others.append({"title": "Counting", "metrics": {"bits_per_byte": {"value": 0.5}}})
    assert "The best simple model (Counting) needs 0.500 and is better" in language_sentence(found, others, "9 pieces")
    assert "simple model" not in language_sentence(found, [], "9 pieces")


def test_learning_curves_are_those_of_the_metrics_file(tmp_path):
    records = [{"copy": 0, "step": s, "train_loss": 5 - s / 100} for s in range(1, 401)]
    records += [{"copy": 0, "step": s, "valid_loss": 4.0} for s in (0, 200, 400)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    found = learning(tmp_path / "m.jsonl", 10.0)
    assert found["valid"] == [[0, 4.0], [2000, 4.0], [4000, 4.0]]
    assert len(found["train"]) == 200
    assert found["train"][0] == pytest.approx([15, 4.985]) and found["train"][-1] == pytest.approx([3995, 1.005])


def test_the_drawing_has_a_line_for_each_and_stays_inside():
    train = [[100 * i, 8 * 0.97**i + 1] for i in range(1, 101)]
    lines = [{"title": "a <b>", "ours": False, "points": train}, {"title": "c", "ours": True, "points": [[5000, 3.0]]}]
    drawn = svg.learning(lines, "tokens read", "label")
    assert drawn.count("<polyline") == 2 and "a &lt;b&gt;" in drawn and ">10k<" in drawn
    _, _, width, height = map(float, re.search(r'viewBox="([^"]+)"', drawn)[1].split())
    dots = [tuple(map(float, d.split(","))) for d in re.search(r'points="([^"]+)"', drawn)[1].split()]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in dots)
    assert [x for x, _ in dots] == sorted(x for x, _ in dots) and dots[-1][1] > dots[0][1]
