"""The six steps for what users had: the next item of each is predicted, and items are recommended."""

from __future__ import annotations

import math
import shutil
from typing import Any

import numpy as np
import torch

from weft.data.plan import Plan
from weft.data.split import NAMES, TEST, TRAIN, VALID
from weft.data.task_plans import look_ranking
from weft.defaults import ranking_config, ranking_recipe
from weft.errors import DataError
from weft.features.catalogue import Catalogue, fit_catalogue
from weft.features.events import (
    MOST_ITEMS,
    Events,
    Gathered,
    gather_events,
    leave_last,
    recode,
    repeat_share,
)
from weft.features.next_items import Candidates, NextItems
from weft.inference.ranking import Ranker, best, write_users
from weft.models.backbone import backbone_in_words, best_device
from weft.models.ranking import RankingModel
from weft.preprocess.clean import Cleaner
from weft.preprocess.events import EventCleaner, EventColumns, event_cleaner
from weft.preprocess.ingest import CleanRows, Ingested
from weft.preprocess.letters import Letters
from weft.results.beside import Judged, beside
from weft.results.explain.asked import why
from weft.results.explain.recommending import Recommendation
from weft.results.explain.words import sentences
from weft.results.ranking import SAID, SHOWN, Ranked, rank_questions, ranking_sentence, some_questions
from weft.results.ranking_baselines import baselines
from weft.runs.ranking import RankingRun, cleaner_state, load_ranking_model, save_ranking_model
from weft.tasks.steps import Foretold, ForetoldSteps
from weft.training.language import Trained
from weft.training.pace import step_cost
from weft.training.parallel import once
from weft.training.private import sized
from weft.training.ranking import fit_ranking

REPEATED = 0.05
"""From this share of repeats in the training events on, items that a user had may be recommended again."""
FULL, FULL_WITH_COLUMNS = 20_000, 2_000
"""Items up to which every one is a candidate of every step; beyond, some are drawn."""
DRAWN, DRAWN_WITH_COLUMNS = 4_096, 512
EXAMPLES, EXAMPLE_HISTORY, EXAMPLE_TOP = 8, 10, 5
EXPLAINED = 256
"""Questions at most why the first of an example was recommended."""


