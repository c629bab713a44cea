"""What tasks share whose run is a text model: where it begins, its tokenizer, what is said of it, how it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tokenizers import Tokenizer

from weft.config import Settings
from weft.data.plan import Plan
from weft.errors import SettingsError
from weft.exchange import open_text_model
from weft.features.documents import Said, learn_tokenizer
from weft.files import write_whole
from weft.language_defaults import one_setting
from weft.models.backbone import backbone_in_words
from weft.models.deferred import deferred
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel, find, smaller
from weft.models.stored import save_language_model
from weft.preprocess.ingest import CleanRows, Ingested
from weft.progress import minutes_in_words
from weft.tasks.steps import Foretold, ForetoldSteps
from weft.training.adapters import merge
from weft.training.language import Trained
from weft.training.loop import Recipe
from weft.training.parallel import in_pieces, once


def open_text_source(settings: Settings, name: str) -> TextModel:
    """The text model to go on from, as small as is asked for. Its numbers stay in its files where processes will hold
    pieces of it."""
    layers, ffn_width = settings.model.layers, settings.model.ffn_width
    with deferred(in_pieces(settings) and layers is ffn_width is None):
        source = open_text_model(find(name))
    source.model = smaller(source.model, layers, ffn_width)
    return source


class TextModelSteps(ForetoldSteps):
    """Steps whose run is a text model, with its tokenizer a checkpoint as well."""

    def _begin(self, plan: Plan, aim: str) -> tuple[CleanRows, Ingested]:
        """Take the run folder and read the table; ``aim``: what is learnt, in words."""
        self._claim()
        with self._timed("data"):
            self.say.step("data", f"{self.table.name}: {aim}")
        with self._timed("preprocess"):
            clean, found, _ = self._preprocess(plan)
        return clean, found

    def _foretold(
        self, plan: Plan, clean: CleanRows, tokenizer: Tokenizer, model: LanguageModel, recipe: Recipe, rows: float,
        cost: tuple[float, int], tokens: np.ndarray, longest: int,
    ) -> Foretold:  # fmt: skip
        """... from the ``cost`` of a step, of which an epoch learns ``rows``, and the ``tokens`` of what was read."""
        texts = list(dict.fromkeys([*(n for n, kind in plan.types.items() if kind == "text"), plan.target]))
        letters = [(n, sum(pc.sum(pc.utf8_length(b.columns[n])).as_py() or 0 for b in clean.batches())) for n in texts]
        of = f"of {self.settings.model.from_}" if self.settings.model.from_ else "learnt from the training texts"
        each = ", ".join(f"{count / len(clean):,.0f} letters of '{n}'" for n, count in letters)
        said = f"each with about {each}; {tokenizer.get_vocab_size():,} kinds of token {of}"
        shape = f"{backbone_in_words(model.config.backbone)}, at most {longest:,} tokens a text"
        steps = math.ceil(rows / recipe.batch_rows) * recipe.epochs
        return Foretold(plan, model, shape, recipe, steps, *cost, float(tokens.sum()), "tokens", said)

    def _tokenizer(
        self, clean: CleanRows, source: TextModel | None, names: Sequence[str], said: Said = iter
    ) -> Tokenizer:
        """That of the model it goes on from, or one learnt from some columns."""
        given = one_setting(self.settings, names, "vocabulary")
        if source is None:
            file = self.work / "tokenizer.json"

            def learn() -> Tokenizer:
                found = learn_tokenizer(clean, names, given, self.settings.training.seed, said, self.scale)
                write_whole(file, found.to_str())
                return found

            return once(learn, lambda: Tokenizer.from_file(str(file)))
        if given:
            name = next(n for n in names if n in self.settings.features and self.settings.features[n].vocabulary)
            raise SettingsError([f"features.{name}.vocabulary: the checkpoint has its own tokens. Remove it."])
        return source.tokenizer

    def _say_model(self, model: LanguageModel, recipe: Recipe, length: str) -> None:
        """What will be trained; ``length``: of the texts it reads, in words."""
        self.recipe = recipe
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.say.step(
            "model",
            f"{backbone_in_words(model.config.backbone)}, {sum(p.numel() for p in model.parameters()):,} parameters; "
            f"{length}; "
            + (f"at most {minutes_in_words(recipe.minutes)}" if recipe.minutes else f"at most {recipe.epochs:,} epochs")
            + (", bfloat16" if recipe.bfloat16 else ""),
        )

    def _keep(
        self, model: LanguageModel, trained: Trained, tokenizer: Tokenizer, words: Mapping[str, str] | None = None
    ) -> None:
        """Say how the training went, and write the model into the run, an adapter added to its matrices."""
        p = trained.progress
        self.say.line(
            f"best after {p.best_step / trained.steps_an_epoch:.3g} epochs; {p.stopped}; "
            f"{trained.tokens_a_second:,.0f} tokens a second"
        )
        if self.settings.model.adapter == "lora":
            merge(model.backbone)
        self.family = save_language_model(model, self.out, tokenizer, words)

    def _model_facts(self, model: LanguageModel, trained: Trained, context: int) -> dict[str, Any]:
        """What ``report.json`` says of the model; ``context``: tokens of the longest text it reads."""
        p = trained.progress
        return {
            "parameters": sum(q.numel() for q in model.parameters()), "trained": self.trained,
            "shape": backbone_in_words(model.config.backbone), "from": self.settings.model.from_,
            "context": context, "family": self.family, "vocabulary": model.config.vocabulary,
            "bfloat16": self.recipe.bfloat16, "epochs": round(p.best_step / trained.steps_an_epoch, 2),
            "stopped": p.stopped, "tokens_a_second": round(trained.tokens_a_second),
        }  # fmt: skip
