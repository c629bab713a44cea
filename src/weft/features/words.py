"""Tokens of many texts, each different word spelt once.

Byte-level BPE never joins what a single space parts (it cuts before ``" word"``), so that the tokens of a text are
those of its words in turn. In a table the same words come again and again: to look them up is many times as fast as
to spell them. Texts with longer runs of spaces, where a cut depends on what follows, are looked up whole.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, pre_tokenizers

from weft.features.ragged import Ragged, bounds, joined
from weft.features.tokenizer import is_own

_OTHER = r"[\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_WHOLE = rf"   |  $|^ | {_OTHER}|{_OTHER} "
MOST_WORDS = 1 << 18
LETTERS_AT_ONCE = 1 << 21


class Speller:
    """Texts to tokens, exactly as ``tokenizer`` gives them; words are remembered where that is possible."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        cut = tokenizer.pre_tokenizer
        self.by_word = is_own(tokenizer) and isinstance(cut, pre_tokenizers.ByteLevel) and cut.add_prefix_space
        self._places: dict[str, int] = {}
        self._known = Ragged.of([], np.int32)

    def __call__(self, array: pa.Array) -> Ragged:
        """The tokens of each text; a missing one has none."""
        texts = pc.fill_null(array, "")
        letters = np.cumsum(pc.binary_length(texts).to_numpy())
        found, start = [], 0
        while start < len(texts):
            base = letters[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(letters, base + LETTERS_AT_ONCE, side="right")))
            some = texts.slice(start, stop - start)
            found.append(self._by_word(some) if self.by_word else self._spell(some.to_pylist()))
            start = stop
        return joined(found or [Ragged.of([], np.int32)])

    def _by_word(self, texts: pa.Array) -> Ragged:
        whole = pc.match_substring_regex(texts, _WHOLE).to_numpy(zero_copy_only=False)
        empty = pc.equal(texts, "").to_numpy(zero_copy_only=False)
        parted = pc.split_pattern(texts.filter(pa.array(~whole & ~empty)), " ")
        counts = np.ones(len(texts), np.int64)
        counts[empty] = 0
        counts[~whole & ~empty] = np.diff(parted.offsets.to_numpy())
        words = pa.concat_arrays([parted.flatten(), texts.filter(pa.array(whole))]).dictionary_encode()
        place = self._look_up(words.dictionary.to_pylist())[words.indices.to_numpy()]
        if whole.any():
            at_once, order = np.repeat(whole, counts), np.empty(len(place), np.int64)
            order[~at_once], order[at_once] = np.split(place, [len(place) - int(whole.sum())])
            place = order
        found = self._known.take(place)
        return Ragged(found.values, found.offsets[bounds(counts)])

    def _look_up(self, words: list[str]) -> np.ndarray:
        """The places of the words among the known ones; new ones are spelt."""
        if len(self._places) > MOST_WORDS:
            self._places, self._known = {}, Ragged.of([], np.int32)
        new = [word for word in words if word not in self._places]
        self._places.update(zip(new, range(len(self._places), len(self._places) + len(new)), strict=True))
        self._known = joined([self._known, self._spell([word if word[:1] == " " else " " + word for word in new])])
        return np.fromiter((self._places[word] for word in words), np.int64, len(words))

    def _spell(self, texts: list[str]) -> Ragged:
        return Ragged.of([e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)], np.int32)
