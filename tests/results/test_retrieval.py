"""Ranks, recall and MRR are scikit-learn's where it has them; TF-IDF and BM25 are their definitions."""

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from weft.results.retrieval import Retrieval, bm25, rank_metrics, tfidf

DOCUMENTS = ["the cat sat on the mat", "a dog in the park", "猫在垫子上", "the cat and the dog", "", "公园里的狗和猫"]


def test_recall_and_mrr_are_scikit_learns():
    random = np.random.default_rng(0)
    scores = random.normal(size=(700, 40))
    truth = random.integers(0, 40, 700)
    retrieval = Retrieval([f"q{i}" for i in range(700)], [f"d{t}" for t in truth])
    order = {text: place for place, text in enumerate(retrieval.documents)}
    columns = [int(text[1:]) for text in order]
    ranks, nearest = retrieval.ranks(lambda asked: scores[[int(q[1:]) for q in asked]][:, columns])
    metrics, ones = rank_metrics(ranks), np.ones(700)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(truth, scores[:, :40], k=k, labels=np.arange(40))
        assert metrics[f"recall_at_{k}"](ones) == pytest.approx(expected)
    one_hot = np.eye(40)[truth]
    assert metrics["mrr"](ones) == pytest.approx(label_ranking_average_precision_score(one_hot, scores))
    assert [columns[n] for n in nearest] == scores.argmax(axis=1).tolist()
    few = np.r_[np.ones(100), np.zeros(600)]
    assert metrics["mrr"](few) == pytest.approx((1 / ranks[:100]).mean())


def test_several_documents_may_be_right_and_the_same_document_is_one():
    retrieval = Retrieval(["x", "x", "y", "z"], ["a", "b", "b", "c"])
    assert retrieval.documents == ["a", "b", "c"]
    scores = {"x": [0.1, 0.5, 0.9], "y": [0.9, 0.5, 0.1], "z": [0.3, 0.2, 0.1]}
    ranks, _ = retrieval.ranks(lambda asked: np.array([scores[q] for q in asked]))
    assert ranks.tolist() == [2, 2, 2, 3]  # of x the nearer of a and b counts, and the other is not before it


def test_equal_scores_are_no_hit():
    retrieval = Retrieval(["x", "y"], ["a", "b"])
    assert retrieval.ranks(lambda asked: np.zeros((len(asked), 2)))[0].tolist() == [2, 2]


def test_tfidf_is_scikit_learns_on_words():
    texts = [d for d in DOCUMENTS if d.isascii() and d]
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    matrix = vectorizer.fit_transform([*texts, "-"])[:-1]
    query = ["the dog on the mat", "nothing of it"]
    np.testing.assert_allclose(tfidf(texts)(query), cosine_similarity(vectorizer.transform(query), matrix), atol=0.02)
    assert tfidf(DOCUMENTS)(["狗"])[0].argmax() == 5


def test_bm25_is_its_formula():
    words = [[*text] if not text.isascii() else text.split() for text in DOCUMENTS]
    mean = np.mean([max(1, len(w)) if not w else len(w) for w in words])
    found = bm25(DOCUMENTS)(["the cat", "猫狗"])
    for row, query in enumerate((["the", "cat"], ["猫", "狗"])):
        for place, text in enumerate(words):
            expected = 0.0
            for word in query:
                n, f = sum(word in w for w in words), Counter(text)[word]
                rarity = math.log(1 + (len(words) - n + 0.5) / (n + 0.5))
                expected += rarity * f * 2.5 / (f + 1.5 * (0.25 + 0.75 * max(len(text), 1 if not text else 0) / mean))
            assert found[row, place] == pytest.approx(expected)
