"""A conversation with a model: turns as its chat template wants them, answers as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tokenizers import Tokenizer

from weft.data.dialogues import Message
from weft.errors import DataError
from weft.features.chat import Chat
from weft.inference.generate import Stream, Written, check_letters, stream
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel


class Conversation:
    """What was said so far. ``forgotten``: messages that no longer fit and were left out of the last prompt.

    ``clean``: what becomes of what a person says before the model reads it.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, chat: Chat, sampling: Sampling, system: str = "",
                 clean: Callable[[str], str] = str):  # fmt: skip
        # an answer ends where the template ends one, whatever else ends a text
        model.config = replace(model.config, end=tuple(dict.fromkeys((*model.config.end, chat.end))))
        self.model, self.tokenizer, self.chat, self.sampling = model, tokenizer, chat, sampling
        self.clean = clean
        self.messages: list[Message] = [{"role": "system", "content": clean(system)}] if system else []
        self.forgotten = 0

    def say(self, text: str) -> Stream:
        """The answer to a user's turn, as it is written; :meth:`hear` puts it into the conversation.

        Raises:
            DataError: the turn alone is too long for the model, or holds half a surrogate pair.
        """
        check_letters(text)
        self.messages.append({"role": "user", "content": self.clean(text)})
        return stream(self.model, self.tokenizer, self._prompt(), self.sampling)

    def hear(self, answer: Written) -> None:
        """Take an answer into the conversation."""
        self.messages.append({"role": "assistant", "content": answer.text})

    def _prompt(self) -> Sequence[int]:
        """The dialogue without its oldest turns, as many as must go so that half an answer's room is left."""
        longest = self.model.config.longest
        head = 1 if self.messages[0]["role"] == "system" else 0
        starts = [i for i, m in enumerate(self.messages) if m["role"] == "user"]
        for start in starts:
            ids = self.chat.prompt([*self.messages[:head], *self.messages[start:]])
            room = min(self.sampling.max_tokens, longest // 2) if longest else 0
            if longest is None or len(ids) + room <= longest or (start == starts[-1] and len(ids) <= longest):
                self.forgotten = start - head
                return ids
        self.messages.pop()
        raise DataError(f"a turn must have at most {longest:,} tokens for this model, with the system message. "
                        f"Got {len(ids):,}. Shorten it.")  # fmt: skip
