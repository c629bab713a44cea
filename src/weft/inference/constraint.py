"""Texts that must be one of several, match a regular expression, or be JSON of a schema.

A ``Constraint`` says what may be written; a ``Grammar`` is the same for one tokenizer; a ``State`` walks along one
text and knows the tokens that may come next. All others are masked before the settings of ``weft.inference.sampling``
(Willard & Louf 2023). The automata are those of llguidance (docs/decisions/0009-constrained-writing.md); it is given
the bytes of every token and never a tokenizer, so any checkpoint that writes can be constrained.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper, regex_to_lark
from tokenizers import Tokenizer

from weft.errors import DataError, UsageError, listing
from weft.inference.pieces import fewest, pieces_of
from weft.inference.schema import check_keywords, letters_of

_JSON = {"whitespace_flexible": True, "whitespace_pattern": r"\x20?", "lenient": False, "coerce_one_of": False}
"""For a schema: at most one space where JSON allows any: a weak model would go on with spaces for ever."""
_FREE = '%llguidance {"no_forcing": true}\n'
"""Where the next bytes are certain, which tokens write them is still the model's choice."""
_UNWRITABLE = "{!r}: must be a choice that this tokenizer can write. It has no token for one of its letters."


@dataclass(frozen=True)
class Constraint:
    """What may be written. Made by ``one_of``, ``matching`` or ``json_schema``, each of which checks what it is given.

    The text goes on exactly where the prompt ends: a space between the two belongs to one of them.
    """

    kind: Literal["choices", "regex", "schema"]
    said: str
    """The expression or the schema, as text."""
    grammar: str
    """The same for llguidance."""
    choices: tuple[str, ...] = ()

    @classmethod
    def one_of(cls, choices: Iterable[str]) -> Constraint:
        """One of several texts. Raises UsageError: none, an empty one, the same twice, half a surrogate pair."""
        found = tuple(choices)
        if not found or not all(found):
            raise UsageError(
                f"choices must be at least one text, none of them empty. Got {list(found)}. Leave out the empty one."
            )
        twice = sorted({c for c in found if found.count(c) > 1}) if len(set(found)) < len(found) else []
        if twice:
            raise UsageError(f"choices must differ. Got {listing(twice)} twice. Leave out one.")
        for choice in found:
            check_letters(choice, "a choice")
        return cls("choices", json.dumps(found, ensure_ascii=False), _regex("|".join(map(_literal, found))), found)

    @classmethod
    def matching(cls, pattern: str) -> Constraint:
        """A text that a regular expression matches from its beginning to its end.

        The syntax is that of Rust's ``regex``, near to Python's: no looking around, no backreferences, ^ and $ only
        at the ends; letters by script as in ``\\p{Han}``.

        Raises:
            UsageError: it is no such expression.
        """
        check_letters(pattern, "a regular expression")
        wrong = LLMatcher.validate_grammar(_regex(pattern))
        if wrong:
            raise UsageError(f"{pattern}: must be a regular expression that can be written by. Got: {_reason(wrong)}.")
        return cls("regex", pattern, _regex(pattern))

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | Path) -> Constraint:
        """JSON of a schema (draft 2020-12 and before), as Python's object or in a file.

        Properties come in the order of the schema.

        Raises:
            DataError: the file is no JSON.
            UsageError: the schema has a keyword that does not exist or that no text can be written by.
        """
        where = "the schema"
        if isinstance(schema, Path):
            where = str(schema)
            try:
                schema = json.loads(schema.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise DataError(f"{where}: must be a JSON file. Got {type(error).__name__}: {error}.") from None
        check_keywords(schema, where)
        said = json.dumps(schema)
        options = {"x-guidance": _JSON}
        grammar = _FREE + "start: %json " + json.dumps({**schema, **options} if isinstance(schema, dict) else schema)
        wrong = LLMatcher.validate_grammar(grammar)
        if wrong:
            raise UsageError(f"{where}: must be a JSON schema that can be written by. Got: {_reason(wrong)}. Mend it.")
        return cls("schema", said, grammar)


class Grammar:
    """A constraint for the tokens of one model.

    Raises:
        UsageError: the tokenizer cannot write any text, or one of the choices, or a letter that the schema needs.
    """

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer, vocabulary: int, ends: Collection[int]):
        self.constraint, self.ends = constraint, np.array(sorted(ends), np.int64)
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self.pieces = self._pieces(first=False)
        self._later = _Masks(self.pieces)
        self._grammar = constraint.grammar if self._any_letter() else self._within_reach()
        begun = State(self, self._later)
        if begun.over == "stuck":
            raise UsageError(f"{constraint.said}: must be a text that this tokenizer can write. It can write none.")
        if begun.over == "complete":
            raise UsageError(f"{constraint.said}: must allow at least one letter. It allows the empty text only.")
        self._begun = begun

    def begin(self, prompt: Sequence[int]) -> State:
        """The state after a prompt and before the first token."""
        masks = self._masks_after(prompt)
        return self._begun.fork() if masks is self._later else State(self, masks)

    def matcher(self, masks: _Masks) -> LLMatcher:
        return LLMatcher(masks.tokenizer, self._grammar, log_level=0)

    def spell(self, text: str, prompt: str) -> list[int]:
        """The tokens of ``text`` after ``prompt``: the tokenizer's own, or the fewest where it joins the two."""
        before = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        whole = self._tokenizer.encode(prompt + text, add_special_tokens=False).ids
        first = self._masks_after(before)
        ids, wanted = whole[len(before) :], text.encode("utf-8")
        if whole[: len(before)] == before and ids:
            found = [first.pieces[ids[0]], *(self.pieces[i] for i in ids[1:])]
            if all(found) and b"".join(found) == wanted:
                return ids
        fewer = fewest(wanted, self._later.ids, first.ids)
        if fewer is None and first.silent:  # the space that is left out, and then the text
            later = fewest(wanted, self._later.ids, self._later.ids)
            fewer = None if later is None else [first.silent[0], *later]
        if fewer is None:
            raise UsageError(_UNWRITABLE.format(text))
        return fewer

    def _masks_after(self, ids: Sequence[int]) -> _Masks:
        """A text of its own may begin otherwise than one that goes on: Llama's decoder leaves out the first space."""
        return self._later if any(self.pieces[i] for i in ids) or self._tokenizer.decode(list(ids)) else self._first

    @cached_property
    def _first(self) -> _Masks:
        pieces = self._pieces(first=True)
        silent = [i for i, piece in enumerate(self.pieces) if piece and not pieces[i]]
        return self._later if pieces == self.pieces else _Masks(pieces, silent)

    def _pieces(self, first: bool) -> list[bytes]:
        pieces = pieces_of(self._tokenizer, self._vocabulary, first)
        for end in self.ends:
            pieces[end] = b""
        return pieces

    def _any_letter(self) -> bool:
        return all(bytes([b]) in self._later.ids for b in (*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)))

    def _within_reach(self) -> str:
        """The grammar of a tokenizer that lacks letters: what its tokens can write, and no way that ends in nothing."""
        c = self.constraint
        for choice in c.choices:
            if fewest(choice.encode("utf-8"), self._later.ids, self._later.ids) is None:
                raise UsageError(_UNWRITABLE.format(choice))
        if c.kind == "choices":
            return c.grammar
        texts = [p.decode("utf-8") for p in self._later.ids if _is_text(p)]
        if c.kind == "regex":
            reach = "|".join(map(_literal, texts))
            return f"{_FREE}start: X\nX: /{regex_to_lark(c.said, '')}/ & /({reach})*/"
        missing = sorted(letters_of(json.loads(c.said)) - set("".join(texts)))
        if missing:
            raise UsageError(f"the schema needs letters that this tokenizer has not: {listing(missing)}.")
        return c.grammar


