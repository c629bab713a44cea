"""What is said of a model of rows once it has answered: figures, groups, explanations, the quality of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from weft.data.plan import Plan
from weft.data.split import TEST, TRAIN, VALID
from weft.features.columns import Columns
from weft.features.images import ImageCodec
from weft.features.store import Store
from weft.features.targets import ClassTarget, NumberTarget, known, outside
from weft.models.row import RowModels, combine
from weft.preprocess.ingest import GROUP, CleanRows
from weft.results.abstention import abstention_in_words, judge_abstention, recall_at
from weft.results.baselines import MOST_LETTERS, MOST_ROWS
from weft.results.beside import Judged
from weft.results.explain.section import relies, section
from weft.results.groups import by_group, languages
from weft.results.labels import each_label
from weft.results.mislabelled import mislabelled, mislabelled_said
from weft.results.outcomes import Outcomes
from weft.results.pages import Phrases
from weft.results.pictures import chosen_rows, shown
from weft.results.quality import quality
from weft.results.summary import (
    SHOWN,
    curves,
    in_english,
    judge,
    positive_class,
    sentence,
    train_baselines,
    verdict,
)
from weft.tasks.fairness import fairness_section
from weft.tasks.steps import Steps
from weft.training.fit import Fitted

MOST_PICTURE_BYTES = 1 << 28
"""Of the pictures that the simple models learn from."""


def _images(columns: Columns) -> list[ImageCodec]:
    return [codec for codec in columns.codecs if isinstance(codec, ImageCodec)]


def _pictures(columns: Columns, store: Store, judged: np.ndarray, said: Outcomes) -> list[dict[str, Any]]:
    """Some of the judged rows with their pictures; none where no column holds pictures."""
    images = _images(columns)
    if not images:
        return []
    places = chosen_rows(said)
    codes = store.take(judged[places])
    decoded = {codec.name: codec.decode(codes[codec.name]) for codec in images}
    return shown(said[places], decoded)


class RowResults(Steps):
    """Steps whose model answers rows."""

    model: RowModels
    """From the files that were written."""
    groups: dict[str, str]
    """Columns that say to which group a row belongs, and their types."""

    def _results(
        self, plan: Plan, clean: CleanRows, columns: Columns, store: Store, ids: list[np.ndarray], judged: np.ndarray,
        output: np.ndarray,
    ) -> dict[str, Any]:  # fmt: skip
        target, truth, asked_rows = columns.target, store.target(judged), len(judged)
        abstention = judge_abstention(output, truth) if self.model.score else None
        usable = known(truth)
        apart = judged[outside(truth)]
        unknown = len(judged) - int(usable.sum()) - len(apart)
        output, truth, judged = output[usable], truth[usable], judged[usable]
        thresholds = self.model.threshold.cpu().numpy() if target.type == "labels" else None
        positive = positive_class(target, self.settings.target.positive)
        outcomes = Outcomes(target, output, truth, positive, thresholds)
        ours = judge("weft", "Weft", outcomes, seconds=self.seconds["model"])
        others: list[Judged] = []
        note = ""
        if self.settings.baselines:
            pool = clean.places(TRAIN, VALID) if len(ids[TEST]) else ids[TRAIN]
            names = list(columns.types)
            most = self._baseline_rows(clean, columns, pool)
            if len(pool) > most:
                pool = np.sort(np.random.default_rng(0).choice(pool, most, replace=False))
                note = f"The simple models learnt from {most:,} of the rows."
            answers = store.target(pool)
            pool, answers = pool[known(answers)], answers[known(answers)]
            asked = clean.take(np.concatenate([judged, apart]), names)
            for found in train_baselines(columns.types, clean.take(pool, names), answers, asked, target):
                given = found.output[: len(judged)]
                theirs = outcomes.said(given, found.thresholds)
                others.append(judge(found.key, found.title, theirs, found.note, found.seconds))
                if abstention is not None and len(apart):
                    abstention["beside"][found.title] = recall_at(
                        given.max(axis=1), found.output[len(judged) :].max(axis=1), self.settings.target.declines or 1.0
                    )
        part = ids[TEST] if len(ids[TEST]) else ids[VALID]
        if len(part) > asked_rows:
            note = f"{note} All are judged on {asked_rows:,} of {len(part):,} rows, drawn at random.".strip()
        trivial = next((o for o in others if o.key == "trivial"), None)
        decided = verdict(target, ours, others, len(truth))
        said = sentence(target, ours, trivial, len(truth), len(ids[TEST]) > 0)
        headline = " ".join(in_english(said))
        self.say.step("results", headline)
        for line in [*decided["lines"], *(abstention_in_words(abstention) if abstention else [])]:
            self.say.line(line)
        return {
            "headline": headline, "said": said, "verdict": decided, "rows_judged": len(truth), "unknown_class": unknown,
            "part_judged": "test" if len(ids[TEST]) else "valid", "note": note,
            "models": [m.to_dict() for m in (ours, *others)], "shown": SHOWN[target.type],
            "curves": curves(outcomes), "declines": abstention,
            "labels": None if thresholds is None else each_label(outcomes.classes, output, truth, thresholds),
            "languages": self._languages(clean, columns, judged, outcomes),
            "pictures": _pictures(columns, store, judged, outcomes),
            "fairness": fairness_section(self.settings, self.groups, clean, judged, outcomes),
            "explain": self._explain(columns, clean, judged, outcomes),
            "target": {
                "name": target.name, "type": target.type, "reason": plan.target_reason,
                **({} if isinstance(target, NumberTarget) else {"classes": target.classes, "counts": target.counts}),
                "positive": None if positive is None else outcomes.classes[positive],
            },
        }  # fmt: skip

    @staticmethod
    def _baseline_rows(clean: CleanRows, columns: Columns, pool: np.ndarray) -> int:
        """How many rows the simple models learn from: fewer of long texts, whose pairs of words they hold, and of
        pictures."""
        names = [name for name, kind in columns.types.items() if kind == "text"]
        some = clean.take(np.sort(np.random.default_rng(0).choice(pool, min(1_000, len(pool)), replace=False)), names)
        letters = sum(pc.sum(pc.utf8_length(texts)).as_py() or 0 for texts in some.values()) / min(1_000, len(pool))
        pictures = MOST_PICTURE_BYTES // max(1, sum(c.bytes for c in _images(columns)))
        return min(MOST_ROWS, pictures, max(1_000, int(MOST_LETTERS / max(letters, 1))))

    def _languages(
        self, clean: CleanRows, columns: Columns, judged: np.ndarray, said: Outcomes
    ) -> dict[str, Any] | None:
        """The figures by language, as a column says it or the texts show it; None where there is one only."""
        column = self.settings.results.language
        texts = [name for name, kind in columns.types.items() if kind == "text"]
        names: list[str | None] | None = None
        if column is not None:
            names = clean.take(judged, [GROUP + column])[GROUP + column].to_pylist()
        elif texts:
            names = languages(list(clean.take(judged, texts).values()))
        if names is None or len(set(names)) < 2:
            return None
        return {"column": column, "groups": by_group(names, said)}

    def _explain(self, columns: Columns, clean: CleanRows, judged: np.ndarray, said: Outcomes) -> dict[str, Any] | None:
        """What the model relies on, and rows explained; None where that is off."""
        if self.settings.results.explain == "off":
            return None
        seconds, seed = self.seconds["model"], self.settings.training.seed
        found = section(columns, self.model, clean, judged, said, seconds, seed)
        for line in relies(found, Phrases(self.settings.results.report or "en")):
            self.say.line(line)
        return found

    def _quality(
        self, plan: Plan, clean: CleanRows, columns: Columns, store: Store, fitted: Fitted, judged: np.ndarray,
        output: np.ndarray,
    ) -> dict[str, Any] | None:  # fmt: skip
        """What looks wrong with the data: columns, and labels of rows that were not learnt; None where the rows that
        were are to stay private."""
        if self.settings.training.private is not None:
            return None
        target, part = columns.target, TEST if clean.count(TEST) else VALID
        found = quality(columns.types, (target.name, target.type), clean, part, plan.warnings)
        if isinstance(target, ClassTarget):
            # a model that may decline says so in a column after those of the classes
            rows, answers, truth = [judged], [output[:, : len(target.classes)]], [store.target(judged)]
            for seen in fitted.watched:
                answers.append(combine([torch.from_numpy(seen.answers)], "class", self.model.temperature.cpu()).numpy())
                rows, truth = [*rows, seen.rows], [*truth, seen.truth]
            places, first = np.unique(np.concatenate(rows), return_index=True)
            given, p = np.concatenate(truth)[first], np.concatenate(answers)[first]
            usable = known(given)
            shown = [name for name, kind in columns.types.items() if kind != "image"]
            named = sorted(shown, key=lambda name: columns.types[name] != "text")[:4]  # what a person judges by first
            found["mislabelled"] = mislabelled(p[usable], given[usable], places[usable], target.classes, clean, named)
        for phrase, values in [*found["said"][:3], *mislabelled_said(found.get("mislabelled"))]:
            self.say.line(phrase.format(**values))
        return found
