"""The six steps for a text that is written from others: translation, summary, answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from weft.data.plan import Plan
from weft.data.split import TEST, TRAIN
from weft.data.task_plans import look_sources
from weft.errors import SettingsError, listing
from weft.features.documents import Marks
from weft.features.examples import ExampleCorpus, Examples, write_examples
from weft.features.pairs import PairCounts, Pairing, fit_pairing, pair_examples
from weft.features.pieces import Corpus
from weft.features.store import Store
from weft.files import write_whole
from weft.inference.rewrite import write_targets
from weft.inference.sampling import Sampling
from weft.language_defaults import given_tokens
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel
from weft.preprocess.ingest import CleanRows
from weft.results.beside import Judged
from weft.results.language import Surprise
from weft.results.writing import SHOWN_TEXTS, judge_texts, simple_writers, writing_figures, writing_sentence
from weft.runs.texts import TextRun
from weft.tasks.language import LanguageSteps
from weft.training.parallel import once

WRITTEN_ROWS = 2_000
"""Rows that are written to be judged in a training; `weft evaluate` writes all."""
SHOWN_ROWS = 10
SMOOTHING = 0.1


class TextSteps(LanguageSteps):
    """A column of texts is written from the text columns of its row."""

    kind = TextRun

    def _look(self) -> Plan:
        plan = look_sources(self.settings, self.table)
        self.sources = list(plan.types)
        return plan

    def _aim(self, plan: Plan) -> str:
        return f"'{self.column}' is written from {listing(self.sources)}"

    def _features(self, clean: CleanRows, source: TextModel | None) -> tuple[Corpus, Tokenizer]:
        settings = self.settings
        tokenizer = self._tokenizer(clean, source, [*self.sources, self.column])
        marks = Marks.of(tokenizer)
        end = marks.end if marks.end is not None else next(iter(source.model.config.end), None) if source else None
        if end is None:
            raise SettingsError([f"model.from: a text needs a token that ends it. {settings.model.from_} has none."])
        given = given_tokens(settings, self.sources, source.model if source else None)
        limit = source.model.config.longest if source else None
        folder, file = self.work / "store", self.work / "pairing.json"
        self.cut = PairCounts()

        def encode() -> tuple[Pairing, int, Examples]:
            pairing, context = fit_pairing(
                clean, self.sources, self.column, tokenizer, marks, end, given, limit, settings.target.max_tokens
            )
            write_whole(file, json.dumps([pairing.to_dict(), context]))
            shutil.rmtree(folder, ignore_errors=True)
            return pairing, context, write_examples(pair_examples(clean, pairing, tokenizer, self.cut), folder)

        def opened() -> tuple[Pairing, int, Examples]:
            pairing, context = json.loads(file.read_text(encoding="utf-8"))
            return Pairing(**pairing), context, Examples.mapped(Store(folder))

        self.pairing, self.context, found = once(encode, opened)
        prefixed = not self._recurrent(source) and (
            source is None or getattr(source.model.config.backbone, "attention", "") == "rewriting"
        )
        corpus = ExampleCorpus(found, marks, self.context, settings.training.seed, prefixed, pack=self._packs(source))
        self.say.step(
            "features",
            f"{found.lengths().sum():,} tokens of {tokenizer.get_vocab_size():,} kinds, {found.answers():,} of them to "
            f"write; sources of at most {self.pairing.source_room:,}, texts of {self.pairing.target_room:,}",
        )
        for line in self.cut.in_words():
            self.say.line(line)
        return corpus, tokenizer

    def _letters(self, corpus: Corpus, documents: np.ndarray) -> int:
        # those to be written are counted; the sources by their tokens
        found = corpus.documents
        assert isinstance(found, Examples)
        return int(found.letters[documents].sum() * found.lengths().sum() / max(1, found.answers()))

    def _smoothing(self) -> float:
        given = self.settings.training.label_smoothing
        return given if given is not None else 0.0 if self.settings.model.from_ else SMOOTHING

    def _samples(
        self, model: LanguageModel, tokenizer: Tokenizer, clean: CleanRows, corpus: Corpus, judged: np.ndarray
    ) -> list[dict[str, str]]:
        """Texts for rows it never saw; all are judged, some are shown."""
        chosen = judged
        if len(judged) > WRITTEN_ROWS:
            chosen = np.sort(np.random.default_rng(0).choice(judged, WRITTEN_ROWS, replace=False))
        table = clean.take(chosen, [*self.sources, self.column])
        sources = [ids for ids, _ in self.pairing.encode(table, tokenizer)]
        sampling = Sampling(max_tokens=self.pairing.target_room, beams=self.settings.target.beams or 1)
        self.texts = write_targets(model, tokenizer, sources, sampling)
        self.rows = [["" if t is None else t for t in table[n].to_pylist()] for n in (*self.sources, self.column)]
        self.say.line(f"{len(chosen):,} of {len(judged):,} texts written")
        places = np.linspace(0, len(chosen) - 1, min(SHOWN_ROWS, len(chosen))).astype(int)
        return [
            {
                "source": "\n".join(column[i] for column in self.rows[:-1]), "text": self.texts[i],
                "reference": self.rows[-1][i],
            }
            for i in places
        ]  # fmt: skip

    def _results(
        self, plan: Plan, clean: CleanRows, ids: Sequence[np.ndarray], lost: Surprise, others: list[dict[str, Any]]
    ) -> dict[str, Any]:
        part = "test" if len(ids[TEST]) else "valid"
        references = self.rows[-1]
        found, scores = judge_texts(self.texts, references)
        ours = Judged("weft", "Weft", writing_figures(found, lost), seconds=self.seconds["model"]).to_dict()
        if self.settings.baselines:
            others = simple_writers(self._training_pairs(clean, ids[TRAIN]), self.rows[0], references)
        where = f"{len(references):,} {'rows it never saw' if part == 'test' else 'validation rows'}"
        headline = writing_sentence(found, others, where)
        self.say.step("results", headline)
        return {
            "task": "text", "headline": headline, "part_judged": part, "models": [ours, *others],
            "shown": SHOWN_TEXTS, "rows_judged": len(references), "signatures": scores.signatures(),
            "language": scores.language,
            "pairing": self.pairing.to_dict(), "cut": {"sources": self.cut.sources, "targets": self.cut.targets},
            "target": {"name": self.column, "type": "text", "reason": plan.target_reason},
        }  # fmt: skip

    def _training_pairs(self, clean: CleanRows, train: np.ndarray) -> list[tuple[str, str]]:
        few = train[:: max(1, len(train) // 50_000)]
        table = clean.take(few, [self.sources[0], self.column])
        pairs = zip(*(table[n].to_pylist() for n in (self.sources[0], self.column)), strict=True)
        return [(source or "", target) for source, target in pairs]
