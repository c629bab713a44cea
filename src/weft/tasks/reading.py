"""What the tasks of a model that reads two texts share: where it begins, its tokenizer, how it is fitted and kept."""

from __future__ import annotations

from abc import abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from weft.config import Settings
from weft.data.plan import Plan
from weft.data.split import NAMES, TEST, TRAIN, VALID
from weft.defaults import lora_rank
from weft.errors import DataError, SettingsError
from weft.features.batching import collate
from weft.features.documents import Marks
from weft.features.store import Store
from weft.language_defaults import language_config, reading_recipe, with_dropout, without_map_dropout
from weft.models.backbone import best_device
from weft.models.deferred import deferred
from weft.models.language import LanguageModel, reader_of
from weft.models.pretrained import TextModel
from weft.preprocess.ingest import CleanRows, Ingested
from weft.runs.run import Run
from weft.tasks.steps import Foretold, check_matrices
from weft.tasks.text_models import TextModelSteps, open_text_source
from weft.training.adapters import attach
from weft.training.fit import LORA_RATE
from weft.training.language import Trained
from weft.training.loop import Recipe
from weft.training.pace import step_cost
from weft.training.parallel import in_pieces
from weft.training.private import sized
from weft.training.reading import PairObjective, SpanObjective, fit_reading


@dataclass
class Ready:
    """What a training on stored rows begins with. ``parts``: what each is for; ``batch``: rows of a step."""

    plan: Plan
    clean: CleanRows
    found: Ingested
    source: TextModel | None
    tokenizer: Tokenizer
    store: Store
    parts: np.ndarray
    batch: int
    letters: int
    """Of the training texts, which size a model that begins from nothing."""
    rows: np.ndarray | None = None
    """Of which row each of what is stored is, where a row has several."""


class ReadingSteps(TextModelSteps):
    """A model that reads both ways, from a checkpoint or from nothing, learns something of two texts a row."""

    kind: type[Run]
    """The run that it leaves."""
    asked: str
    """What is judged, in words."""
    longest: int
    """Tokens of the longest row that is read."""

    def _open_source(self) -> TextModel | None:
        """The model to go on from, opened before anything is written."""
        name = self.settings.model.from_
        if name is None:
            return None
        source = open_text_source(self.settings, name)
        if source.model.config.backbone.attention != "reading":
            raise SettingsError(
                [f"model.from: target.type {self.settings.target.type} needs a model that reads (an encoder). "
                 f"Got one that writes: {name}."]
            )  # fmt: skip
        check_matrices(self.settings, source.model.config.backbone)
        return source

    def _reader(self, ready: Ready, span: bool) -> LanguageModel:
        """The model as it begins."""
        settings, source, letters = self.settings, ready.source, ready.letters
        if source is None and letters < 1_000:
            raise DataError(
                f"{self.table.name}: the training texts must hold at least 1,000 letters to learn from. "
                f"Got {letters:,}. Give more rows, or begin from a model (model.from)."
            )
        torch.manual_seed(settings.training.seed)
        with deferred(in_pieces(settings)):
            return self._begun(settings, source, ready, span).to(self.device)

    def _begun(self, settings: Settings, source: TextModel | None, ready: Ready, span: bool) -> LanguageModel:
        if source is None:
            marks = Marks.of(ready.tokenizer)
            shape = language_config(settings, ready.tokenizer.get_vocab_size(), marks, self.longest, ready.letters)
            return reader_of(LanguageModel(shape), span)
        model = reader_of(deepcopy(source.model) if self.trial else source.model, span)
        without_map_dropout(model)
        if settings.model.dropout is not None:
            with_dropout(model, settings.model.dropout)
        # of many tokens most never occur in the table, and a step over all of them costs more than the rest
        model.table.requires_grad_(False)
        if rank := lora_rank(settings):
            attach(model.backbone, rank)
            model.backbone.rate_factor = LORA_RATE  # type: ignore[assignment]
        return model

    @property
    def device(self) -> str:
        return best_device()

    def run(self) -> Run:
        ready = self._ready()
        plan, clean, part = ready.plan, ready.clean, TEST if ready.clean.count(TEST) else VALID
        with self._timed("model"):
            self._search(ready)
            model, trained = self._train(ready)
            self._keep(model, trained, ready.tokenizer)
        judged = np.flatnonzero(clean.parts == part)
        with self._timed("inference"):
            said = self._infer(ready, model, judged)
        with self._timed("results"):
            seen = "{} it never saw" if part == TEST else "validation {}, which chose the best epoch"
            figures = self._results(ready, said, seen.format(self.asked))
            self.say.step("results", figures["headline"])
            for line in figures["verdict"]["lines"]:
                self.say.line(line)
        task = self.settings.target.task
        figures |= self._data_facts(plan, clean, ready.found) | {
            "task": task, "part_judged": NAMES[part], "rows_judged": len(judged), "samples": [],
            "target": {"name": plan.target, "type": task, "reason": plan.target_reason},
            "model": self._model_facts(model, trained, self.longest), "seconds": dict(self.seconds),
        }  # fmt: skip
        figures |= self._private(trained.progress, "rows")
        self._finish(figures)
        return self.kind(self.out)

    @abstractmethod
    def _infer(self, ready: Ready, model: LanguageModel, judged: np.ndarray) -> Any:
        """What the model says of the judged rows."""

    @abstractmethod
    def _results(self, ready: Ready, said: Any, seen: str) -> dict[str, Any]:
        """What ``report.json`` says of it beside simple ways. ``seen``: what was judged, in words."""

    @abstractmethod
    def _ready(self) -> Ready:
        """All before the training."""

    @abstractmethod
    def _objective(self, ready: Ready) -> SpanObjective | PairObjective:
        """What is minimised, of the model as it begins."""

    def _built(self, ready: Ready, rows: int) -> tuple[SpanObjective | PairObjective, Recipe]:
        """The model as it begins, and how it is trained on so many stored rows."""
        objective, tuned = self._objective(ready), self.settings.model.from_ is not None
        self.backbone = objective.model.config.backbone
        recipe = reading_recipe(self.settings, rows, ready.batch, self.backbone.width, self.device, tuned)
        return objective, recipe

    def foretell(self) -> Foretold:
        ready = self._ready()
        learn = np.flatnonzero(ready.parts == TRAIN)
        rows = round(len(learn) * self.scale)
        objective, recipe = self._built(ready, rows)
        if recipe.privacy and ready.rows is not None:  # of each row that is drawn one window is read
            rows = round(len(np.unique(ready.rows[learn])) * self.scale)
        recipe = sized(recipe, rows)
        fetch = lambda some: collate(ready.store.take(some), len(some)).to(self.device)  # noqa: E731
        cost = step_cost(objective.train(), recipe, objective.loss, fetch, learn)
        tokens = ready.store.lengths()
        assert tokens is not None
        return self._foretold(
            ready.plan, ready.clean, ready.tokenizer, objective.model, recipe, rows, cost,
            tokens[np.arange(len(ready.parts))], self.longest,
        )  # fmt: skip

    def _train(self, ready: Ready) -> tuple[LanguageModel, Trained]:
        learn, watch = np.flatnonzero(ready.parts == TRAIN), np.flatnonzero(ready.parts == VALID)
        objective, recipe = self._built(ready, len(learn))
        self._say_model(objective.model, recipe, f"at most {self.longest:,} tokens")
        trained = fit_reading(objective, ready.store, learn, watch, recipe, self.out, self.say, ready.rows)
        return objective.model, trained
