"""Metrics of texts that a model wrote, with the field's definitions and their signatures.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacrebleu's; ROUGE (Lin 2004) and SQuAD's exact match and F1
(Rajpurkar et al. 2016, 2018) are our own, because the usual ROUGE drops every Chinese character. Of a text only its
sufficient statistics are kept, a few numbers a row, from which a corpus figure or a resample of it is one sum.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import regex
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from weft.errors import DataError, UsageError, did_you_mean, listing
from weft.results.metrics import Estimate, Weighted, mean_of, with_intervals

FAMILIES = {
    "bleu": ("bleu",),
    "chrf": ("chrf",),
    "rouge": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "squad": ("exact_match", "answer_f1"),
}
"""What can be measured together, and the keys of its figures in ``METRICS``."""

# a character where words are not spaced (Chinese, Japanese), else a word
UNIT = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\w--[\p{Han}\p{Hiragana}\p{Katakana}]]+", regex.V1)
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_HAN = regex.compile(r"\p{Han}")
_LETTER = regex.compile(r"\p{L}")
_SOME_HAN = 0.1


class TextScores:
    """Figures of a whole table of written texts, whose rows come in batches and are not kept.

    Args:
        families: of ``FAMILIES``.
        language: ``zh`` or ``ja`` choose the units of BLEU, ``zh`` those of answers; ``other`` is for languages
            that put spaces between words. None: by the script of the references of the first batch.
    """

    def __init__(self, families: Sequence[str] = ("bleu", "chrf"), language: str | None = None):
        for family in families:
            if family not in FAMILIES:
                raise UsageError(
                    f"metrics of texts must be of {listing(FAMILIES)}. Got '{family}'.{did_you_mean(family, FAMILIES)}"
                )
        if language not in (None, "zh", "ja", "other"):
            raise UsageError(f"the language of the references must be 'zh', 'ja' or 'other'. Got '{language}'.")
        self.families, self.language, self.rows = tuple(families), language, 0
        self._statistics: dict[str, list[np.ndarray]] = {family: [] for family in families}
        self._references: set[int] = set()
        self._sacre: dict[str, Any] = {"bleu": BLEU(), "chrf": CHRF()}

    def add(self, written: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Take in some rows: a text each, and for each row the one or more texts that would have been right.

        Answers (``squad``) may have no reference or an empty one: there is no answer, and only an empty text is right.

        Raises:
            DataError: the numbers of rows differ, or a row has no reference.
        """
        if len(written) != len(references):
            raise DataError(
                f"there must be as many written texts as rows of references. Got {len(written)} and {len(references)}."
            )
        if not written:
            return
        if set(self.families) - {"squad"} and not all(references):
            row = self.rows + next(i for i, found in enumerate(references) if not found)
            raise DataError(f"row {row}: must have a reference. Got none. Leave the row out, or give an empty text.")
        if self.language is None:
            self.language = language_of(text for row in references for text in row)
        if not self.rows:
            self._sacre["bleu"] = BLEU(tokenize=_bleu_tokenizer(self.language))
        self._references.update(map(len, references))
        for family, kept in self._statistics.items():
            kept.append(self._family(family, written, references))
        self.rows += len(written)

    def _family(self, family: str, written: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """The statistics [N, K] of some rows."""
        if family == "rouge":
            each = zip(written, references, strict=True)
            return np.array([np.max([rouge(w, one) for one in r], axis=0) for w, r in each])
        if family == "squad":
            chinese = self.language == "zh"
            return np.array([answer_scores(w, r, chinese) for w, r in zip(written, references, strict=True)])
        most = max(map(len, references))
        # sacrebleu takes the first references of all rows, then the second ones, None where a row has no more
        turned = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
        return np.array(self._sacre[family]._extract_corpus_statistics(written, turned), np.int32)

    def metrics(self) -> dict[str, Weighted]:
        """Each figure as a function of the weights of the rows: BLEU and chrF of 0 to 100, the others of 0 to 1.

        Raises:
            DataError: no rows came.
        """
        if not self.rows:
            raise DataError("metrics of texts need rows. Got none.")
        found: dict[str, Weighted] = {}
        for family in (f for f in FAMILIES if f in self._statistics):
            table = np.concatenate(self._statistics[family])
            self._statistics[family] = [table]
            if family in self._sacre:
                found[family] = _of_sums(table, self._sacre[family])
            else:
                found |= {key: mean_of(table[:, place]) for place, key in enumerate(FAMILIES[family])}
        return found

    def estimates(self, seed: int = 0) -> dict[str, Estimate]:
        """Each figure with its 95 % bootstrap interval over the rows (Koehn 2004)."""
        return with_intervals(self.metrics(), self.rows, seed)

    def signatures(self) -> dict[str, str]:
        """What another needs to get the same figures: sacrebleu's signatures, and our words for the others."""
        many = self._references.pop() if len(self._references) == 1 else -1
        self._references.add(many)
        found = {}
        for family in self.families:
            if family in self._sacre:
                self._sacre[family].num_refs = many
                found[family] = str(self._sacre[family].get_signature())
            elif family == "rouge":
                found[family] = "F1, mean of rows|units: characters of Chinese and Japanese, else words|case:lc|stem:no"
            else:
                how = "MLQA, mixed segmentation" if self.language == "zh" else "SQuAD 2.0"
                found[family] = f"{how}|best of references"
        return found


def language_of(references: Iterable[str]) -> str:
    """``ja`` where there is kana, ``zh`` where a tenth of the letters or more are Chinese, else ``other``."""
    han = kana = letters = 0
    for text in references:
        letters += len(_LETTER.findall(text))
        han += len(_HAN.findall(text))
        kana += len(_KANA.findall(text))
    if han + kana < _SOME_HAN * max(letters, 1) or not han + kana:
        return "other"
    return "ja" if kana >= _SOME_HAN * (han + kana) else "zh"


def _bleu_tokenizer(language: str) -> str:
    if language != "ja":
        return "zh" if language == "zh" else "13a"
    try:
        BLEU(tokenize="ja-mecab")
    except RuntimeError:  # MeCab is not installed; the signature says what was done
        return "char"
    return "ja-mecab"


def _of_sums(table: np.ndarray, metric: Any) -> Weighted:
    return lambda w: float(metric._compute_score_from_stats((w @ table).tolist()).score)


# ---- ROUGE


def rouge(written: str, reference: str) -> list[float]:
    """ROUGE-1, -2, -L and -Lsum as F1 of 0 to 1; the same text scores 1 in any language.

    Units are not stemmed. The sentences of Lsum are lines.
    """
    a, b = units(written), units(reference)
    if a == b and (a or written.strip() == reference.strip()):
        return [1.0, 1.0, 1.0, 1.0]
    common = int(_lcs_table(b, a)[-1, -1]) if a and b else 0
    return [
        _overlap(Counter(a), Counter(b)),
        _overlap(Counter(pairwise(a)), Counter(pairwise(b))),
        _f1(common, len(a), len(b)),
        _f1(_summary_hits(written, reference), len(a), len(b)),
    ]


def units(text: str) -> list[str]:
    """Characters of Chinese and Japanese, and lower-cased words of everything else."""
    return UNIT.findall(text.lower())


def _overlap(a: Counter, b: Counter) -> float:
    return _f1((a & b).total(), a.total(), b.total())


def _f1(both: int, a: int, b: int) -> float:
    return 2 * both / (a + b) if both else 0.0


def _lcs_table(a: Sequence[str], b: Sequence[str]) -> np.ndarray:
    """Lengths [len(a) + 1, len(b) + 1] of the longest common subsequences of all beginnings of a and b."""
    codes: dict[str, int] = {}
    x = np.array([codes.setdefault(unit, len(codes)) for unit in a], np.int64)
    y = np.array([codes.setdefault(unit, len(codes)) for unit in b], np.int64)
    table = np.zeros((len(a) + 1, len(b) + 1), np.int32)
    for i, code in enumerate(x):
        longer = np.maximum(table[i, 1:], table[i, :-1] + (y == code))
        table[i + 1, 1:] = np.maximum.accumulate(longer)
    return table


def _summary_hits(written: str, reference: str) -> int:
    """Units of the reference's lines that lie on a common subsequence with any line that was written.

    Every unit counts at most as often as it is in both (ROUGE-1.5.5); ties are broken as Google's rouge-score does.
    """
    a = [units(line) for line in written.split("\n")]
    b = [units(line) for line in reference.split("\n")]
    left = Counter(u for line in a for u in line) & Counter(u for line in b for u in line)
    hits = 0
    for line in b:
        for place in sorted(set().union(*(_lcs_places(line, other) for other in a))):
            if left[line[place]] > 0:
                left[line[place]] -= 1
                hits += 1
    return hits


def _lcs_places(a: Sequence[str], b: Sequence[str]) -> set[int]:
    """Places in ``a`` of one longest common subsequence with ``b``."""
    table = _lcs_table(a, b)
    i, j, places = len(a), len(b), set()
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            places.add(i)
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places


# ---- SQuAD

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = regex.compile(r"\p{P}|[" + regex.escape(string.punctuation) + "]")
_MIXED = regex.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")  # the range of the MLQA script


def normalized_answer(text: str, chinese: bool = False) -> list[str]:
    """The units of an answer that are compared.

    English as SQuAD's script: lower case, without ASCII punctuation and articles, words. Chinese as MLQA's script:
    lower case, without punctuation, characters of Chinese apart and words of the rest (mixed segmentation).
    """
    if chinese:
        return _MIXED.findall(_PUNCTUATION.sub("", text.lower()))
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLE.sub(" ", plain).split()


def answer_scores(written: str, references: Sequence[str], chinese: bool) -> list[float]:
    """Exact match and F1 beside the best reference; references that are nothing after normalising are no answer."""
    guess = normalized_answer(written, chinese)
    golds = [gold for r in references if (gold := normalized_answer(r, chinese))] or [[]]
    exact = max(float(guess == gold) for gold in golds)
    if not guess or golds == [[]]:
        return [exact, exact]
    return [exact, max(_overlap(Counter(guess), Counter(gold)) for gold in golds)]
