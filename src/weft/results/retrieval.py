"""How well texts are found: recall at k and mean reciprocal rank, beside TF-IDF and BM25 on the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from weft.results.metrics import Estimate, Weighted, mean_of
from weft.results.text import units

SHOWN = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")
QUERIES_AT_ONCE = 512
K1, B = 1.5, 0.75
"""BM25's saturation of a word's count, and how much the length of a text matters."""

Score = Callable[[Sequence[str]], np.ndarray]
"""Queries [N] -> how near each document is [N, D]."""


class Retrieval:
    """Queries, each with the documents that are right for it, among all documents.

    Args:
        queries, documents: [N], a pair a row. The same document is one; the same query has several that are right.
    """

    def __init__(self, queries: Sequence[str], documents: Sequence[str]):
        self.queries = list(queries)
        places = {text: place for place, text in enumerate(dict.fromkeys(documents))}
        self.documents = list(places)
        self._right: dict[str, set[int]] = {}
        for query, document in zip(queries, documents, strict=True):
            self._right.setdefault(query, set()).add(places[document])

    def ranks(self, score: Score) -> tuple[np.ndarray, np.ndarray]:
        """The place of the first right document of each query, from 1, and the nearest document of all, [N] each.

        A wrong document that is as near as the right one stands before it.
        """
        ranks, nearest = [], []
        for start in range(0, len(self.queries), QUERIES_AT_ONCE):
            asked = self.queries[start : start + QUERIES_AT_ONCE]
            scores = score(asked)
            right = np.zeros(scores.shape, bool)
            for row, query in enumerate(asked):
                right[row, list(self._right[query])] = True
            best = np.where(right, scores, -np.inf).max(axis=1)
            ranks.append(1 + ((scores >= best[:, None]) & ~right).sum(axis=1))
            nearest.append(scores.argmax(axis=1))
        return np.concatenate(ranks), np.concatenate(nearest)


def rank_metrics(ranks: np.ndarray) -> dict[str, Weighted]:
    """Recall at 1, 5 and 10, and the mean of 1 / rank, of ranks [N] from 1."""
    found: dict[str, np.ndarray] = {f"recall_at_{k}": (ranks <= k).astype(np.float64) for k in (1, 5, 10)}
    found["mrr"] = 1 / ranks
    return {name: mean_of(values) for name, values in found.items()}


def tfidf(documents: Sequence[str]) -> Score:
    """Cosine of TF-IDF vectors, as scikit-learn weighs them; words are characters in Chinese and Japanese."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=_units)
    matrix = vectorizer.fit_transform([*documents, "-"])[:-1]
    return lambda queries: (vectorizer.transform(queries) @ matrix.T).toarray()


def bm25(documents: Sequence[str]) -> Score:
    """BM25 (Robertson & Zaragoza 2009, eq. 3.15), with the logarithm that is never negative.

    sum over the words of the query of log(1 + (N - n + 1/2) / (n + 1/2)) f (k1 + 1) / (f + k1 (1 - b + b l / mean l))
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=_units)
    counts = counter.fit_transform([*documents, "-"])[:-1].astype(np.float64).tocsr()
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    matrix = counts.copy()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1e-9))
    n = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((len(documents) - n + 0.5) / (n + 0.5))
    matrix.data = matrix.data * (K1 + 1) / (matrix.data + norm[row]) * rarity[matrix.indices]
    return lambda queries: (counter.transform(queries) @ matrix.T).toarray()


def _units(text: str) -> list[str]:
    return units(text) or ["-"]


def retrieval_sentence(found: dict[str, Estimate], rows: int, documents: int, seen: str) -> str:
    """The result in words."""
    first, ten = found["recall_at_1"], found["recall_at_10"]
    return (
        f"Of {rows:,} {seen}, {first.value:.1%} find their text as the first of {documents:,} "
        f"({first.interval('.1%')}), {ten.value:.1%} among the first ten."
    )
