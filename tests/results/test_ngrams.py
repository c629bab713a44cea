"""n-gram probabilities are those of the definition, written out in loops; they sum to one; a compressor is beaten."""

import lzma
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from weft.errors import DataError, UsageError
from weft.results.ngrams import NGram

SHAKESPEARE = Path(__file__).parents[3] / "shared" / "data" / "shakespeare.txt"
PAD = "pad"


class Loops:
    """Modified Kneser-Ney (Chen & Goodman 1999), one dictionary an order."""

    def __init__(self, documents, vocabulary, order):
        self.vocabulary, self.order = vocabulary, order
        self.counts = [Counter() for _ in range(order + 1)]
        for document in documents:
            tokens = [PAD] * (order - 1) + list(document)
            for end in range(order, len(tokens)):
                self.counts[order][tuple(tokens[end - order + 1 : end + 1])] += 1
        for k in range(order - 1, 0, -1):
            before = defaultdict(set)
            for window in self.counts[k + 1]:
                before[window[1:]].add(window[0])
            self.counts[k] = Counter({window: len(left) for window, left in before.items()})

    def discounts(self, k):
        n = [sum(c == i for c in self.counts[k].values()) for i in range(5)]
        if 0 in n[1:]:
            return [0, 0.5, 1, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        d = [0, *(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))]
        return d if all(0 < d[i] <= i for i in (1, 2, 3)) else [0, 0.5, 1, 1.5]

    def probability(self, context, token):
        """``context``: exactly order - 1 tokens."""
        p = 1 / self.vocabulary
        for k in range(1, self.order + 1):
            h = tuple(context[len(context) - k + 1 :]) if k > 1 else ()
            here = {w[-1]: c for w, c in self.counts[k].items() if w[:-1] == h}
            if not here:
                continue
            d, total = self.discounts(k), sum(here.values())
            c = here.get(token, 0)
            p = (c - d[min(c, 3)]) / total + sum(d[min(c, 3)] for c in here.values()) / total * p
        return p

    def nats(self, document):
        tokens = [PAD] * (self.order - 1) + list(document)
        places = range(self.order, len(tokens))
        return -sum(math.log(self.probability(tokens[i - self.order + 1 : i], tokens[i])) for i in places)


def documents(number, vocabulary, seed=0, most=30):
    """Markov chains: some tokens are frequent, some never come."""
    draw = np.random.default_rng(seed)
    matrix = draw.dirichlet(np.full(vocabulary - 1, 0.3), vocabulary)
    found = []
    for _ in range(number):
        ids = [0]
        for _ in range(draw.integers(1, most)):
            ids.append(int(draw.choice(vocabulary - 1, p=matrix[ids[-1]])))
        found.append(np.array(ids))
    return found


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("number", "vocabulary"), [(60, 8), (3, 5), (200, 30)])
def test_it_is_the_definition(order, number, vocabulary):
    learnt, asked = documents(number, vocabulary), documents(6, vocabulary, seed=1)
    asked.append(np.array([0, vocabulary - 1, vocabulary - 1, 2, 1]))  # a token that never came
    ours, loops = NGram(vocabulary, order).fit(learnt), Loops(learnt, vocabulary, order)
    for document in asked:
        assert ours.nats(document) == pytest.approx(loops.nats(document.tolist()), rel=1e-9)


def test_discounts_are_estimated_where_there_are_counts():
    loops = Loops(documents(200, 30), 30, 3)
    assert loops.discounts(3) != [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_one_after_every_context(order):
    vocabulary = 6
    model = NGram(vocabulary, order).fit(documents(40, vocabulary))
    contexts = [[0], [1], [5], [0, 1], [5, 5, 5], [3, 2, 1, 0], [0, 5, 1], [4, 4, 4, 4, 4]]
    for context in contexts:
        p = np.exp([model.log_probabilities(np.array([*context, w]))[-1] for w in range(vocabulary)])
        assert p.sum() == pytest.approx(1, abs=1e-12) and (p > 0).all()


def test_documents_do_not_run_into_each_other():
    model = NGram(4, 3).fit([np.array([0, 1, 2]), np.array([0, 3, 2])] * 20)
    # 0 follows 2 only over the end of a document, and is never predicted
    after = np.exp([model.log_probabilities(np.array([0, 1, 2, w]))[-1] for w in range(4)])
    assert after[0] == after.min()
    assert model.log_probabilities(np.array([0, 1]))[0] == pytest.approx(math.log(0.5), abs=0.05)


def test_it_reads_no_further_than_it_may():
    def endless():
        while True:
            yield np.array([0, 1, 2, 1, 0])

    model = NGram(3, 3, most_tokens=1_001).fit(endless())
    assert model.tokens == 1_001


def test_it_learns_the_entropy_of_a_known_source():
    draw = np.random.default_rng(0)
    flips = (draw.random(60_000) < 0.1).astype(int)
    source = np.concatenate([[0], np.cumsum(flips) % 2])  # the next token is the last one, flipped in one of ten
    entropy = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    model = NGram(2, 2).fit([source[:50_000]])
    assert model.nats(source[50_000:]) / 10_000 == pytest.approx(entropy, rel=0.04)
    assert NGram(2, 1).fit([source[:50_000]]).nats(source[50_000:]) / 10_000 == pytest.approx(math.log(2), rel=0.01)


def test_real_text_is_better_known_by_longer_windows():
    if not SHAKESPEARE.exists():
        pytest.skip(f"{SHAKESPEARE} is not there")
    text = SHAKESPEARE.read_text(encoding="utf-8")[:300_000]
    letters, ids = np.unique(list(text), return_inverse=True)
    learnt, asked = ids[:270_000], ids[270_000:]
    bits = [NGram(len(letters), k).fit([learnt]).nats(asked) / math.log(2) / (len(asked) - 1) for k in (1, 2, 3, 5)]
    shares = np.bincount(learnt, minlength=len(letters)) / len(learnt)
    assert bits[0] == pytest.approx(-np.log2(shares[asked]).mean(), rel=1e-3)
    assert bits == sorted(bits, reverse=True) and bits[-1] < 2.5
    both, one = (len(lzma.compress(part.encode(), preset=9)) for part in (text, text[:270_000]))
    assert bits[-1] < 8 * (both - one) / 30_000 < 4


class TestBadInput:
    def test_ids_outside_the_vocabulary(self):
        with pytest.raises(DataError, match="from 0 to 4"):
            NGram(5).fit([np.array([0, 5])])
        model = NGram(5).fit([np.array([0, 1, 2])])
        for bad in ([-1, 0], [0.5, 1.0], [[0, 1]]):
            with pytest.raises(DataError, match="token ids"):
                model.nats(np.array(bad))

    def test_nothing_to_learn(self):
        for nothing in ([], [np.array([0])], [np.array([], int)]):
            with pytest.raises(DataError, match="two tokens or more"):
                NGram(5).fit(nothing)

    def test_orders_that_there_are_not_and_a_model_that_has_not_learnt(self):
        with pytest.raises(UsageError, match="Got 0"):
            NGram(5, 0)
        with pytest.raises(UsageError, match="Got 11"):
            NGram(5, 11)
        with pytest.raises(UsageError, match="fit"):
            NGram(5).nats(np.array([0, 1]))

    def test_a_document_with_nothing_to_predict_costs_nothing(self):
        model = NGram(5).fit([np.array([0, 1, 2])])
        assert model.nats(np.array([3])) == 0 and model.nats(np.array([], int)) == 0
