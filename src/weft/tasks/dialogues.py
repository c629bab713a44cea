"""The six steps for dialogues: a model that writes learns the answers of the assistant, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from weft.data.plan import Plan
from weft.errors import SettingsError
from weft.features.chat import TEMPLATE, Chat, default_template
from weft.features.dialogues import DialogueCounts, contents, dialogue_examples
from weft.features.documents import Marks
from weft.features.examples import ExampleCorpus, Examples, write_examples
from weft.features.pieces import Corpus
from weft.features.store import Store
from weft.files import write_whole
from weft.inference.generate import write
from weft.inference.sampling import Sampling
from weft.language_defaults import context
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel
from weft.models.tokenizer_files import words_of
from weft.preprocess.ingest import CleanRows
from weft.results.language import Surprise
from weft.runs.dialogues import DialogueRun
from weft.tasks.language import LanguageSteps
from weft.training.parallel import once

SHOWN_DIALOGUES, ANSWER_TOKENS = 3, 120


class DialogueSteps(LanguageSteps):
    """The answers of a column of dialogues are learnt."""

    kind = DialogueRun

    def _aim(self, plan: Plan) -> str:
        return f"the assistant's answers in '{self.column}' are learnt"

    def _features(self, clean: CleanRows, source: TextModel | None) -> tuple[Corpus, Tokenizer]:
        settings = self.settings
        tokenizer = self._tokenizer(clean, source, [self.column], contents)
        marks = Marks.of(tokenizer)
        self.words = self._words(tokenizer, marks, source)
        self.today = once(self._today, self._today)
        chat = Chat(tokenizer, self.words, self.today)
        if source is not None:  # an answer ends where the template says, whatever else ends a text
            config = source.model.config
            source.model.config = replace(config, end=tuple(dict.fromkeys((*config.end, chat.end))))
        self.context = context(settings, self.column, source.model if source else None)
        self.counts = DialogueCounts()
        folder = self.work / "store"

        def encode() -> Examples:
            shutil.rmtree(folder, ignore_errors=True)
            return write_examples(dialogue_examples(clean, self.column, chat, self.context, self.counts), folder)

        examples = once(encode, lambda: Examples.mapped(Store(folder)))
        pack = self._packs(source)
        corpus = ExampleCorpus(examples, marks, self.context, settings.training.seed, prefixed=False, pack=pack)
        self.say.step(
            "features",
            f"{examples.lengths().sum():,} tokens of {tokenizer.get_vocab_size():,} kinds, {examples.answers():,} of "
            f"them answers; {'the chat template of the model' if self._own_template(source) else 'a chat template'} is "
            f"kept in tokenizer_config.json",
        )
        for line in self.counts.in_words(self.context):
            self.say.line(line)
        return corpus, tokenizer

    def _today(self) -> str:
        """The day the run began, for templates that say it: a run that is resumed on another reads the same tokens."""
        file = self.work / "today.txt"
        if not file.exists():
            write_whole(file, datetime.now().isoformat(timespec="seconds"))
        return file.read_text(encoding="utf-8")

    def _own_template(self, source: TextModel | None) -> bool:
        return source is not None and TEMPLATE in source.words

    def _words(self, tokenizer: Tokenizer, marks: Marks, source: TextModel | None) -> dict[str, str]:
        """The names of special tokens and the chat template: the model's own, or one it is given now."""
        if source is not None:
            words = words_of(source.model.config, tokenizer) | source.words
            if "eos_token" not in words:
                raise SettingsError(
                    [f"model.from: a dialogue needs a token that ends a turn. {self.settings.model.from_} has none."]
                )
        else:
            ids = {"bos_token": marks.begin, "eos_token": marks.end}
            words = {n: w for n, i in ids.items() if i is not None and (w := tokenizer.id_to_token(i)) is not None}
        return {TEMPLATE: default_template(tokenizer), **words}

    def _parts(self, clean: CleanRows, corpus: Corpus) -> np.ndarray:
        assert isinstance(corpus.documents, Examples)
        return clean.parts[corpus.documents.row]

    def _smoothing(self) -> float:
        return self.settings.training.label_smoothing or 0.0

    def _samples(
        self, model: LanguageModel, tokenizer: Tokenizer, clean: CleanRows, corpus: Corpus, judged: np.ndarray
    ) -> list[dict[str, str]]:
        """What it answers in dialogues it never saw, beside what was answered."""
        assert isinstance(corpus.documents, Examples)
        rows = np.unique(corpus.documents.row[judged])
        rows = rows[np.linspace(0, len(rows) - 1, min(SHOWN_DIALOGUES, len(rows))).astype(int)]
        chat, found = Chat(tokenizer, self.words, self.today), []
        sampling = Sampling(max_tokens=ANSWER_TOKENS)
        for cell in clean.take(rows, [self.column])[self.column].to_pylist():
            messages = json.loads(cell)
            last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
            prompt = chat.prompt(messages[:last])
            if len(prompt) <= self.context:
                answer = write(model, tokenizer, [prompt], sampling)[0].text.strip()
                asked = "\n".join(f"{m['role']}: {m['content']}" for m in messages[:last])
                found.append({"prompt": asked, "text": answer, "reference": messages[last]["content"]})
        return found

    def _results(
        self, plan: Plan, clean: CleanRows, ids: Sequence[np.ndarray], lost: Surprise, others: list[dict[str, Any]]
    ) -> dict[str, Any]:
        found = super()._results(plan, clean, ids, lost, others)
        return found | {"chat_template": self.words[TEMPLATE], "dialogues": asdict(self.counts),
                        "said": self.counts.in_words(self.context), "today": self.today}  # fmt: skip
