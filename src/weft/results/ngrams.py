"""Simple models of text that a language model must beat: n-grams.

The n-gram model is interpolated, with modified Kneser-Ney discounts (Chen & Goodman 1999, equations 21 to 26): the
probability of a token after a context h of k - 1 tokens is

    p_k(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.)  +  gamma(h) p_(k-1)(w | h without its first token)

and p_0 is 1 / V. c is how often hw came (the longest order) or how many different tokens came before hw (all shorter
ones); gamma(h) is what the discounts took from h. An order-1 model is the unigram baseline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from weft.errors import DataError, UsageError

MOST_ORDER = 10
MOST_TOKENS = 5_000_000
_FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])
"""Discounts where there are too few windows to estimate them (as KenLM's --discount_fallback)."""


@dataclass(frozen=True)
class _Order:
    """The windows of k tokens that were learnt, and what each context of k - 1 tokens knows.

    A window's key is the number of its first k - 1 tokens in the order below, times V + 1, plus its last token.
    """

    keys_N: np.ndarray
    counts_N: np.ndarray
    discounts_4: np.ndarray
    total_M: np.ndarray
    gamma_M: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The numbers of the windows with these keys, -1 where there is none."""
        place = np.minimum(np.searchsorted(self.keys_N, keys), len(self.keys_N) - 1)
        return np.where(self.keys_N[place] == keys, place, -1)


class NGram:
    """An interpolated n-gram model with modified Kneser-Ney discounts over ``vocabulary`` token ids.

    A document is an array of ids whose first is given (a start token); every later one is predicted. Memory grows with
    the tokens learnt from: while it learns about 60 bytes for each and order, afterwards at most 32.

    Args:
        vocabulary: how many ids there are, V; each has a probability above 0 after every context.
        order: the longest window, 1 (unigrams) to ``MOST_ORDER``.
        most_tokens: learn from at most this many tokens, the first ones.
    """

    def __init__(self, vocabulary: int, order: int = 5, most_tokens: int = MOST_TOKENS):
        if not 1 <= order <= MOST_ORDER:
            raise UsageError(f"the order of n-grams must be 1 to {MOST_ORDER}. Got {order}.")
        if vocabulary < 1 or most_tokens < 1:
            raise UsageError(f"n-grams need a vocabulary and tokens to learn from. Got {vocabulary} and {most_tokens}.")
        self.vocabulary, self.order, self.most_tokens = vocabulary, order, most_tokens
        self.tokens = 0
        self._orders: list[_Order] = []

    def fit(self, documents: Iterable[np.ndarray]) -> NGram:
        """Learn from documents [T], read once and no further than ``most_tokens`` predicted tokens.

        Raises:
            DataError: an id is outside the vocabulary, or there is nothing to predict.
        """
        pieces, self.tokens = [], 0
        for document in documents:
            ids = self._checked(document)[: self.most_tokens - self.tokens + 1]
            if len(ids) > 1:
                pieces.append(self._padded(ids))
                self.tokens += len(ids) - 1
            if self.tokens == self.most_tokens:
                break
        if not pieces:
            raise DataError("n-grams must be learnt from documents of two tokens or more. Got none.")
        self._learn(np.concatenate(pieces))
        return self

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Natural logarithms [T - 1] of the probabilities of all tokens of a document [T] but its first.

        Raises:
            DataError: an id is outside the vocabulary.
        """
        if not self._orders:
            raise UsageError("an n-gram model must learn (fit) before it is asked. It has not.")
        x_T = self._padded(self._checked(ids))
        probability_T = np.full(len(x_T), 1 / self.vocabulary)
        window_T = np.zeros(len(x_T), np.int64)
        for order in self._orders:
            # the window before each token is its context; before the first pad there is none
            context_T = np.concatenate([[0 if order is self._orders[0] else -1], window_T[:-1]])
            known_T = context_T >= 0
            window_T = np.where(known_T, order.find(context_T * (self.vocabulary + 1) + x_T), -1)
            count_T = np.where(window_T >= 0, order.counts_N[window_T], 0)
            known_T &= order.total_M[context_T] > 0
            left_T = count_T - order.discounts_4[np.minimum(count_T, 3)]
            share_T = left_T / np.maximum(order.total_M[context_T], 1)
            probability_T = np.where(known_T, share_T + order.gamma_M[context_T] * probability_T, probability_T)
        return np.log(probability_T[self._pads + 1 :])

    def nats(self, ids: np.ndarray) -> float:
        """The sum of -log p over all tokens of a document but its first, which is given."""
        return float(-self.log_probabilities(ids).sum())

    @property
    def _pads(self) -> int:
        """Before each document: what the context of its first predicted token lacks, one at least to mark the start."""
        return max(self.order - 1, 1)

    def _padded(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full(self._pads, self.vocabulary, np.int64), ids])

    def _checked(self, document: np.ndarray) -> np.ndarray:
        ids = np.asarray(document)
        whole = ids.dtype.kind in "iu" or not ids.size
        if ids.ndim != 1 or not whole or ids.min(initial=0) < 0 or ids.max(initial=0) >= self.vocabulary:
            raise DataError(
                f"a document must be one row of token ids from 0 to {self.vocabulary - 1}. "
                f"Got {ids.dtype} of shape {ids.shape}" + (f", {ids.min()} to {ids.max()}." if ids.size else ".")
            )
        return ids.astype(np.int64)

    def _learn(self, x_T: np.ndarray) -> None:
        """The tables of all orders, of padded documents one after the other."""
        wide = self.vocabulary + 1
        predicted_T = x_T != self.vocabulary
        predicted_T[1:] &= x_T[:-1] != self.vocabulary
        keys, first, windows = _windows(x_T, wide, self.order)
        counts_N = np.bincount(windows[-1][predicted_T], minlength=len(keys[-1]))
        self._orders = []
        for k in range(self.order, 0, -1):
            if k < self.order:  # of a shorter window count the different tokens that came before it
                counts_N = np.bincount(windows[k - 1][first[k][counts_N > 0]], minlength=len(keys[k - 1]))
            self._orders.insert(0, _order(keys[k - 1], counts_N, wide, len(keys[k - 2]) if k > 1 else 1))


