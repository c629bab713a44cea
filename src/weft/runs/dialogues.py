"""DialogueRun: the folder that learning the answers of dialogues leaves; it answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from weft.data.dialogues import Message
from weft.errors import DataError
from weft.features.chat import Chat
from weft.features.dialogues import DialogueCounts, examples_of
from weft.features.documents import Marks
from weft.features.examples import ExampleCorpus, Examples
from weft.features.pieces import Corpus
from weft.inference.generate import Written, write
from weft.inference.sampling import Sampling
from weft.models.checkpoints import load_words
from weft.runs.language import LanguageRun


class DialogueRun(LanguageRun):
    """A finished run that answers."""

    cell = "dialogue"

    @cached_property
    def chat(self) -> Chat:
        """Its chat template."""
        return Chat(self._loaded[1], load_words(self.path))

    def answer(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Written:
        """What the model says after a dialogue whose last turn is the user's."""
        model, tokenizer = self._loaded
        return write(model, tokenizer, [self.chat.prompt(messages)], sampling)[0]

    def _corpus(self, cells: list[str]) -> Corpus:
        context = int(self.figures["model"]["context"])
        counts = DialogueCounts()
        examples = Examples.held(examples_of(cells, self.chat, context, counts))
        if counts.refused:
            raise DataError(f"{counts.refused:,} dialogues cannot be judged; {counts.why_refused}.")
        return ExampleCorpus(examples, Marks.of(self._loaded[1]), context, 0, prefixed=False, pack=False)
