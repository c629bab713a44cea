"""Training rows changed: pictures (``weft.features.picture_augment``), and texts in other words.

Texts are translated away and back, words left out, swapped or mistyped (Wei & Zou 2019), spans of tokens hidden. A
word is what stands between spaces; where a script has none (Chinese, Japanese) each character is one. What a row
becomes depends on (seed, epoch, row) only: a resumed run reads what the stopped one would have read.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.config import Settings
from weft.data.plan import Plan
from weft.errors import SettingsError, listing
from weft.features.codecs import Ragged, TextCodec
from weft.features.columns import Columns
from weft.features.identities import Identities
from weft.features.images import ImageCodec
from weft.features.picture_augment import augmented, drawing
from weft.features.store import RowCodes
from weft.features.tokenizer import mask_token
from weft.preprocess.ingest import CleanRows
from weft.training_settings import AugmentSettings

UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
SPAN = 3  # tokens hidden together: one alone is mostly told by its neighbours
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {row[i]: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in KEYS for i in range(len(row))}


def augment_problem(settings: Settings, plan: Plan, tokenizer: Tokenizer | None) -> None:
    """Raises SettingsError where ``training.augment`` has nothing to change; ``tokenizer``: that of a checkpoint."""
    augment, kinds = settings.training.augment, set(plan.types.values())
    problems = []
    if settings.training.cutmix and kinds != {"image"}:
        problems.append("training.cutmix: mixes pictures, so that the row must hold nothing else. Remove it.")
    for kind, given in (("text", augment.for_texts), ("image", augment.for_pictures)) if augment else ():
        if given and kind not in kinds:
            problems.append(
                f"training.augment: {listing(given)} changes {kind} columns. The table has none. Remove it."
            )
    if augment and augment.mask and tokenizer is not None and mask_token(tokenizer) is None:
        problems.append(
            f"training.augment.mask: needs a token that hides others. The tokenizer of {settings.model.from_} has "
            f"none. Remove it, or say delete."
        )
    if problems:
        raise SettingsError(problems)


class Augmenter:
    """Codes of training rows whose texts and pictures are changed.

    ``clean`` holds the rows that ``columns`` encoded, in the same order; ``seed`` is that of the training;
    ``paraphrases`` the texts of the same rows as they were translated away and back, missing where there is none.
    """

    def __init__(
        self, settings: AugmentSettings, clean: CleanRows, columns: Columns, seed: int,
        paraphrases: CleanRows | None = None,
    ):  # fmt: skip
        self.settings, self.clean, self.seed, self.paraphrases = settings, clean, seed, paraphrases
        texts, pictures = bool(settings.for_texts), bool(settings.for_pictures)
        self.codecs = [c for c in columns.codecs if isinstance(c, TextCodec) and texts]
        self.images = [c for c in columns.codecs if isinstance(c, ImageCodec) and pictures]
        self.identities = Identities()
        self.mask = mask_token(columns.tokenizer) if columns.tokenizer else None

    def __call__(self, codes: RowCodes, rows: np.ndarray, epoch: int) -> RowCodes:
        """``codes`` of ``rows`` with the text columns encoded anew and other pixels."""
        codes = dict(codes)
        for column, image in enumerate(self.images):
            fields, draw = codes[image.name], drawing(self.seed, epoch, rows, column)
            codes[image.name] = fields | {"pixels": augmented(fields["pixels"], image.mean, self.settings, draw)}
        if not self.codecs:
            return codes
        random = [
            np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, int(r), 0, 0])) for r in rows
        ]
        texts = self._texts(rows, random)
        if self.settings.identity:
            texts = self._exchanged(texts, random)
        for codec in self.codecs:
            pairs = zip(texts[codec.name], random, strict=True)
            changed = [t and reworded(t, self.settings, r) for t, r in pairs]
            found = codes[codec.name] = codec.encode(pa.array(changed, pa.string()))
            if self.settings.mask and self.mask is not None:
                found["tokens"] = hide_spans(found["tokens"], self.settings.mask, self.mask, random)
        return codes

    def _exchanged(
        self, texts: dict[str, list[str | None]], random: list[np.random.Generator]
    ) -> dict[str, list[str | None]]:
        """The texts of the rows, a share of them with one identity in the place of another."""
        found = {name: list(cells) for name, cells in texts.items()}
        for row, draw in enumerate(random):
            if draw.random() >= self.settings.identity:
                continue
            ways = self.identities.swaps([cells[row] or "" for cells in texts.values()])
            if ways:
                kind, a, b = ways[int(draw.integers(len(ways)))]
                for cells in found.values():
                    if text := cells[row]:
                        cells[row] = self.identities.swapped(text, kind, a, b)
        return found

    def _texts(self, rows: np.ndarray, random: list[np.random.Generator]) -> dict[str, list[str | None]]:
        """The text columns of some rows, a share of the rows as translated away and back in all columns."""
        names = [c.name for c in self.codecs]
        own = {name: texts.to_pylist() for name, texts in self.clean.take(rows, names).items()}
        if self.paraphrases is None or self.settings.back_translation is None:
            return own
        other = self.paraphrases.take(rows, names)
        chosen = [r.random() < self.settings.back_translation.share for r in random]
        return {
            name: [b if c and b else a for a, b, c in zip(own[name], other[name].to_pylist(), chosen, strict=True)]
            for name in names
        }


def reworded(text: str, settings: AugmentSettings, random: np.random.Generator) -> str:
    """``text`` with some words mistyped, swapped with the next, left out (never all); spaces stay in place."""
    words, gaps = WORD.findall(text), WORD.split(text)
    if not words:
        return text
    for i in np.flatnonzero(random.random(len(words)) < settings.typo):
        words[i] = mistyped(words[i], random)
    for i in np.flatnonzero(random.random(len(words) - 1) < settings.swap):
        words[i], words[i + 1] = words[i + 1], words[i]
    stays = random.random(len(words)) >= settings.delete
    stays[random.integers(len(words))] |= not stays.any()
    return gaps[0] + "".join(w + g for w, g, s in zip(words, gaps[1:], stays, strict=True) if s)


def mistyped(word: str, random: np.random.Generator) -> str:
    """A slip at one letter: doubled, left out, before its predecessor, or the key beside it."""
    way, i = random.integers(4), int(random.integers(len(word)))
    key = NEIGHBOURS.get(word[i].lower(), "")
    if way == 0 or len(word) == 1:
        return word[: i + 1] + word[i:]
    if way == 1:
        return word[:i] + word[i + 1 :]
    if way == 2 or not key:
        i = max(i, 1)
        return word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :]
    return word[:i] + key[int(random.integers(len(key)))] + word[i + 1 :]


def hide_spans(tokens: Ragged, share: float, mask: int, random: list[np.random.Generator]) -> Ragged:
    """Each token is behind ``mask`` with probability ``share``, in runs of ``SPAN`` (SpanBERT, Joshi 2020)."""
    start = 1 - (1 - share) ** (1 / SPAN)  # a token is hidden by a span that starts at one of SPAN places
    values = tokens.values.copy()
    for i, row in enumerate(random):
        here = values[tokens.offsets[i] : tokens.offsets[i + 1]]
        starts = row.random(len(here) + SPAN - 1) < start
        here[np.any([starts[k : k + len(here)] for k in range(SPAN)], axis=0)] = mask
    return Ragged(values, tokens.offsets)
