"""Words of identity, and the same text with another identity in their place (English and Chinese).

The lists are our own (``identities.json``): of each kind of identity lines of words that mean the same of different
groups. A word that says a colour or a straight road as well counts only of people: before a word for people, or where
nothing follows in the clause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files

CLAUSE_ENDS = ".,;:!?。，；：！？）)"
Found = tuple[str, int]
"""A kind of identity and one of its groups."""


class Identities:
    """The lists, ready to search with."""

    def __init__(self) -> None:
        stored = json.loads((files("weft.features") / "identities.json").read_text(encoding="utf-8"))
        self._ambiguous, self._people = frozenset(stored["ambiguous"]), frozenset(stored["people"])
        self._other = stored["other"]  # words of Chinese that only contain one of identity
        self._lines: dict[str, list[list[str]]] = {}
        self._of: dict[str, list[tuple[str, int, int]]] = {}
        for kind, by_language in stored["kinds"].items():
            lines = [*by_language["en"], *by_language["zh"]]
            groups = max(map(len, lines))
            self._lines[kind] = [line + [""] * (groups - len(line)) for line in lines]
            for number, line in enumerate(self._lines[kind]):
                for group, word in enumerate(line):
                    if word:
                        self._of.setdefault(word, []).append((kind, number, group))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        words = sorted(self._of, key=len, reverse=True)
        latin = "|".join(re.escape(w) for w in words if w.isascii())
        other = "|".join(re.escape(w) for w in (*self._other, *(w for w in words if not w.isascii())))
        return re.compile(rf"(?<![A-Za-z0-9])(?:(\b[Aa]n? )?({latin}))(?![A-Za-z0-9])|({other})", re.IGNORECASE)

    def name(self, kind: str, group: int, ascii: bool = True) -> str:
        """What a group is called: its first word in English, or not, or else in the other language."""
        words = [line[group] for line in self._lines[kind] if line[group]]
        return next((w for w in words if w.isascii() == ascii), words[0])

    def found(self, text: str) -> list[Found]:
        """The identities that a text names, each once, in its order."""
        seen: dict[Found, None] = {}
        for match in self._pattern.finditer(text):
            for kind, _, group in self._entries(text, match):
                seen.setdefault((kind, group))
        return list(seen)

    def swapped(self, text: str, kind: str, a: int, b: int) -> str:
        """The text with the words of group ``a`` in the place of those of ``b``, and the other way round.

        Capitals stay as they were, and ``a`` and ``an`` follow what comes after them. A word that the other group's
        list lacks stays.
        """

        def change(match: re.Match[str]) -> str:
            for found, line, group in self._entries(text, match):
                other = b if group == a else a if group == b else None
                if found == kind and other is not None and (word := self._word(kind, line, other)):
                    return _written(match, word)
            return match[0]

        return self._pattern.sub(change, text)

    def swaps(self, texts: Sequence[str]) -> list[tuple[str, int, int]]:
        """Every change of one identity that the texts of a row name into another that makes other texts of them."""
        named = dict.fromkeys(found for text in texts for found in self.found(text))
        seen, ways = {tuple(texts)}, []
        for kind, a in named:
            for b in range(len(self._lines[kind][0])):
                other = tuple(self.swapped(text, kind, a, b) for text in texts)
                if other not in seen:
                    seen.add(other)
                    ways.append((kind, a, b))
        return ways

    def _word(self, kind: str, line: int, group: int) -> str:
        """The group's word on a line; where it has none there, that of its first line in the same language."""
        lines = self._lines[kind]
        ascii = any(w.isascii() for w in lines[line] if w)
        return lines[line][group] or next((o[group] for o in lines if o[group] and o[group].isascii() == ascii), "")

    def _entries(self, text: str, match: re.Match[str]) -> list[tuple[str, int, int]]:
        word = (match[2] or match[3]).lower()
        if word in self._ambiguous and not self._of_people(text[: match.start()], text[match.end() :]):
            return []
        return self._of.get(word, [])

    def _of_people(self, before: str, rest: str) -> bool:
        following, last = rest.lstrip(), (before.lower().split() or [""])[-1]
        if last in ("being", "am", "i'm", "you're", "he's", "she's"):
            return True
        if not following or following[0] in CLAUSE_ENDS:
            return last not in ("in", "with", "of", "go")  # it comes in black
        word = re.match(r"[a-z-]+", following.lower())
        return word is not None and word[0] in self._people


def _written(match: re.Match[str], word: str) -> str:
    """``word`` as the found one was written, with the article that it wants where the found one had its own."""
    old, article = match[2] or match[3], match[1] or ""
    if old.isupper() and len(old) > 1:
        word = word.upper()
    elif old[0].isupper():
        word = word[0].upper() + word[1:]
    vowel = [w[0].lower() in "aeiou" for w in (old, word)]
    if article and (len(article) == 3) == vowel[0]:
        article = article[0] + ("n " if vowel[1] else " ")
    return article + word
