"""What the tasks of a model that reads two texts share: where it begins, its tokenizer, how it is fitted and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from weft.data.split import TRAIN, VALID
from weft.errors import DataError, SettingsError
from weft.exchange import open_text_model
from weft.features.documents import Marks, learn_tokenizer
from weft.features.store import Store
from weft.language_defaults import language_config, reading_recipe, with_dropout, without_map_dropout
from weft.models.language import LanguageModel, reader_of
from weft.models.pretrained import TextModel, find
from weft.preprocess.ingest import CleanRows
from weft.results.metrics import METRICS, Weighted, difference, with_intervals
from weft.tasks.steps import TextModelSteps
from weft.training.adapters import LoraConfig, attach
from weft.training.fit import LORA_RATE
from weft.training.language import Trained
from weft.training.reading import PairObjective, SpanObjective, fit_reading


class ReadingSteps(TextModelSteps):
    """A model that reads both ways, from a checkpoint or from nothing, learns something of two texts a row."""

    longest: int
    """Tokens of the longest row that is read."""

    def _open_source(self) -> TextModel | None:
        """The model to go on from, opened before anything is written."""
        name = self.settings.model.from_
        if name is None:
            return None
        source = open_text_model(find(name))
        if source.model.config.backbone.attention != "reading":
            raise SettingsError(
                [f"model.from: target.type {self.settings.target.type} needs a model that reads (an encoder). "
                 f"Got one that writes: {name}."]
            )  # fmt: skip
        return source

    def _fits(self, wanted: int, source: TextModel | None) -> int:
        """``wanted`` tokens, or as many as the checkpoint has positions for."""
        limit = getattr(source.model.config.backbone, "max_positions", None) if source else None
        return min(wanted, limit) if limit else wanted

    def _tokenizer(self, clean: CleanRows, names: Sequence[str], source: TextModel | None) -> Tokenizer:
        given = [n for n, f in self.settings.features.items() if f.vocabulary is not None]
        if source is not None:
            if given:
                raise SettingsError([f"features.{given[0]}.vocabulary: the checkpoint has its own tokens. Remove it."])
            return source.tokenizer
        vocabulary = self.settings.features[given[0]].vocabulary if given else None
        return learn_tokenizer(clean, names, vocabulary, self.settings.training.seed)

    def _reader(self, tokenizer: Tokenizer, source: TextModel | None, letters: int, span: bool) -> LanguageModel:
        """The model as it begins. ``letters``: of the training texts, which size one that begins from nothing."""
        settings = self.settings
        torch.manual_seed(settings.training.seed)
        if source is None:
            if letters < 1_000:
                raise DataError(
                    f"{self.table.name}: the training texts must hold at least 1,000 letters to learn from. "
                    f"Got {letters:,}. Give more rows, or begin from a model (model.from)."
                )
            marks = Marks.of(tokenizer)
            shape = language_config(settings, tokenizer.get_vocab_size(), marks, self.longest, letters)
            return reader_of(LanguageModel(shape), span).to(self.device)
        model = reader_of(source.model, span)
        without_map_dropout(model)
        if settings.model.dropout is not None:
            with_dropout(model, settings.model.dropout)
        # of many tokens most never occur in the table, and a step over all of them costs more than the rest
        model.table.requires_grad_(False)
        if settings.model.adapter == "lora":
            rank = settings.model.rank or 16
            model.backbone.requires_grad_(False)
            attach(model.backbone, LoraConfig(rank=rank, scale=2.0 * rank))
            model.backbone.rate_factor = LORA_RATE  # type: ignore[assignment]
        return model.to(self.device)

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _fit(
        self,
        objective: SpanObjective | PairObjective,
        store: Store,
        parts: np.ndarray,
        batch: int,
        tokenizer: Tokenizer,
    ) -> Trained:
        """Train on the stored rows, whose ``parts`` say what each is for, and write the model into the run."""
        model, settings = objective.model, self.settings
        learn, watch = np.flatnonzero(parts == TRAIN), np.flatnonzero(parts == VALID)
        width = model.config.backbone.width
        recipe = reading_recipe(settings, len(learn), batch, width, self.device, settings.model.from_ is not None)
        self._say_model(model, recipe, f"at most {self.longest:,} tokens")
        trained = fit_reading(objective.to(self.device), store, learn, watch, recipe, self.out, self.say)
        self._keep(model, trained, tokenizer)
        return trained

    def _beside(
        self,
        ours: dict[str, Weighted],
        others: Sequence[tuple[str, str, str, dict[str, Weighted]]],
        rows: int,
        key: str,
    ) -> dict[str, Any]:
        """The model and simple ones (key, title, note, metrics) on the same rows, and who is ahead in ``key``."""
        ranked = [("weft", "Weft", "", ours), *others]
        models = [
            {"key": k, "title": title, "note": note, "seconds": self.seconds["model"] if k == "weft" else 0.0,
             "metrics": {n: e.to_dict() for n, e in with_intervals(metrics, rows).items()}}
            for k, title, note, metrics in ranked
        ]  # fmt: skip
        lines = []
        if others:
            ones = np.ones(rows)
            _, title, _, best = max(others, key=lambda o: o[3][key](ones))
            gap = difference(ours, best, key, rows)
            how = "within chance of" if gap.low <= 0 <= gap.high else "better than" if gap.value > 0 else "worse than"
            lines.append(
                f"It is {how} the best of the others ({title}): a difference of "
                f"{100 * gap.value:+.1f} points in {METRICS[key].title} "
                f"(95 % interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f})."
            )
        return {"models": models, "verdict": {"lines": lines}}
