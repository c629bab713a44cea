"""The six steps for a column of a row that is predicted from the others."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch

from weft import defaults, memory
from weft.config import Settings
from weft.data.labels import kind_in_words
from weft.data.plan import Plan, look
from weft.data.split import TEST, TRAIN, VALID
from weft.errors import DataError, SettingsError, did_you_mean
from weft.features.augment import Augmenter, augment_problem
from weft.features.codecs import CODECS, TextCodec
from weft.features.column_dropout import ColumnDropout, column_dropout_problem
from weft.features.columns import Columns
from weft.features.fit import encode_rows, fit_columns
from weft.features.store import TARGET, Store
from weft.features.targets import ClassTarget, Target, known, most_rows, outside
from weft.inference.predict import predict_codes
from weft.models.backbone import best_device, build
from weft.models.deferred import deferred
from weft.models.pretrained import PictureModel, TextModel
from weft.models.row import RowModels, shape_in_words
from weft.preprocess.clean import Cleaner
from weft.preprocess.ingest import CleanRows, Ingested
from weft.results.summary import (
    positive_class,
)
from weft.runs.judged import split_of
from weft.runs.run import Run
from weft.runs.texts import TextRun
from weft.runs.weights import load_model, save_model
from weft.tasks.distil import ask_teacher, beside_teacher, start_as_teacher
from weft.tasks.fairness import fair_training
from weft.tasks.paraphrases import PARAPHRASES, open_translators, write_paraphrases
from weft.tasks.row_results import RowResults
from weft.tasks.sources import open_source, see_as
from weft.tasks.steps import check_matrices
from weft.training.adapters import merge
from weft.training.fit import Change, Fitted, fit, start
from weft.training.parallel import in_pieces, once

INFERENCE_ROWS = 2_048
SHORTENED = 0.05
"""Share of texts that lose their end above which it is said."""


def positive_problem(settings: Settings, columns: Columns) -> None:
    """Raises SettingsError where ``target.positive`` is not one of two classes."""
    wanted, target = settings.target.positive, columns.target
    if wanted is not None and not (isinstance(target, ClassTarget) and len(target.classes) == 2):
        raise SettingsError(
            [f"target.positive: is for a target of two classes. '{target.name}' is not one. Remove it."]
        )
    if wanted is not None and wanted not in target.classes:
        raise SettingsError([f"target.positive: must be one of {target.classes}. Got {wanted!r}."])


def out_of_scope_problem(settings: Settings, target: Target, store: Store) -> None:
    """Raises SettingsError where no row has the word that ``target.out_of_scope`` names."""
    word = settings.target.out_of_scope
    if word is not None and not outside(store.field(TARGET, "value")).any():
        near = did_you_mean(word, target.classes) if isinstance(target, ClassTarget) else ""
        raise SettingsError(
            [
                f"target.out_of_scope: must be a word of the column '{target.name}'. "
                f"Got {word!r}, which is in no row.{near}"
            ]
        )


class RowSteps(RowResults):
    """A column of the row is predicted from the others."""

    def run(self) -> Run:
        plan = look(self.settings, self.table)
        self.source = self._open_source(plan)
        augment_problem(self.settings, plan, self.source.tokenizer if self.source else None)
        column_dropout_problem(self.settings, plan)
        self._check_memory(plan)
        through = open_translators(self.settings)
        self._claim()
        with self._timed("data"):
            self._say_data(plan)
        self.groups = plan.groups
        with self._timed("preprocess"):
            clean, found, cleaner = self._preprocess(plan)
            # else folds would break the split, or learn the rows that are judged
            self.dealt = found.dealt and clean.count(TEST) > 0
            self._paraphrase(plan, clean, cleaner, through)
            del through  # their models give their memory back
        with self._timed("features"):
            tokenizer, longest = None, None
            if self.source is not None:
                tokenizer, longest = self.source.tokenizer, self.source.longest
            self.owners = self._owners(clean) if self.settings.training.federated else None
            folder = self.work / "store"

            def encode() -> tuple[Columns, Store]:
                columns = fit_columns(self.settings, plan, clean, cleaner, tokenizer, longest, self.owners)
                see_as(columns, self.source)
                positive_problem(self.settings, columns)
                columns.save(self.out)
                shutil.rmtree(folder, ignore_errors=True)
                return columns, encode_rows(columns, clean, folder, self.say)

            columns, store = once(encode, lambda: (Columns.load(self.out), Store(folder)))
            out_of_scope_problem(self.settings, columns.target, store)
            self._say_features(columns)
        ids = [clean.places(part) for part in (TRAIN, VALID, TEST)]
        with self._timed("model"):
            models, fitted = self._model(columns, clean, store, ids)
        with self._timed("inference"):
            # from the files just written, so that a loaded run answers as the training did
            self.model = load_model(self.out, Columns.load(self.out))
            judged = ids[TEST] if len(ids[TEST]) else ids[VALID]
            most = most_rows(models.width)
            if len(judged) > most:
                judged = np.sort(np.random.default_rng(0).choice(judged, most, replace=False))
            output = self._inference(store, judged)
        with self._timed("results"):
            figures: dict[str, Any] = {}
            if self.settings.training.distil is not None:
                positive = positive_class(columns.target, self.settings.target.positive)
                figures["distilled"] = beside_teacher(self.settings, columns, clean, self.model, positive, self.say)
            figures |= self._results(plan, clean, columns, store, ids, judged, output)
            figures["quality"] = self._quality(plan, clean, columns, store, fitted, judged, output)
        figures |= self._facts(plan, clean, found, columns, models, fitted)
        figures |= self._private(fitted.copies[0], "rows" if self.owners is None else "owners")
        self._finish(figures)
        return Run(self.out)

    def _open_source(self, plan: Plan) -> TextModel | PictureModel | None:
        """The checkpoint to start from, opened before anything is written."""
        found = open_source(self.settings, plan)
        if found is not None:
            check_matrices(self.settings, found.backbone)
        return found

    def _check_memory(self, plan: Plan) -> None:
        """Raises SettingsError where the backbone alone, with what training holds beside it, is beyond the bound."""
        facts = defaults.Facts(self.table.row_count() or defaults.SMALL, "text" in plan.types.values(), 2, self.source)
        with torch.device("meta"):  # counted, not built
            found = build(defaults.row_config(self.settings, facts).backbone)
        size = sum(p.numel() for p in found.parameters())
        most = 4 * size * (1 if self.settings.model.adapter else 6)
        memory.require(most, f"a model of {size:,} parameters")

    def _paraphrase(self, plan: Plan, clean: CleanRows, cleaner: Cleaner, through: list[TextRun]) -> None:
        """The training texts as the given translation runs, if any, bring them back."""
        self.paraphrases, self.translated = None, None
        if through:
            names, parts = [n for n, kind in plan.types.items() if kind == "text"], split_of(self.out)
            folder = self.work / "paraphrases"
            self.paraphrases, self.translated = once(
                lambda: write_paraphrases(clean, parts, names, cleaner.letters, through, folder, self.say),
                lambda: (CleanRows(folder / PARAPHRASES, parts), {}),
            )

    def _say_data(self, plan: Plan) -> None:
        kinds = ", ".join(f"{n} {k}" for k in CODECS if (n := sum(t == k for t in plan.types.values())))
        self.say.step("data", f"{self.table.name}: {len(self.table.columns)} columns; {kinds}; target '{plan.target}'")
        self.say.line(f"the target is {kind_in_words(plan.target_type)}: {plan.target_reason}")
        for name, reason in list(plan.left_out.items())[:10]:
            self.say.line(f"left out: '{name}' {reason}")
        if len(plan.left_out) > 10:
            self.say.line(f"left out: {len(plan.left_out) - 10} more (weft check lists them)")

    def _say_features(self, columns: Columns) -> None:
        words = ", ".join(f"{n} {k}" for k in CODECS if (n := sum(c.type == k for c in columns.codecs)))
        learnt = f"; {columns.tokenizer.get_vocab_size():,} text tokens learnt" if columns.tokenizer else ""
        self.say.step("features", f"every column becomes tokens: {words}{learnt}")
        for codec in columns.codecs:
            if isinstance(codec, TextCodec) and len(codec.lengths):
                self._say_shortened(codec)

    def _say_shortened(self, codec: TextCodec) -> None:
        longer = float((codec.lengths > codec.max_tokens).mean())
        if longer <= SHORTENED:
            return
        words = f"'{codec.name}': {longer:.0%} of the texts are longer than {codec.max_tokens} tokens; of what follows "
        if self.source is not None:
            self.say.line(words + "nothing is read")
            return
        usual = int(min(np.quantile(codec.lengths, 0.99), 8192))
        whole = f"features: {{{codec.name}: {{type: text, max_tokens: {usual}}}}}"
        self.say.line(f"{words}only the words count, not their order. {whole} reads them whole")

    def _model(
        self, columns: Columns, clean: CleanRows, store: Store, ids: list[np.ndarray]
    ) -> tuple[RowModels, Fitted]:
        watch = ids[VALID]
        looked = (store.target(some) for some in np.split(watch, range(INFERENCE_ROWS, len(watch), INFERENCE_ROWS)))
        if not any(known(codes).any() for codes in looked):  # a class that only watched rows hold cannot be judged
            raise DataError(
                f"{self.table.name}: the validation rows must hold classes that the training rows hold. "
                f"Got only others. Change data.split."
            )
        self._search(columns, clean, store, ids)
        models, fitted = self._train(columns, clean, store, ids)
        if self.settings.model.adapter == "lora":
            for copy in models.each():
                merge(copy)
        save_model(self.out, models, models.each()[0].config)
        return models, fitted

    def _train(
        self, columns: Columns, clean: CleanRows, store: Store, ids: list[np.ndarray]
    ) -> tuple[RowModels, Fitted]:
        settings, learn, watch, device = self.settings, ids[TRAIN], ids[VALID], best_device()
        facts = defaults.Facts.of(columns, len(learn) + len(watch), self.source)
        shape, copies = defaults.row_config(settings, facts), defaults.copies(settings, facts)
        self.backbone = shape.backbone
        if not self.dealt:
            copies = settings.model.copies or 1
        self.recipe = defaults.recipe(settings, facts, device)
        torch.manual_seed(self.recipe.seed)
        fair, shift = fair_training(settings, columns, self.groups, clean, store, learn)
        # what a checkpoint reads, or the linear path says, before the training needs numbers
        with deferred(in_pieces(settings) and self.source is None and not shape.linear_first):
            models = RowModels(columns.codecs, columns.target, shape, copies, shift=shift).to(device)
        self.say.step(
            "model",
            f"{shape_in_words(shape)}, {models.parameter_count():,} parameters"
            + (f" in {copies} copies" if copies > 1 else "")
            + (", bfloat16" if self.recipe.bfloat16 else ""),
        )
        taught = ask_teacher(settings, columns, clean, self.work, self.say)
        if isinstance(self.source, TextModel) and start_as_teacher(settings, columns, models, self.source, self.say):
            assert taught is not None
            taught.begun = True
        elif self.source is not None:
            for copy in models.each():
                start(copy, self.source.model, defaults.lora_rank(settings), defaults.frozen(settings))
        self.trained = sum(p.numel() for p in models.parameters() if p.requires_grad)
        if self.trained < models.parameter_count():
            self.say.line(f"{self.trained:,} parameters are trained ({self.trained / models.parameter_count():.1%})")
        changes: list[Change] = []
        if change := defaults.augment(settings, facts):
            changes.append(Augmenter(change, clean, columns, self.recipe.seed, self.paraphrases))
        if self.recipe.column_dropout:
            changes.append(ColumnDropout(columns, self.recipe.column_dropout, self.recipe.seed))
        fitted = fit(
            models,
            store,
            learn,
            watch,
            self.recipe,
            self.out,
            self.say,
            changes,
            self.dealt,
            settings.target.declines,
            fair,
            self.owners,
            taught,
        )
        return models, fitted

    def _owners(self, clean: CleanRows) -> np.ndarray:
        """Whose each row is: of which file or folder of data.source."""
        owners = self.table.owners(clean.rows)
        counts = np.unique(owners[clean.places(TRAIN)], return_counts=True)[1]
        many = f"{len(counts):,} owners of {counts.min():,} to {counts.max():,} training rows each"
        self.say.line(
            f"federated: {many if len(counts) > 1 else '1 owner: this is central training'}, rehearsed on one machine: "
            "clipped updates and statistics of columns alone are put together"
        )
        return owners

    def _inference(self, store: Store, rows: np.ndarray) -> np.ndarray:
        outputs = []
        with self.say.bar("predicting", len(rows)) as bar:
            for piece in np.split(rows, range(INFERENCE_ROWS, len(rows), INFERENCE_ROWS)):
                codes = {name: fields for name, fields in store.take(piece).items() if name != TARGET}
                outputs.append(predict_codes(self.model, codes, len(piece)))
                bar.advance(len(piece))
        self.say.step("inference", f"{len(rows):,} rows predicted")
        return np.concatenate(outputs)

    def _facts(
        self,
        plan: Plan,
        clean: CleanRows,
        found: Ingested,
        columns: Columns,
        models: RowModels,
        fitted: Fitted,
    ) -> dict[str, Any]:
        return self._data_facts(plan, clean, found) | {
            "model": {
                "parameters": models.parameter_count(), "trained": self.trained, "copies": len(models.copies),
                "shape": shape_in_words(models.each()[0].config), "from": self.settings.model.from_,
                "temperature": fitted.temperature, "declines": fitted.declines,
                "thresholds": fitted.thresholds, "bfloat16": self.recipe.bfloat16,
                "epochs": [round(p.best_step / fitted.steps_an_epoch, 2) for p in fitted.copies],
                "stopped": [p.stopped for p in fitted.copies],
            },
            "back_translation": self.translated, "seconds": dict(self.seconds),
        }  # fmt: skip
