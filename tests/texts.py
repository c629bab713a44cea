"""Small corpora for tests of language tasks."""

import numpy as np

from weft.features.codecs import Ragged
from weft.features.documents import Documents

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "sat",
    "ran",
    "flew",
    "on",
    "under",
    "over",
    "mat",
    "tree",
    "house",
    "red",
    "blue",
    "old",
    "small",
    "and",
    "then",
]


def documents(ids):
    """Documents of given token ids."""
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
    sizes = np.array([len(i) for i in ids], np.int64)
    return Documents(Ragged(np.concatenate(ids).astype(np.int64), offsets), sizes, sizes)


def sentences(count, seed=0, words=12):
    """Sentences with something to learn: every word is followed by one of three others."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        place, text = int(random.integers(len(WORDS))), []
        for _ in range(int(random.integers(3, words))):
            text.append(WORDS[place])
            place = (3 * place + int(random.integers(3))) % len(WORDS)
        found.append(" ".join(text) + ".")
    return found


def novel(letters, seed=0):
    """A plain text of lines of a few sentences each."""
    lines, size = [], 0
    for number, sentence in enumerate(sentences(letters // 10, seed)):
        lines.append(sentence + ("\n" if number % 4 == 3 else " "))
        size += len(lines[-1])
        if size >= letters:
            break
    return "".join(lines)
