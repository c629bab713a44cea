"""DialogueRun: the folder that learning the answers of dialogues leaves; it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from weft.data.dialogues import Message
from weft.data.table import Table
from weft.features.chat import Chat
from weft.features.dialogues import DialogueCounts, examples_of
from weft.features.documents import Marks
from weft.features.examples import ExampleCorpus, Examples
from weft.features.pieces import Corpus
from weft.inference.generate import Written, write
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.models.tokenizer_files import load_words
from weft.results.explain.asked import words_of
from weft.results.explain.writing import NEW_TOKENS, Source
from weft.runs.language import Judged, LanguageRun, new_tokens


class DialogueRun(LanguageRun):
    """A finished run that answers."""

    cell = "dialogue"

    def __init__(self, path: str | Path):
        super().__init__(path)
        self._counts = DialogueCounts()

    @cached_property
    def chat(self) -> Chat:
        """Its chat template."""
        return Chat(self.loaded[1], load_words(self.path))

    def answer(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Written:
        """What the model says after a dialogue whose last turn is the user's, cleaned as it learnt dialogues."""
        model, tokenizer = self.loaded
        messages = [{**m, "content": self.cleaned(m["content"])} for m in messages]
        return write(model, tokenizer, [self.chat.prompt(messages)], sampling)[0]

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Source]]:
        """The last answer of each dialogue, or ``of`` in its place, by the words of the messages before it."""
        for row, cell in self._cells(source):
            messages = json.loads(cell)
            last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
            before, answer = messages[:last], messages[last]["content"] if of is None else self.cleaned(of)
            yield row, self._asked_answer(before, answer)

    def _source_of(self, prompt: str, of: str | None) -> Source:
        return self._asked_answer([{"role": "user", "content": prompt}], of)

    def _asked_answer(self, messages: Sequence[Message], answer: str | None) -> Source:
        """An answer to a dialogue, or the one that the model gives, with the words of the messages as players."""
        model, tokenizer = self.loaded
        roles = [m["role"] for m in messages]

        def encode(contents: Sequence[str]) -> list[int]:
            told = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
            return self.chat.prompt(told)

        texts = {f"{m['role']} {number}": m["content"] for number, m in enumerate(messages, start=1)}
        words, prompt = words_of(texts, tokenizer), encode(list(texts.values()))
        if answer is None:
            ids = new_tokens(model, tokenizer, prompt, Sampling(max_tokens=NEW_TOKENS))
        else:
            told = {"role": "assistant", "content": answer}
            ids = self.chat.examples([*messages, told])[-1][0][len(prompt) :]
            ids = [i for i in ids if i not in (*model.config.end, self.chat.end)]
        return Source(model, tokenizer, words, encode, "assistant", ids)

    def judge(self, source: Table, model: LanguageModel, everything: bool = False) -> Judged:
        self._counts = DialogueCounts()
        found = super().judge(source, model, everything)
        refused = self._counts.refused
        return replace(found, rows=found.rows - refused, rejected=found.rejected + refused)

    def _said(self) -> list[str]:
        return self._counts.in_words(int(self.figures["model"]["context"]))

    def _corpus(self, cells: list[str]) -> Corpus:
        context, tokenizer = int(self.figures["model"]["context"]), self.loaded[1]
        chat = Chat(tokenizer, load_words(self.path), self.figures.get("today"))  # the tokens of the training
        examples = Examples.held(examples_of(cells, chat, context, self._counts))
        return ExampleCorpus(examples, Marks.of(tokenizer), context, 0, prefixed=False, pack=False)