class State:
    """How far a text has come in its grammar, and the tokens that may follow."""

    allowed: np.ndarray
    """[V] bool; of the ends, only where the text may end."""
    accepting: bool
    """The text as it stands fulfils the constraint."""
    over: Literal["complete", "stuck"] | None
    """complete: nothing can be added. stuck: something must be, and no token can."""

    def __init__(self, grammar: Grammar, masks: _Masks):
        self._grammar, self._masks = grammar, masks
        self._matcher = grammar.matcher(masks)
        self._look()

    def fork(self) -> State:
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other

    def take(self, token: int) -> None:
        """Go on by a token that is allowed and no end."""
        written = self._masks.pieces[token]
        if not self._matcher.consume_tokens(self._masks.of_bytes(written)):
            raise AssertionError(self._matcher.get_error())
        if self._masks is not self._grammar._later:
            # from the second token on a text goes on as any other
            self._masks = self._grammar._later
            self._matcher = self._grammar.matcher(self._masks)
            self._matcher.consume_tokens(self._masks.of_bytes(written))
        self._look()

    def _look(self) -> None:
        self.allowed = self._masks.allowed(self._matcher)
        self.accepting = self._matcher.is_accepting()
        self.over = None if self.allowed.any() else "complete" if self.accepting else "stuck"
        if self.accepting:
            self.allowed[self._grammar.ends] = True


class _Masks:
    """The tokens as llguidance sees them: those of the model, then every byte, then one that ends.

    A text is told to it byte by byte, which any tokens can be; only the model's own are asked about. Tokens that are
    ``silent`` write nothing where these masks hold, which keeps every text possible.
    """

    eos_token_id: int
    bos_token_id = None

    def __init__(self, pieces: list[bytes], silent: Sequence[int] = ()):
        self.pieces, self.silent = pieces, list(silent)
        self.ids: dict[bytes, int] = {}
        for i, piece in enumerate(pieces):
            if piece:
                self.ids.setdefault(piece, i)
        self.tokens = [*pieces, *(bytes([b]) for b in range(256)), b"<end>"]
        self.eos_token_id = len(pieces) + 256
        self.special_token_ids = [self.eos_token_id]
        self._writes = np.array([bool(piece) for piece in pieces])
        self.tokenizer = LLTokenizer(TokenizerWrapper(self), n_vocab=len(self.tokens))

    def __call__(self, text: bytes) -> list[int]:
        return self.of_bytes(text)

    def of_bytes(self, text: bytes) -> list[int]:
        return [len(self.pieces) + b for b in text]

    def allowed(self, matcher: LLMatcher) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = bits[: len(self.pieces)].astype(bool) & self._writes
        allowed[self.silent] = True
        return allowed


def _regex(pattern: str) -> str:
    return f"{_FREE}start: /{regex_to_lark(pattern, '')}/"


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(letter):X}}}" for letter in text)


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check_letters(text: str, what: str) -> None:
    """Raises UsageError where a text is none: half a surrogate pair has no bytes."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{what} must be letters that UTF-8 knows. Got half a surrogate pair: {text!a}. Remove it.")


def _reason(message: str) -> str:
    """What llguidance says is wrong, in one line and without its own names for places."""
    found = re.search(r"^error: (.+)", message, re.M)
    if found:
        return found[1].rstrip(".")
    if "lookarounds not supported" in message:
        return "a place that depends on its neighbours (^ or $ inside, \\b)"
    message = message.rpartition("failed to compile JSON schema: ")[2]
    if message.startswith("oneOf"):
        return "oneOf with parts that may hold together (use anyOf)"
    return message.split("\n<state>")[0].splitlines()[0].rstrip(".")
