"""A dialogue as the tokens of a model's chat template (Jinja, run in a sandbox as ``transformers`` does).

What the template itself writes may be special tokens; what a person wrote never is: ``<|im_end|>`` inside a message
stays letters. Which tokens are an answer is found by rendering the dialogue without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from tokenizers import Tokenizer

from weft.data.dialogues import Message
from weft.errors import CheckpointError
from weft.features.tokenizer import ASSISTANT, END, SYSTEM, USER

TEMPLATE = "chat_template"
OWN = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}{{ message['content'] }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""For tokenizers that have the tokens of the roles."""
PLAIN = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{{ eos_token }}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For others: the roles in words, each turn closed by the token that ends a text."""
_PRIVATE = range(0xE000, 0xF900)


def default_template(tokenizer: Tokenizer) -> str:
    """The template of a model that has none yet."""
    own = all(tokenizer.token_to_id(token) is not None for token in (SYSTEM, USER, ASSISTANT, END))
    return OWN if own else PLAIN


class Chat:
    """The chat template of a model and its tokenizer.

    Args:
        words: ``chat_template`` and the names of special tokens (``bos_token``, ``eos_token``, ...).
        today: the moment (ISO 8601) that ``strftime_now`` of a template tells; default: now.

    Raises:
        CheckpointError: the template cannot be read, or does not say where an answer begins and ends.
    """

    def __init__(self, tokenizer: Tokenizer, words: Mapping[str, str], today: str | None = None):
        self.tokenizer, self.words, self._today = tokenizer, dict(words), today
        self._marking, self._spelling = (Tokenizer.from_str(tokenizer.to_str()) for _ in range(2))
        self._marking.encode_special_tokens = False
        self._spelling.encode_special_tokens = True
        added = tokenizer.get_added_tokens_decoder()
        self.special = {token.content: i for i, token in added.items() if token.special}
        self._special_ids = set(self.special.values())
        names = sorted(self.special, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        try:
            self._template = _environment(today).from_string(words[TEMPLATE])
        except TemplateError as error:
            raise CheckpointError(f"chat template: must be a Jinja template. Got: {error}.") from None
        self._roles: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    def __reduce__(self) -> tuple[type[Chat], tuple[Tokenizer, dict[str, str], str | None]]:
        """A template is compiled anew where it goes."""
        return type(self), (self.tokenizer, self.words, self._today)

    @cached_property
    def end(self) -> int:
        """The token that ends an answer."""
        ids, asked = self.examples(self._roles)[0]
        return [i for i, wanted in zip(ids, asked, strict=True) if wanted][-1]

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a dialogue up to where the assistant is to speak."""
        return self.ids(messages, prompt=True)

    def ids(self, messages: Sequence[Message], prompt: bool = False) -> list[int]:
        """The tokens of a whole dialogue, or of one that the assistant is to go on with."""
        veiled, veil = self._veiled(messages)
        return self._encoded(self._render(veiled, prompt), veil)[0]

    def examples(self, messages: Sequence[Message]) -> list[tuple[list[int], list[bool]]]:
        """The tokens of a dialogue, and whether each belongs to an answer or ends one.

        One example. Or one for each answer, where the model would see other tokens before it when it is to answer:
        the template writes earlier turns in another way than the last, or the tokenizer joins letters across the place.
        """
        veiled, veil = self._veiled(messages)
        answers = [i for i, m in enumerate(veiled) if m["role"] == "assistant"]
        whole = self._render(veiled[: answers[-1] + 1], False)
        turns = [self._turn(veiled, i) for i in answers]
        if all(whole.startswith(text) for _, text in turns):
            ids, places = self._encoded(whole, veil)
            prompts = [self._encoded(before, veil)[0] for before, _ in turns]
            if all(ids[: len(prompt)] == prompt for prompt in prompts):
                asked = [False] * len(ids)
                for prompt, (_, text) in zip(prompts, turns, strict=True):
                    stop = next((i for i, place in enumerate(places) if place >= len(text)), len(ids))
                    self._ask(ids, asked, len(prompt), stop, text)
                return [(ids, asked)]
        found = []
        for before, text in turns:
            prompt, answer = (self._encoded(part, veil)[0] for part in (before, text[len(before) :]))
            ids, asked = prompt + answer, [False] * (len(prompt) + len(answer))
            self._ask(ids, asked, len(prompt), len(ids), text)
            found.append((ids, asked))
        return found

    def _turn(self, messages: Sequence[Message], answer: int) -> tuple[str, str]:
        """The prompt for an answer, and the dialogue that ends with it."""
        before, text = self._render(messages[:answer], True), self._render(messages[: answer + 1], False)
        if not text.startswith(before):
            raise CheckpointError(
                "chat template: a dialogue with its answer must begin as the prompt for this answer does, so that the "
                f"answer can be found. Got {before[-60:]!r} and {text[max(0, len(before) - 60) : len(before)]!r}. "
                "Give another chat_template in tokenizer_config.json."
            )
        return before, text

    def _ask(self, ids: list[int], asked: list[bool], start: int, stop: int, text: str) -> None:
        """Ask for the tokens of an answer to the last special one, which ends it."""
        ends = [i for i in range(start, stop) if ids[i] in self._special_ids]
        if not ends:
            raise CheckpointError(
                f"chat template: an answer must be followed by a special token that ends it. Got {text[-60:]!r}. "
                "Give another chat_template in tokenizer_config.json."
            )
        asked[start : ends[-1] + 1] = [True] * (ends[-1] + 1 - start)

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        names = {name: word for name, word in self.words.items() if name != TEMPLATE}
        try:
            return self._template.render(messages=messages, add_generation_prompt=prompt, tools=None, **names)
        except (TemplateError, TypeError, ValueError, OverflowError) as error:
            raise Refused(f"the chat template refuses the dialogue: {error}") from None

    def _veiled(self, messages: Sequence[Message]) -> tuple[list[Message], str | None]:
        """The messages with a sign before each special token that a person wrote, and the sign."""
        texts = [m["content"] for m in messages]
        if not any(map(self._special.search, texts)):
            return list(messages), None
        veil = next(c for c in map(chr, _PRIVATE) if not any(c in text for text in texts))
        return [{**m, "content": self._special.sub(lambda f: veil + f[0], m["content"])} for m in messages], veil

    def _encoded(self, text: str, veil: str | None) -> tuple[list[int], list[int]]:
        """The ids of a rendered text, and where in it each begins."""
        if veil is None:
            found = self._marking.encode(text, add_special_tokens=False)
            return found.ids, [start for start, _ in found.offsets]
        ids: list[int] = []
        places: list[int] = []
        for start, piece, special in self._cut(text, veil):
            if special:
                ids.append(self.special[piece])
                places.append(start)
            else:
                kept = [start + i for i, letter in enumerate(piece) if letter != veil]
                found = self._spelling.encode(piece.replace(veil, ""), add_special_tokens=False)
                ids += found.ids
                places += [kept[min(place, len(kept) - 1)] for place, _ in found.offsets]
        return ids, places

    def _cut(self, text: str, veil: str) -> Iterator[tuple[int, str, bool]]:
        """The pieces of a text, and whether each is a special token that the template wrote."""
        done = 0
        for found in re.finditer(f"(?<!{veil})(?:{self._special.pattern})", text):
            if found.start() > done:
                yield done, text[done : found.start()], False
            yield found.start(), found.group(), True
            done = found.end()
        if done < len(text):
            yield done, text[done:], False


class Refused(CheckpointError):
    """A dialogue that a template does not take, e.g. because its roles do not alternate."""


class _Generation(Extension):
    """``{% generation %}``, with which some templates mark answers: only what is inside counts here."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own way)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's, which would take the names that Python keeps for itself."""

    def __init__(*args: Any, **names: Any) -> None:
        _no_underscore(names)
        Namespace.__init__(*args, **names)

    def __setitem__(self, name: str, value: Any) -> None:
        _no_underscore([name])
        super().__setitem__(name, value)


def _no_underscore(names: Iterable[str]) -> None:
    if any(name.startswith("_") for name in names):
        raise SecurityError("a template may not set names that begin with an underscore")


def _environment(today: str | None) -> ImmutableSandboxedEnvironment:
    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    found.filters["tojson"] = _to_json
    found.globals["namespace"] = _Namespace
    del found.globals["lipsum"]
    found.globals["raise_exception"] = _refuse
    found.globals["strftime_now"] = lambda pattern: (
        datetime.fromisoformat(today) if today else datetime.now()
    ).strftime(pattern)
    return found


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
             sort_keys: bool = False) -> str:  # fmt: skip
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