def _windows(x_T: np.ndarray, wide: int, order: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Of each length to ``order``: the sorted keys, where each ends first, and which window ends at each place."""
    keys, first, windows = [], [], [np.zeros(len(x_T), np.int32)]
    for k in range(1, order + 1):
        before = windows[-1][k - 2 : -1] if k > 1 else windows[0]
        found, place, number = np.unique(
            before.astype(np.int64) * wide + x_T[k - 1 :], return_index=True, return_inverse=True
        )
        keys.append(found)
        first.append((place + k - 1).astype(np.int32))
        windows.append(np.concatenate([np.full(k - 1, -1, np.int32), number.astype(np.int32)]))
    return keys, first, windows[1:]


def _order(keys_N: np.ndarray, counts_N: np.ndarray, wide: int, contexts: int) -> _Order:
    discounts_4, context_N = _discounts(counts_N), keys_N // wide
    total_M = np.bincount(context_N, counts_N, contexts)
    taken_M = np.bincount(context_N, discounts_4[np.minimum(counts_N, 3)], contexts)
    return _Order(keys_N, counts_N.astype(np.int32), discounts_4, total_M, taken_M / np.maximum(total_M, 1))


def _discounts(counts_N: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2 and 3 or more, by how many windows have which count (equation 26)."""
    _, one, two, three, four = np.bincount(np.minimum(counts_N, 5), minlength=6)[:5]
    if not (one and two and three and four):
        return _FALLBACK
    y = one / (one + 2 * two)
    found = np.array([0, 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three])
    return found if ((found[1:] > 0) & (found[1:] <= [1, 2, 3])).all() else _FALLBACK
