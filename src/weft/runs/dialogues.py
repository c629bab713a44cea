"""DialogueRun: the folder that learning the answers of dialogues leaves; it answers."""

from __future__ import annotations

from collections.abc import Sequence
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
from weft.models.checkpoints import load_words
from weft.models.language import LanguageModel
from weft.runs.language import Judged, LanguageRun


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