class RankingSteps(ForetoldSteps):
    """What each user has next is predicted from what the user had."""

    def run(self) -> RankingRun:
        settings = self.settings
        plan, clean, found, cleaner, gathered = self._gather()
        with self._timed("features"):
            events, catalogue = once(
                lambda: self._catalogue(gathered, cleaner.letters),
                lambda: (Events.mapped(self.folder), Catalogue.load(self.out)),
            )
            self._watched(events)
            self._taken(events)
        with self._timed("model"):
            data, trained = self._model(events, catalogue)
        assert gathered is not None  # this is the first process
        with self._timed("inference"):
            # from the files just written, so that a loaded run answers as the training did
            ranker = Ranker(load_ranking_model(self.out, catalogue), catalogue)
            judged = TEST if (events.parts == TEST).any() else VALID
            places, all_places = some_questions(events, judged, len(catalogue), settings.training.seed)
            score = lambda some: ranker.scores(data, some)  # noqa: E731
            ours = rank_questions(score, events, catalogue.counts, data.in_turn(places), self.taken)
            if gathered.users is not None:
                write_users(self.out, gathered.users, events)
            self.say.step("inference", f"every item ranked at {len(places):,} events of the {NAMES[judged]} part")
        with self._timed("results"):
            figures = self._results(data, catalogue, ours, places)
            figures["examples"] = self._examples(data, ranker, ours, places)
        figures |= self._data_facts(plan, clean, found) | {"seconds": dict(self.seconds)}
        figures |= self._facts(plan, gathered, catalogue, cleaner, ranker.model, trained)
        figures |= self._private(trained.progress, "users")
        figures |= {"part_judged": NAMES[judged], "rows_judged": len(places)}
        figures["data"] |= {"split": self.parts, "split_words": self.split_words}
        if len(places) < all_places:
            figures["warnings"] = [
                *figures["warnings"],
                f"of {all_places:,} events to be judged {len(places):,} were drawn",
            ]
        self._finish(figures)
        return RankingRun(self.out)

    def foretell(self) -> Foretold:
        plan, clean, _, cleaner, gathered = self._gather()
        events, catalogue = self._catalogue(gathered, cleaner.letters)
        self._taken(events)
        data, model = self._build(events, catalogue)
        cuts, recipe = data.cuts(), self.recipe
        fetch = lambda some: data.batch(cuts, some, 0)  # noqa: E731
        rows = (len(np.unique(cuts.document)) if recipe.privacy else len(cuts)) * self.scale
        recipe = sized(recipe, rows)
        cost = step_cost(model.train(), recipe, model.loss, fetch, np.arange(len(cuts)))
        steps = math.ceil(rows / recipe.batch_rows) * recipe.epochs
        said = (
            f"the first {len(clean):,} are of {self.counts['users']:,} users and {self.items:,} items, for "
            f"which the model is"
        )
        shape = backbone_in_words(model.config.backbone)
        return Foretold(plan, model, shape, recipe, steps, *cost, len(events.items), "events", said)

    def _gather(self) -> tuple[Plan, CleanRows, Ingested, Cleaner, Gathered | None]:
        """Take the run folder, and let the first process put every user's events in order."""
        plan = look_ranking(self.settings, self.table)
        self.columns = EventColumns.of(plan, self.settings)
        self._claim()
        with self._timed("data"):
            self.say.step("data", f"{self.table.name}: {plan.target_reason}")
        with self._timed("preprocess"):
            clean, found, cleaner = self._preprocess(plan)
            self.folder = self.work / "events"
            gathered = once(lambda: self._in_order(clean), lambda: None)
        return plan, clean, found, cleaner, gathered

    def _in_order(self, clean: CleanRows) -> Gathered | None:
        shutil.rmtree(self.folder, ignore_errors=True)
        gathered = gather_events(clean, self.columns, self.folder)
        split = self.settings.data.split
        self.by_event = bool(split.column or split.by or split.time)
        if not self.by_event:
            leave_last(gathered.events)
        self._say_events(gathered)
        return gathered

    def _cleaner(self, plan: Plan) -> Cleaner:
        return event_cleaner(self.columns, plan, Letters.of(self.settings.preprocess))

    def _say_events(self, gathered: Gathered) -> None:
        events, lengths = gathered.events, gathered.events.lengths()
        counts = [int((events.parts == part).sum()) for part in range(3)]
        self.parts = dict(zip(NAMES, counts, strict=True))
        way = "each user's last event is the test, the one before it valid"
        s = self.settings.data.split
        if self.by_event:
            way = (
                f"by column '{s.column}'" if s.column else f"'{s.by}' together" if s.by else f"the latest by '{s.time}'"
            )
        self.split_words = ", ".join(f"{n:,} {name}" for n, name in zip(counts, NAMES, strict=True)) + f" ({way})"
        self.counts = {
            "events": len(events.items),
            "users": int((lengths > 0).sum()),
            "once": int((lengths == 1).sum()),
        }
        self.items = len(gathered.names)
        self.say.line(f"{len(events.items):,} events of {self.counts['users']:,} users: {self.split_words}")
        if gathered.repeated:
            self.say.line(f"{gathered.repeated:,} events came twice (same user, item and time) and count once")
        if self.counts["once"]:
            self.say.line(f"{self.counts['once']:,} users have one event: there is nothing to judge of them")

    def _watched(self, events: Events) -> None:
        """Raises DataError where there is nothing to learn from or to watch."""
        learn, watch = (int(((events.parts == part) & (events.items > 0)).sum()) for part in (TRAIN, VALID))
        if not (learn and watch):
            raise DataError(
                f"{self.table.name}: there must be events of known items to learn from and to watch. Got {learn:,} and "
                f"{watch:,}. Give users with three events or more, or another data.split."
            )

    def _catalogue(self, gathered: Gathered | None, letters: Letters) -> tuple[Events, Catalogue]:
        """The events with their items by code, and the catalogue."""
        assert gathered is not None  # only the first process is asked
        settings, events = self.settings, gathered.events
        counts = np.zeros(len(gathered.names), np.int64)
        for piece in events.pieces():
            learnt = events.items[piece][events.parts[piece] == TRAIN]
            counts += np.bincount(learnt, minlength=len(counts))
        name = settings.target.name
        given = settings.features.get(name)
        most = (given.max_categories if given else None) or MOST_ITEMS
        catalogue, codes, said = fit_catalogue(gathered.names, counts, most, settings.data.items, name, letters)
        catalogue.save(self.out)
        recode(events, codes)
        self.unknown = int((events.items[events.parts == TEST] == 0).sum())
        self.say.step("features", f"{len(catalogue):,} items can be recommended")
        for line in [*said, *([f"{self.unknown:,} test events are of items that cannot"] if self.unknown else [])]:
            self.say.line(line)
        return events, catalogue

    def _taken(self, events: Events) -> None:
        """Whether what a user had may be recommended again: as set, or as the training events show."""
        share, given = repeat_share(events), self.settings.target.taken
        self.repeats = share >= REPEATED
        self.taken = self.repeats if given is None else given
        self.taken_words = (
            f"In {share:.1%} of the training events a user came back to an item. "
            f"Items that a user has had {'may be' if self.taken else 'are never'} recommended again"
            + (" (as set)." if given is not None else ".")
        )
        self.say.line(self.taken_words)

    def _build(self, events: Events, catalogue: Catalogue) -> tuple[NextItems, RankingModel]:
        """The batches, and the model as it begins."""
        settings = self.settings
        columns = catalogue.encode()
        private = settings.training.privacy is not None  # a candidate must not come from another user
        full = private or len(catalogue) <= (FULL_WITH_COLUMNS if columns else FULL)
        drawn = None if full else DRAWN_WITH_COLUMNS if columns else DRAWN
        config = ranking_config(settings, events, catalogue, self.repeats)
        data = NextItems(events, Candidates(catalogue.counts, drawn, columns), config.context, settings.training.seed)
        device, self.backbone = best_device(), config.backbone
        torch.manual_seed(settings.training.seed)
        model = RankingModel(config, catalogue.codecs).to(device)
        if not private:
            model.begin_with(catalogue.counts)
        self.recipe = ranking_recipe(settings, data, config.backbone.width, device)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.objective = "every item is a candidate" if full else f"{drawn:,} drawn candidates a step, corrected"
        self.say.step("model", f"{backbone_in_words(config.backbone)}, {self.parameters:,} parameters; the last "
                      f"{config.context:,} events; {self.objective}")  # fmt: skip
        return data, model

    def _model(self, events: Events, catalogue: Catalogue) -> tuple[NextItems, Trained]:
        self._search(events, catalogue)
        data, model, trained = self._train(events, catalogue)
        p = trained.progress
        self.say.line(f"best after {p.best_step / trained.steps_an_epoch:.3g} epochs; {p.stopped}; "
                      f"{trained.tokens_a_second:,.0f} events a second")  # fmt: skip
        save_ranking_model(self.out, model)
        return data, trained

    def _train(self, events: Events, catalogue: Catalogue) -> tuple[NextItems, RankingModel, Trained]:
        data, model = self._build(events, catalogue)
        smoothing = self.settings.training.label_smoothing or 0.0
        return data, model, fit_ranking(model, data, self.recipe, smoothing, self.taken, self.out, self.say)

    def _results(self, data: NextItems, catalogue: Catalogue, ours: Ranked, places: np.ndarray) -> dict[str, Any]:
        counts, others = catalogue.counts, []
        mine = Judged("weft", "Weft", ours.estimates(), ours.metrics(), seconds=self.seconds["model"])
        if self.settings.baselines:
            for key, title, score in baselines(data.events, counts, self.taken):
                with self.say.bar(title, 1) as bar:
                    other = rank_questions(score, data.events, counts, data.in_turn(places), self.taken)
                    bar.advance(1)
                others.append(Judged(key, title, other.estimates(), other.metrics()))
        headline = ranking_sentence(mine.estimates, ours.rows, len(catalogue))
        self.say.step("results", headline)
        found = beside(mine, others, ours.rows, SAID)
        for line in found["verdict"]["lines"]:
            self.say.line(line)
        return found | {
            "task": "ranking", "unit": "users", "headline": headline, "shown": SHOWN, "samples": [],
        }  # fmt: skip

    def _examples(self, data: NextItems, ranker: Ranker, ours: Ranked, places: np.ndarray) -> list[dict[str, Any]]:
        """Some users with what they had, what is recommended and what came."""
        events, catalogue = data.events, ranker.catalogue
        chosen = np.unique(np.linspace(0, len(places) - 1, EXAMPLES).astype(int))
        found = []
        for number in chosen.tolist():
            place = places[number]
            first = int(events.offsets[events.owners(places[[number]])][0])
            had = np.asarray(events.items[first:place])
            scores = ranker.scores(data, places[[number]]).astype(np.float64)
            if not self.taken:
                scores[0, had[had > 0] - 1] = -np.inf
            top, truth = best(scores, EXAMPLE_TOP)[0] + 1, int(events.items[place])
            rank = ours.ranks[number]
            asked = Recommendation(ranker, events, first, int(place), int(top[0]), self.settings.target.name)
            found.append({
                "history": catalogue.titles(had[-EXAMPLE_HISTORY:]), "before": max(0, len(had) - EXAMPLE_HISTORY),
                "recommended": [{"title": t, "right": bool(c == truth)} for t, c in
                                zip(catalogue.titles(top), top, strict=True)],
                "truth": catalogue.titles([truth])[0], "place": int(rank) if np.isfinite(rank) else 0,
                "why": sentences(why(asked, number, "shap", EXPLAINED, self.settings.training.seed)),
            })  # fmt: skip
        return found

    def _facts(
        self, plan: Plan, gathered: Gathered, catalogue: Catalogue, cleaner: Cleaner, model: RankingModel,
        trained: Trained,
    ) -> dict[str, Any]:  # fmt: skip
        assert isinstance(cleaner, EventCleaner)
        p = trained.progress
        return {
            "target": {"name": plan.target, "type": "ranking", "reason": plan.target_reason},
            "ranking": {
                **self.counts, "catalogue": len(catalogue), "cold": len(catalogue) - catalogue.known,
                "split_words": self.split_words, "by_event": self.by_event, "taken": self.taken,
                "taken_words": self.taken_words, "repeated": gathered.repeated, "unknown": self.unknown,
                "columns": self.columns.to_dict(), "cleaner": cleaner_state(cleaner),
                "stored": gathered.users is not None,
            },
            "model": {
                "parameters": self.parameters, "shape": backbone_in_words(model.config.backbone),
                "context": model.config.context, "objective": self.objective, "bfloat16": self.recipe.bfloat16,
                "epochs": round(p.best_step / trained.steps_an_epoch, 2), "stopped": p.stopped,
                "events_a_second": round(trained.tokens_a_second), "best_loss": p.best_loss,
            },
        }  # fmt: skip
