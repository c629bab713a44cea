"""Codecs: learn from a column while it streams by (``observe``, ``finish``), then values <-> codes.

| type     | codes a row                                   | learnt                                    |
|----------|-----------------------------------------------|-------------------------------------------|
| number   | ``value`` float32, standardised, NaN = missing | mean, deviation, median, edges of bins    |
|          | ``spike`` int32, 0 = not a frequent value      | values that occur often                   |
| category | ``code`` int32, 0 = missing, 1 = unknown       | the categories, most frequent first       |
| time     | ``seconds`` int64 since 1970, lowest = missing | mean, deviation, edges of bins            |
| text     | ``tokens``, as many as the text has            | length in tokens; the tokenizer is shared |
|          | ``gram``, ``weight``: its tokens and pairs     | tokens and pairs that several texts hold  |
| image    | ``pixels`` uint8 [C, S, S], ``present``         | size, colours, mean and deviation         |
| sequence | ``items``, ``gap``, ``rating``: its last events | the items (``weft.features.histories``)   |

A codec is saved as JSON beside the weights, never pickled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import copy
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data_settings import FeatureSettings
from weft.features.categories import FIRST as FIRST
from weft.features.categories import MISSING as MISSING
from weft.features.categories import UNKNOWN as UNKNOWN
from weft.features.categories import CategoryCodec
from weft.features.codec import Codec as Codec
from weft.features.codec import Codes as Codes
from weft.features.histories import SequenceCodec
from weft.features.images import ImageCodec
from weft.features.ragged import Ragged as Ragged
from weft.features.ragged import bounds
from weft.features.streams import Moments as Moments
from weft.features.streams import Sampler
from weft.features.words import Speller

BINS = 32
MOST_SPIKES = 256
SPIKE_ROWS = 8
MISSING_TIME = np.iinfo(np.int64).min
MOST_TOKENS = 160
MOST_GRAMS = 200_000
GRAM_ROWS, GRAM_TOKENS = 200_000, 10_000_000
RAGGED = {"text": "tokens", "sequence": "items"}
"""Column types whose rows have any number of tokens, and the field that says how many."""


class NumberCodec(Codec):
    """Standardised value, which the embedding unfolds over ``edges``, and whether it is a frequent value.

    Half of the edges are quantiles of the rows, half quantiles of the distinct values, so that a long tail
    has bins too. A value that many rows share (0 of a gain, 40 hours a week) often means something of its
    own: it is a spike, with a vector beside the bins.
    """

    type = "number"
    fields: ClassVar = {"value": np.float32, "spike": np.int32}

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        super().__init__(name, settings)
        self.mean, self.deviation = 0.0, 1.0
        self.median: float | None = None
        self.edges, self.spikes = np.zeros(0), np.zeros(0)
        self._sampler, self._moments = Sampler(), Moments()
        self._quantiles, self._parts = np.zeros(0), list[NumberCodec]()

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        values = numbers(array)
        present = ~np.isnan(values)
        self._moments.add(values[present])
        self._sampler.add(rows[present], values[present])

    def join(self, other: NumberCodec) -> None:
        self._moments.merge(other._moments)
        self._sampler.join(other._sampler)

    def finish(self) -> None:
        sample = self._sampler.values().astype(np.float64)
        self.mean = self._moments.mean
        self.deviation = self._moments.deviation or 1.0
        self.median = float(np.quantile(sample, 0.5, method="nearest")) if len(sample) else None
        distinct, counts = np.unique(sample, return_counts=True)
        self._quantiles = _edges(sample, distinct)
        self.edges = (self._quantiles - self.mean) / self.deviation
        self.spikes = np.zeros(0)
        if len(distinct) > 2:
            order = np.lexsort((distinct, -counts))[:MOST_SPIKES]
            self.spikes = np.sort(distinct[order[counts[order] >= SPIKE_ROWS]])
        self._sampler = Sampler()

    def merge(self, other: NumberCodec) -> None:
        """Mean and deviation are those of all rows; edges are quantiles of the edges of each, weighed by its rows."""
        if not self._parts:
            self._parts = [copy(self)]
            self._moments = copy(self._moments)
        self._parts.append(other)
        self._moments.merge(other._moments)
        self.mean, self.deviation = self._moments.mean, self._moments.deviation or 1.0
        some = [p for p in self._parts if p._moments.count]
        if not some:
            return
        rows = np.array([p._moments.count for p in some], np.float64)
        self.median = _quantiles(np.array([p.median for p in some]), rows, np.array([0.5]))[0].item()
        edges = np.concatenate([p._quantiles for p in some])
        found = np.unique(edges)
        if len(found) > BINS + 1:
            counts = np.array([len(p._quantiles) for p in some])
            weights = np.repeat(rows / counts, counts)
            found = np.unique(_quantiles(edges, weights, np.linspace(0, 1, BINS + 1)))
        self.edges = (found - self.mean) / self.deviation
        held: Counter[float] = Counter()
        for part, count in zip(some, rows, strict=True):
            held.update(dict.fromkeys(part.spikes.tolist(), count))
        self.spikes = np.sort(np.array([value for value, _ in held.most_common(MOST_SPIKES)]))

    def encode(self, array: pa.Array) -> Codes:
        values = numbers(array)
        spike = np.zeros(len(values), np.int32)
        if len(self.spikes):
            place = np.minimum(np.searchsorted(self.spikes, values), len(self.spikes) - 1)
            spike = np.where(self.spikes[place] == values, place + 1, 0).astype(np.int32)
        with np.errstate(over="ignore"):
            return {"value": ((values - self.mean) / self.deviation).astype(np.float32), "spike": spike}

    def decode(self, codes: Codes) -> list:
        back = codes["value"].astype(np.float64) * self.deviation + self.mean
        return [None if np.isnan(v) else float(v) for v in back]

    def state(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "edges": self.edges.tolist(),
            "spikes": self.spikes.tolist(),
            **({} if self.median is None else {"median": self.median}),  # a run of 0.1 has none
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean, self.deviation = float(state["mean"]), float(state["deviation"])
        self.median = state.get("median")
        self.edges = np.array(state["edges"], np.float64)
        self.spikes = np.array(state["spikes"], np.float64)


def numbers(array: pa.Array) -> np.ndarray:
    """float64 with NaN where missing; beyond 1e100, where squares would overflow, a number is 1e100."""
    return np.clip(array.to_numpy(zero_copy_only=False).astype(np.float64), -1e100, 1e100)


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The least of the values that so large shares of the weight do not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return values[order[np.minimum(np.searchsorted(reached / reached[-1], shares - 1e-9), len(order) - 1)]]


def _edges(sample: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """Ascending edges of at most ``BINS`` bins."""
    if len(distinct) <= BINS + 1:
        return distinct
    half = BINS // 2
    by_row = np.quantile(sample, np.linspace(0, 1, BINS + 1 - half), method="nearest")
    by_value = np.quantile(distinct, np.linspace(0, 1, half + 2)[1:-1], method="nearest")
    return np.unique(np.concatenate([by_row, by_value]))


class TimeCodec(NumberCodec):
    """Whole seconds; the embedding unfolds them into calendar parts and the time elapsed."""

    type = "time"
    fields: ClassVar = {"seconds": np.int64}

    def encode(self, array: pa.Array) -> Codes:
        values = numbers(array)
        missing = np.isnan(values)
        seconds = np.floor(np.where(missing, 0, values)).astype(np.int64)
        return {"seconds": np.where(missing, MISSING_TIME, seconds)}

    def decode(self, codes: Codes) -> list:
        return [None if s == MISSING_TIME else float(s) for s in codes["seconds"]]


class TextCodec(Codec):
    """Tokens of a text by the tokenizer that all text columns of a run share, and its bag of n-grams.

    The bag holds the tokens and pairs of neighbouring tokens of the whole text that at least two training
    texts hold, each weighted (1 + ln count) * ln((1 + N) / (1 + documents)) + 1 and scaled to length one: the
    TF-IDF of a linear model, for the linear path of the model.
    """

    type = "text"
    fields: ClassVar = {"tokens": np.int32, "gram": np.int32, "weight": np.float32}

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        super().__init__(name, settings)
        self.max_tokens = (settings.max_tokens if settings else None) or 0
        self.tokenizer: Tokenizer | None = None
        self.lengths = np.zeros(0, np.int64)
        """Of a sample of the training texts in tokens, rising; known while a run is made."""
        self.texts = self._seen = 0
        self._speller: Speller | None = None
        self.grams, self.documents = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sampler = Sampler(4_000)

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        self._sampler.add(rows[array.is_valid().to_numpy(zero_copy_only=False)], array.drop_null())

    def join(self, other: TextCodec) -> None:
        self._sampler.join(other._sampler)

    @property
    def counted(self) -> bool:
        """Whether enough texts were looked at."""
        return self.texts >= GRAM_ROWS or self._seen >= GRAM_TOKENS

    def count(self, array: pa.Array) -> None:
        """A second look at training texts, once the tokenizer is trained: which n-grams the first of them hold."""
        if self.counted:
            return
        tokens = self._tokens(array.slice(0, GRAM_ROWS - self.texts))
        rows = int(np.searchsorted(tokens.offsets, GRAM_TOKENS - self._seen, side="right"))
        rows = min(rows, len(tokens))  # the text that reaches the limit is the last
        tokens = tokens.first(np.where(np.arange(len(tokens)) < rows, tokens.lengths(), 0))
        self._seen += len(tokens.values)
        self.texts += rows
        grams, documents = np.unique(_once_a_row(*self._all_grams(tokens), self._gram_bound)[1], return_counts=True)
        self._add(grams, documents)

    def _add(self, grams: np.ndarray, documents: np.ndarray) -> None:
        place = np.searchsorted(self.grams, grams)
        old = np.append(self.grams, -1)[place] == grams
        self.documents[place[old]] += documents[old]
        self.grams = np.insert(self.grams, place[~old], grams[~old])
        self.documents = np.insert(self.documents, place[~old], documents[~old])

    def finish(self) -> None:
        """Needs ``tokenizer``; sets ``max_tokens`` to the 99th percentile of the lengths where not given."""
        lengths = self._tokens(pa.array([str(t) for t in self._sampler.values()], pa.string())).lengths()
        self.lengths = np.sort(lengths)
        if not self.max_tokens:
            self.max_tokens = int(min(MOST_TOKENS, max(8, np.quantile(lengths, 0.99)))) if len(lengths) else 8
        self._keep_frequent()
        self._sampler = Sampler(4_000)

    def _keep_frequent(self) -> None:
        keep = np.flatnonzero(self.documents >= 2)
        if len(keep) > MOST_GRAMS:
            keep = np.sort(keep[np.argsort(-self.documents[keep], kind="stable")[:MOST_GRAMS]])
        self.grams, self.documents = self.grams[keep], self.documents[keep]

    def merge(self, other: TextCodec) -> None:
        """An n-gram is kept that at least two texts of one of them hold."""
        self.max_tokens = max(self.max_tokens, other.max_tokens)
        self.lengths = np.sort(np.concatenate([self.lengths, other.lengths]))
        self.texts += other.texts
        self._add(other.grams, other.documents)
        self._keep_frequent()

    def encode(self, array: pa.Array) -> Codes:
        """A missing text has no tokens; a longer one keeps its first ``max_tokens``, and its whole bag."""
        tokens = self._tokens(array)
        return {"tokens": tokens.first(np.minimum(tokens.lengths(), self.max_tokens)), **self._bag(tokens)}

    def decode(self, codes: Codes) -> list:
        assert self.tokenizer is not None
        return [text or None for text in self.tokenizer.decode_batch([row.tolist() for row in codes["tokens"]])]

    def _tokens(self, array: pa.Array) -> Ragged:
        assert self.tokenizer is not None
        if self._speller is None or self._speller.tokenizer is not self.tokenizer:
            self._speller = Speller(self.tokenizer)
        return self._speller(array)

    @property
    def _gram_bound(self) -> int:
        assert self.tokenizer is not None
        return (self.tokenizer.get_vocab_size() + 1) ** 2 + self.tokenizer.get_vocab_size() + 1

    def _all_grams(self, tokens: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """(row, gram) of every token and every pair of neighbours."""
        assert self.tokenizer is not None
        row = np.repeat(np.arange(len(tokens)), tokens.lengths())
        one = tokens.values.astype(np.int64) + 1
        same = row[:-1] == row[1:]
        pair = one[:-1][same] * (self.tokenizer.get_vocab_size() + 1) + one[1:][same]
        return np.concatenate([row, row[:-1][same]]), np.concatenate([one, pair])

    def _bag(self, tokens: Ragged) -> Codes:
        rows, (row, gram) = len(tokens), self._all_grams(tokens)
        # sorted by gram, each is looked up once; then back to the order of the rows, the count in the low bits
        gram, row, count = _once_a_row(gram, row, max(1, rows))
        first = np.flatnonzero(np.append(True, gram[1:] != gram[:-1])) if len(gram) else np.zeros(0, np.int64)
        place = np.searchsorted(self.grams, gram[first])
        place[np.append(self.grams, -1)[place] != gram[first]] = -1
        place = np.repeat(place, np.diff(np.append(first, len(gram))))
        known, most = place >= 0, max(1, len(self.grams))
        pair = np.sort((row[known] * most + place[known]) << 20 | np.minimum(count[known], (1 << 20) - 1))
        row, place = np.divmod(pair >> 20, most)
        count = pair & ((1 << 20) - 1)
        idf = np.log((1 + self.texts) / (1 + self.documents)) + 1
        weight = (1 + np.log(count)) * idf[place]
        length = np.sqrt(np.bincount(row, weight**2, minlength=rows))
        offsets = bounds(np.bincount(row, minlength=rows))
        return {
            "gram": Ragged(place.astype(np.int32), offsets),
            "weight": Ragged((weight / length[row]).astype(np.float32), offsets),
        }

    def state(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "texts": self.texts,
            "grams": self.grams.tolist(),
            "documents": self.documents.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.max_tokens, self.texts = int(state["max_tokens"]), int(state["texts"])
        self.grams = np.array(state["grams"], np.int64)
        self.documents = np.array(state["documents"], np.int64)


def _once_a_row(row: np.ndarray, value: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (row, value) pairs in order, and how often each came. ``bound``: above every value."""
    pair = np.sort(row * bound + value)
    starts = np.flatnonzero(np.append(True, pair[1:] != pair[:-1])) if len(pair) else np.zeros(0, np.int64)
    found = pair[starts]
    return found // bound, found % bound, np.diff(np.append(starts, len(pair)))


CODECS: dict[str, type[Codec]] = {
    c.type: c for c in (NumberCodec, CategoryCodec, TimeCodec, TextCodec, ImageCodec, SequenceCodec)
}
