"""Players: the parts of a row that an explanation shares the answer out to, and what a row is without some of them.

A player is a number, a category, a time, a word of a text (a run of letters between spaces; where a script has no
spaces, the characters that one token of the tokenizer holds), a patch of a picture, or an event of a history. Without
a word the text is shorter, and so is a history without an event; without a value the row holds the typical one of the
training: the median, the most frequent category, the mean shade. Every method asks
the model about the same hidden rows, so their answers can be compared.

Shape suffixes: R rows explained, N hidden rows, P players of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from weft.features.codecs import CategoryCodec, Codec, Codes, NumberCodec, TextCodec
from weft.features.columns import Columns
from weft.features.histories import SequenceCodec
from weft.features.images import ImageCodec
from weft.features.ragged import take
from weft.features.store import RowCodes
from weft.preprocess.clean import CleanBatch
from weft.results.explain.texts import Player, Words, word_spans

SIDE = 7
MOST_WORDS = 120


class _Value:
    """A number, category or time: one player, hidden behind the typical value of the column."""

    def __init__(self, codec: Codec, array: pa.Array):
        self.players = [[Player(codec.name, in_words(codec, value))] for value in array.to_pylist()]
        self._hidden = len(array)
        self._codes = codec.encode(pa.concat_arrays([array, pa.array([typical(codec)], array.type)]))

    def codes(self, row: np.ndarray, present: Sequence[np.ndarray]) -> Codes:
        source = np.where([p[0] for p in present], row, self._hidden)
        return {name: take(array, source) for name, array in self._codes.items()}

    def owners(self, row: int, tokens: int) -> np.ndarray:
        return np.zeros(tokens, np.int64)


class _Words:
    """A text: each word is a player, hidden by leaving it out."""

    def __init__(self, codec: TextCodec, array: pa.Array):
        self.codec = codec
        self.words = [_words(codec, text or "") for text in array.to_pylist()]
        self.texts, self.players = [w.text for w in self.words], [w.players for w in self.words]

    def text(self, row: int, present: np.ndarray) -> str | None:
        """The text of a row without the words that are not present."""
        return self.words[row].without(present) or None

    def owners(self, row: int, tokens: int) -> np.ndarray:
        """-1: a token that stands between words, or closes the text."""
        assert self.codec.tokenizer is not None
        read = self.words[row].owners(self.codec.tokenizer)[: min(tokens, self.codec.max_tokens)]
        return np.pad(read, (0, tokens - len(read)), constant_values=-1)

    def words_of_grams(self, row: int, grams: list[int]) -> list[tuple[int, int, float]]:
        """(place in ``grams``, word, share) of each n-gram of a row: an n-gram belongs to the words it is made of."""
        assert self.codec.tokenizer is not None
        word = self.words[row].owners(self.codec.tokenizer)
        ids = self.codec.tokenizer.encode(self.texts[row], add_special_tokens=False).ids
        step = self.codec.tokenizer.get_vocab_size() + 1
        made: dict[int, list[int]] = {}
        for i, token in enumerate(ids):
            made.setdefault(token + 1, []).extend([int(word[i])] * 2)
            if i + 1 < len(ids):
                made.setdefault((token + 1) * step + ids[i + 1] + 1, []).extend([int(word[i]), int(word[i + 1])])
        found = []
        for place, gram in enumerate(grams):
            if gram >= 0:
                words = made[int(self.codec.grams[gram])]
                found += [(place, w, n / len(words)) for w, n in Counter(words).items()]
        return found

    def codes(self, row: np.ndarray, present: Sequence[np.ndarray]) -> Codes:
        texts = [self.text(r, p) for r, p in zip(row.tolist(), present, strict=True)]
        return self.codec.encode(pa.array(texts, pa.string()))


def _words(codec: TextCodec, text: str) -> Words:
    """Of a long text so many neighbouring words are one player that there are at most ``MOST_WORDS``."""
    words = len(word_spans(text, codec.tokenizer))
    return Words(codec.name, text, codec.tokenizer, max(1, -(-words // MOST_WORDS)))


class _Patches:
    """A picture: each of at most ``SIDE`` x ``SIDE`` patches is a player, hidden behind the mean shade of all."""

    def __init__(self, codec: ImageCodec, array: pa.Array):
        self._pixels = codec.encode(array)["pixels"]
        self._codes = {"present": array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)}
        side = self.side = min(SIDE, codec.size // 2)
        one = [Player(codec.name, f"patch {i // side + 1}, {i % side + 1}") for i in range(side * side)]
        self.players = [one if there else [] for there in self._codes["present"]]
        self._place = self._grid(codec.size)
        self._mean = np.round(np.array(codec.mean)).astype(np.uint8)[:, None, None]

    def codes(self, row: np.ndarray, present: Sequence[np.ndarray]) -> Codes:
        pixels = self._pixels[row]
        for picture, there in zip(pixels, present, strict=True):
            if len(there) and not there.all():
                shown = there.reshape(self.side, self.side)[np.ix_(self._place, self._place)]
                picture[:] = np.where(shown, picture, self._mean)
        return {"pixels": pixels, "present": self._codes["present"][row]}

    def picture(self, row: int) -> np.ndarray:
        """As the model sees it: [S, S] or [S, S, 3]."""
        return self._pixels[row].transpose(1, 2, 0).squeeze()

    def _grid(self, places: int) -> np.ndarray:
        """The row (or column) of patches in which the middle of each of so many places along a side lies."""
        return (np.arange(places) * 2 + 1) * self.side // (2 * places)

    def owners(self, row: int, tokens: int) -> np.ndarray:
        """The patches that tokens, or pixels, of a square grid lie in, row by row; -1 where there is no picture."""
        side = round(tokens**0.5)
        if not self.players[row] or side * side != tokens:
            return np.full(tokens, -1)
        place = self._grid(side)
        return (place[:, None] * self.side + place).ravel()


class _Items:
    """A history: each of the events that the model reads is a player, hidden by leaving it out."""

    def __init__(self, codec: SequenceCodec, array: pa.Array):
        self.codec, self._type = codec, array.type
        self._events = [(events or [])[-codec.max_events :] for events in array.to_pylist()]
        self.players = [[Player(codec.name, str(event["item"])) for event in events] for events in self._events]

    def codes(self, row: np.ndarray, present: Sequence[np.ndarray]) -> Codes:
        kept = [
            [e for e, there in zip(self._events[r], p, strict=True) if there]
            for r, p in zip(row.tolist(), present, strict=True)
        ]
        return self.codec.encode(pa.array(kept, self._type))

    def owners(self, row: int, tokens: int) -> np.ndarray:
        return np.where(np.arange(tokens) < len(self.players[row]), np.arange(tokens), -1)


Parts = _Value | _Words | _Patches | _Items
PARTS: dict[str, Callable[..., Parts]] = {
    "number": _Value, "category": _Value, "time": _Value, "text": _Words, "image": _Patches, "sequence": _Items,
}  # fmt: skip


class Players:
    """The players of some rows, column after column, and the codes of those rows without some of them.

    Args:
        columns: of the run.
        clean: the rows to explain, as the run's cleaner reads them.
    """

    def __init__(self, columns: Columns, clean: CleanBatch):
        self.columns = columns
        self.parts = {c.name: PARTS[c.type](c, clean.columns[c.name]) for c in columns.codecs}
        self.words = {name: part for name, part in self.parts.items() if isinstance(part, _Words)}
        self.pictures = {name: part for name, part in self.parts.items() if isinstance(part, _Patches)}
        self.rows = [[p for part in self.parts.values() for p in part.players[r]] for r in range(len(clean.rows))]
        self._slices: list[dict[str, slice]] = []
        for r in range(len(self.rows)):
            ends = np.cumsum([0, *(len(part.players[r]) for part in self.parts.values())]).tolist()
            self._slices.append(dict(zip(self.parts, map(slice, ends[:-1], ends[1:]), strict=True)))

    def codes(self, row: np.ndarray, present: Sequence[np.ndarray]) -> RowCodes:
        """Codes of N hidden rows: the ``row`` [N] each comes from, and which of its players [P] are ``present``."""
        return {
            name: part.codes(row, [p[self._slices[r][name]] for r, p in zip(row.tolist(), present, strict=True)])
            for name, part in self.parts.items()
        }

    def first(self, row: int, column: str) -> int:
        """The place of a column's first player among those of a row."""
        return self._slices[row][column].start

    def owners(self, row: int, column: str, tokens: int) -> np.ndarray:
        """The player of a row that owns each of the tokens (or pixels) that the model reads of a column; -1: none."""
        found = self.parts[column].owners(row, tokens)
        return np.where(found >= 0, found + self.first(row, column), -1)

    def groups(self, row: int) -> np.ndarray:
        """Which column each player of a row belongs to [P], counted from 0."""
        return np.repeat(np.arange(len(self.parts)), [len(part.players[row]) for part in self.parts.values()])


def in_words(codec: Codec, value: object) -> str:
    """A cell as a person reads it."""
    if value is None:
        return "(missing)"
    if codec.type == "time" and isinstance(value, float):
        return str(np.datetime64(int(value), "s")).replace("T", " ").removesuffix(" 00:00:00")
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def typical(codec: Codec) -> object:
    """The value that stands in the place of a hidden one: the median, the most frequent category, else none."""
    if isinstance(codec, CategoryCodec):
        return codec.categories[0] if codec.categories else None
    if isinstance(codec, NumberCodec):
        return codec.mean if codec.median is None else codec.median
    return None
