"""The six steps for texts: a language model is pretrained on a column, or trained further on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from tokenizers import Tokenizer

from weft import processes
from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import TEST, TRAIN, VALID
from weft.data.task_plans import look_texts
from weft.defaults import lora_rank
from weft.errors import DataError, SettingsError
from weft.exchange import open_text_model
from weft.features.canaries import Canary, canaries
from weft.features.documents import Documents, Marks, encode_documents
from weft.features.pieces import Corpus, Cuts
from weft.features.store import Store
from weft.inference.generate import write
from weft.inference.sampling import Sampling
from weft.language_defaults import context, language_config, language_recipe, with_dropout
from weft.models.backbone import best_device
from weft.models.deferred import deferred
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel
from weft.models.recurrent import Recurrent
from weft.preprocess.ingest import CleanRows
from weft.results.beside import Judged
from weft.results.language import SHOWN_READING, SHOWN_WRITING, Surprise, estimates, language_sentence, learning
from weft.results.language_baselines import ngram_models
from weft.runs.language import LanguageRun, surprise
from weft.runs.opening import task_of
from weft.tasks.distil import beside_writing_teacher, check_tokens, open_writing_teacher
from weft.tasks.kept import Kept
from weft.tasks.steps import Foretold, check_matrices
from weft.tasks.text_models import TextModelSteps, open_text_source
from weft.training.adapters import attach
from weft.training.language import TokenObjective, Trained, fit_language
from weft.training.loop import Recipe
from weft.training.pace import step_cost
from weft.training.parallel import in_pieces, once
from weft.training.private import sized

SAMPLES, SAMPLE_TOKENS = 3, 120
MOST_JUDGED = 1 << 21
"""Tokens of the test texts that the final figures are made of; of more, pieces are drawn."""


class LanguageSteps(TextModelSteps):
    """Every next token, or hidden ones, of a column of texts are predicted."""

    kind: type[LanguageRun] = LanguageRun
    """The run that it leaves."""
    canaries: Sequence[Canary] = ()
    teacher: TextModel | None = None
    """Whose answers are learnt from."""
    words: Mapping[str, str] = {}
    """What tokenizer_config.json is to say beside the special tokens of the model's config."""

    def _opened(self) -> tuple[Plan, TextModel | None]:
        settings = self.settings
        self.column, self.masked = settings.target.name, settings.target.task == "masked_token"
        plan = self._look()
        source = open_source(settings)
        self.teacher = open_writing_teacher(settings)
        tokens = source or self.teacher
        self.words = tokens.words if tokens is not None else {}
        return plan, source

    def foretell(self) -> Foretold:
        plan, source = self._opened()
        clean, _ = self._begin(plan, self._aim(plan))
        corpus, tokenizer = self._features(clean, source)
        train = np.flatnonzero(self._parts(clean, corpus) == TRAIN)
        model, recipe = self._built(corpus, tokenizer, source, train)
        objective = TokenObjective(model, 0.0, self.teacher.model if self.teacher else None, recipe.distil).train()
        cuts = corpus.cuts(train)
        rows = (len(train) if recipe.privacy else len(cuts)) * self.scale
        recipe = sized(recipe, rows)
        cost = step_cost(
            objective, recipe, objective.loss, lambda rows: corpus.batch(cuts, rows, 0), np.arange(len(cuts))
        )
        tokens = corpus.documents.lengths()
        return self._foretold(plan, clean, tokenizer, model, recipe, rows, cost, tokens, self.context)

    def run(self) -> LanguageRun:
        settings = self.settings
        plan, source = self._opened()
        clean, found = self._begin(plan, self._aim(plan))
        with self._timed("features"):
            corpus, tokenizer = self._features(clean, source)
        parts = self._parts(clean, corpus)
        ids = [np.flatnonzero(parts == part) for part in (TRAIN, VALID, TEST)]
        judged = ids[TEST] if len(ids[TEST]) else ids[VALID]
        cuts = corpus.cuts(judged)
        numbers = cuts.some(MOST_JUDGED, settings.training.seed)
        kept = self._kept(source, corpus, cuts, numbers)
        with self._timed("model"):
            model, trained = self._model(corpus, tokenizer, source, ids)
        with self._timed("inference"):
            run_model = model.eval()
            lost = surprise(run_model, corpus, cuts, numbers)
            some = "" if len(numbers) == len(cuts) else f" ({len(numbers):,} of {len(cuts):,} pieces, drawn at random)"
            self.say.step("inference", f"{len(judged):,} texts, {lost.tokens.sum():,} tokens read{some}")
            self.samples = self._samples(run_model, tokenizer, clean, corpus, judged)
        with self._timed("results"):
            distilled = {}
            if self.teacher is not None:
                distilled["distilled"] = beside_writing_teacher(
                    settings, corpus, ids[VALID], run_model, self.teacher.model, self.say
                )
            others = []
            if settings.baselines and settings.target.task == "next_token":
                size = tokenizer.get_vocab_size()
                others = ngram_models(corpus, ids[TRAIN], cuts, numbers, size, settings.training.seed)
            figures = self._results(plan, clean, ids, lost, others) | distilled
            if kept is not None:
                figures["kept"] = kept.figures(run_model, lost, self.masked)
                self.say.line(figures["kept"]["words"])
        figures |= self._data_facts(plan, clean, found)
        tokens = corpus.documents.lengths()[ids[TRAIN]].sum() / trained.steps_an_epoch
        figures["curves"] = {"learning": learning(self.out / "metrics.jsonl", float(tokens))}
        figures["model"] = self._model_facts(model, trained, self.context)
        figures |= self._private(trained.progress, "texts" if self.settings.target.type is None else "rows")
        if self.canaries:
            figures["canaries"] = [asdict(canary) for canary in self.canaries]
        figures |= {"samples": self.samples, "seconds": dict(self.seconds)}
        self._finish(figures)
        return self.kind(self.out)

    def _kept(self, source: TextModel | None, corpus: Corpus, cuts: Cuts, numbers: np.ndarray) -> Kept | None:
        """What the run it goes on from costs on the old texts and the new, before it learns anything; of several
        processes the first asks, which will judge."""
        path, task = Path(self.settings.model.from_ or ""), self.settings.target.task
        if source is None or processes.number() or task not in ("next_token", "masked_token") or task_of(path) != task:
            return None
        self.say.line(f"reading the new texts and the old ones with {path} as it is")
        model = open_text_model(path).model if source.model.device.type == "meta" else source.model
        model = model.to(best_device()).eval()
        return Kept(path, model, surprise(model, corpus, cuts, numbers))

    def _look(self) -> Plan:
        return look_texts(self.settings, self.table)

    def _aim(self, plan: Plan) -> str:
        """What is learnt, in words."""
        return f"{'hidden tokens are' if self.masked else 'every next token is'} predicted in '{self.column}'"

    def _parts(self, clean: CleanRows, corpus: Corpus) -> np.ndarray:
        """What each document of the corpus is for; those after the rows are canaries."""
        more = len(corpus.documents.letters) - len(clean)
        return np.concatenate([clean.parts, np.full(more, TRAIN, clean.parts.dtype)]) if more else clean.parts

    def _canaries(self, clean: CleanRows) -> list[Canary]:
        """The secrets to plant. Raises DataError where one is in the data already."""
        wanted = self.settings.training.canaries
        found = [] if wanted is None else canaries(wanted, self.settings.training.seed)
        for number, batch in enumerate(clean.batches() if found else ()):
            for canary in found:
                if pc.any(pc.match_substring(batch.columns[self.column], canary.text)).as_py():
                    raise DataError(
                        f"training.canaries: a canary must not be in the data. Got {canary.text!r}, which is in batch "
                        f"{number} of {self.table.name}. Choose another."
                    )
        if found:
            self.say.line(f"{len(found):,} canaries are planted, {sum(c.times for c in found):,} texts in all")
        return found

    def _letters(self, corpus: Corpus, documents: np.ndarray) -> int:
        """How much text some documents hold."""
        return int(corpus.documents.letters[documents].sum())

    def _smoothing(self) -> float:
        return 0.0

    def _features(self, clean: CleanRows, source: TextModel | None) -> tuple[Corpus, Tokenizer]:
        settings = self.settings
        tokenizer = self._tokenizer(clean, source or self.teacher, [self.column])
        check_tokens(settings, tokenizer, self.teacher)
        marks = Marks.of(tokenizer)
        self.canaries = self._canaries(clean)
        more = [canary.text for canary in self.canaries for _ in range(canary.times)]
        folder = self.work / "store"

        def encode() -> Documents:
            shutil.rmtree(folder, ignore_errors=True)
            return encode_documents(clean, self.column, tokenizer, marks.end, folder, self.say, more)

        documents = once(encode, lambda: Documents.stored(Store(folder), self.column))
        size = tokenizer.get_vocab_size()
        read = [m.model if m else None for m in (source, self.teacher)]
        longest = self.context = min(context(settings, self.column, model) for model in read)
        pack = self._packs(source)
        corpus = Corpus(documents, marks, longest, settings.training.seed, size if self.masked else None, pack=pack)
        learnt = "of the checkpoint" if source else "learnt"
        self.say.step("features", f"{corpus.documents.lengths().sum():,} tokens of {size:,} kinds ({learnt})")
        return corpus, tokenizer

    def _packs(self, source: TextModel | None) -> bool:
        """Whether texts may share a row of a batch: not where each is learnt by itself."""
        return not self._recurrent(source) and self.settings.training.privacy is None

    def _recurrent(self, source: TextModel | None) -> bool:
        if source is not None or self.teacher is not None:
            return any(isinstance(m.model.backbone, Recurrent) for m in (source, self.teacher) if m is not None)
        return self.settings.model.backbone == "rnn"

    def _built(
        self, corpus: Corpus, tokenizer: Tokenizer, source: TextModel | None, train: np.ndarray
    ) -> tuple[LanguageModel, Recipe]:
        """The model as it begins, and how it is trained on the documents ``train``."""
        settings, device = self.settings, best_device()
        letters = round(self._letters(corpus, train) * self.scale)
        lengths = corpus.documents.lengths()[train]
        if source is None and lengths.sum() < 1_000:
            raise DataError(
                f"{self.table.name}: the training texts must hold at least 1,000 tokens to learn a language from. "
                f"Got {lengths.sum():,}. Give more texts, or begin from a model (model.from)."
            )
        torch.manual_seed(settings.training.seed)
        with deferred(in_pieces(settings)):
            if source is not None:
                model = deepcopy(source.model) if self.trial else source.model
                if settings.model.dropout is not None:
                    with_dropout(model, settings.model.dropout)
                if rank := lora_rank(settings):
                    model.requires_grad_(False)
                    attach(model.backbone, rank)
            else:
                shape = language_config(settings, tokenizer.get_vocab_size(), corpus.marks, corpus.context, letters)
                model = LanguageModel(shape)
            model = model.to(device)
        shape = model.config
        self.backbone = shape.backbone
        pieces = round(len(corpus.cuts(train)) * self.scale)
        recipe = language_recipe(
            settings, letters, pieces, round(lengths.sum() * self.scale), corpus.context, shape.vocabulary,
            shape.backbone.width, device, source is not None,
        )  # fmt: skip
        return model, recipe

    def _model(
        self, corpus: Corpus, tokenizer: Tokenizer, source: TextModel | None, ids: Sequence[np.ndarray]
    ) -> tuple[LanguageModel, Trained]:
        self._search(corpus, tokenizer, source, ids)
        model, trained = self._train(corpus, tokenizer, source, ids)
        self._keep(model, trained, tokenizer, self.words)
        return model, trained

    def _train(
        self, corpus: Corpus, tokenizer: Tokenizer, source: TextModel | None, ids: Sequence[np.ndarray]
    ) -> tuple[LanguageModel, Trained]:
        model, recipe = self._built(corpus, tokenizer, source, ids[TRAIN])
        self._say_model(model, recipe, f"context {corpus.context:,} tokens")
        return model, fit_language(
            model, corpus, ids[TRAIN], ids[VALID], recipe, self._smoothing(), self.out, self.say,
            self.teacher.model if self.teacher else None,
        )  # fmt: skip

    def _samples(
        self, model: LanguageModel, tokenizer: Tokenizer, clean: CleanRows, corpus: Corpus, judged: np.ndarray
    ) -> list[dict[str, str]]:
        """How it goes on from the beginnings of texts it never saw."""
        if self.masked:
            return []
        texts = clean.take(judged[:SAMPLES], [self.column])[self.column].to_pylist()
        prompts = [text[: max(1, min(40, len(text) // 3))] for text in texts]
        sampling = Sampling(max_tokens=SAMPLE_TOKENS, temperature=0.8, seed=self.settings.training.seed)
        found = write(model, tokenizer, prompts, sampling, cut=True)
        return [{"prompt": p, "text": w.text} for p, w in zip(prompts, found, strict=True)]

    def _results(
        self, plan: Plan, clean: CleanRows, ids: Sequence[np.ndarray], lost: Surprise, others: list[dict[str, Any]]
    ) -> dict[str, Any]:
        part = "test" if len(ids[TEST]) else "valid"
        found = estimates(lost, self.masked)
        where = f"{len(lost.nats):,} pieces of {'texts it never saw' if part == 'test' else 'the validation texts'}"
        headline = language_sentence(found, others, where)
        self.say.step("results", headline)
        ours = Judged("weft", "Weft", found, seconds=self.seconds["model"]).to_dict()
        return {
            "task": self.settings.target.task, "headline": headline, "part_judged": part,
            "models": [ours, *others], "shown": SHOWN_READING if self.masked else SHOWN_WRITING,
            "rows_judged": int(len(ids[TEST]) or len(ids[VALID])),
            "target": {"name": self.column, "type": "text", "reason": plan.target_reason},
        }  # fmt: skip


def open_source(settings: Settings) -> TextModel | None:
    """The model that a language task goes on from, if any. Raises SettingsError where it is of another kind."""
    name = settings.model.from_
    if name is None:
        return None
    masked = settings.target.task == "masked_token"
    source = open_text_source(settings, name)
    config = source.model.config
    reads = config.backbone.attention == "reading"
    if reads != masked or config.output == "none":
        wanted = "reads (an encoder with an output matrix)" if masked else "writes"
        raise SettingsError(
            [f"model.from: target.{settings.target.task} needs a model that {wanted}. "
             f"Got one that {'writes' if not reads else 'reads'}: {name}."]
        )  # fmt: skip
    if settings.target.task == "dialogue" and config.backbone.attention == "rewriting":
        raise SettingsError(
            [f"model.from: a dialogue needs a model that writes on. {name} writes a text from a source."]
        )
    check_matrices(settings, config.backbone)
    context(settings, settings.target.name, source.model)
    given = settings.features.get(settings.target.name)
    if given is not None and given.vocabulary is not None:
        where = f"features.{settings.target.name}.vocabulary"
        raise SettingsError([f"{where}: the checkpoint has its own tokens. Remove it."])
    if masked and Marks.of(source.tokenizer).mask is None:
        raise SettingsError(
            [f"model.from: target.masked_token needs a tokenizer with a token that hides others. {name} has none."]
        )
    return source
