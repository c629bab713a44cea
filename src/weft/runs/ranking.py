"""RankingRun: the folder that recommendation leaves, and what can be asked of it.

weft.yaml  model.safetensors  config.json  columns.json  catalogue.arrow  users.arrow  metrics.jsonl
report.html  report.json  rejected.parquet  README.md  manifest.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from weft.data.plan import group_types
from weft.data.split import NAMES, TEST, VALID
from weft.data.table import RawBatch, Table
from weft.data.task_plans import look_ranking
from weft.data_settings import SplitSettings
from weft.errors import DataError, UsageError
from weft.features.catalogue import CATALOGUE_FILE, Catalogue
from weft.features.events import Gathered, gather_events, leave_last, recode
from weft.features.groups import GroupColumns, Members
from weft.inference.ranking import (
    USERS_FILE,
    KnownUsers,
    Ranker,
    RankingPredictor,
    Recommended,
    events_of,
    history_of,
)
from weft.models.ranking import RankingConfig, RankingModel
from weft.preprocess.clean import Cleaner
from weft.preprocess.events import EventCleaner, EventColumns
from weft.preprocess.ingest import GROUP, CleanRows, ingest
from weft.progress import Silent
from weft.results.audit.figures import by_weights, exposure
from weft.results.audit.words import said_of
from weft.results.explain.recommending import Recommendation
from weft.results.ranking import Ranked, rank_questions, some_questions
from weft.runs.asked import AskedRun
from weft.runs.audit import Asked
from weft.runs.judged import JudgedRows
from weft.runs.run import check_readable
from weft.runs.weights import load_weights, save_weights

TOP = 10


@dataclass
class _Found:
    """Where what users had next stands, how often each item was it [V], and the users' groups."""

    ranked: Ranked
    had: np.ndarray
    questions: int
    rejected: int
    part: str
    groups: list[Members] | None


class RankingRun(AskedRun):
    """A finished run that says which items a user will have next."""

    top = TOP
    """Items that ``predict`` recommends for a row."""
    taken: bool | None = None
    """Whether ``predict`` may recommend what the user has had; None: as the run decided."""

    def _asked(self) -> dict[str, Any]:
        return {"top": self.top, "taken": self.taken}

    @cached_property
    def _ranker(self) -> Ranker:
        catalogue = Catalogue.load(self.path)
        return Ranker(load_ranking_model(self.path, catalogue), catalogue)

    @cached_property
    def _users(self) -> KnownUsers | None:
        return KnownUsers(self.path) if (self.path / USERS_FILE).exists() else None

    @cached_property
    def _reads(self) -> tuple[EventColumns, Cleaner]:
        found = self.figures["ranking"]
        return EventColumns(**found["columns"]), _cleaner_from(found["cleaner"])

    def recommend(self, user: Any, k: int = TOP, taken: bool | None = None) -> list[dict[str, Any]]:
        """The ``k`` items that most probably come next, the best first: ``item``, ``title`` and ``score``.

        Args:
            user: a user of the training by name; or a history: a list of ids, or of dicts with item, time and rating,
                of a user never seen. It may be empty.
            taken: whether items that the user has had may be recommended; default: as the run decided.

        Raises:
            UsageError: the user is not known.
        """
        predictor = self._predictor(False, k, taken)
        if isinstance(user, (str, int, np.integer)):
            name = self._reads[1].letters(pa.array([str(user)]), "user")
            rows = np.array([-1]) if self._users is None else self._users.rows(name)
            if rows[0] < 0:
                raise UsageError(
                    f"{self.path}: must know the user. Got {user!r}, who is in no training event. Give a history "
                    f"instead, a list of item ids, which may be empty."
                )
            assert self._users is not None
            events = self._users.events(rows)
        else:
            column = self._reads[0].item
            raw = RawBatch(np.arange(1), pa.RecordBatch.from_arrays([history_of(user)], [column]))
            clean = EventCleaner({column: predictor.history_plan}, self._reads[1].letters, [])(raw)
            if clean.rejected:
                raise UsageError(f"history: {clean.rejected[0].reason}. Correct it.")
            events = events_of(clean.columns[column], self._ranker.catalogue)
        found = self._ranker.recommend(events, predictor.top, predictor.taken)
        codes = found.codes[0][found.codes[0] > 0]
        names, titles = self._ranker.catalogue.names, self._ranker.catalogue.titles(codes)
        return [
            {"item": names[int(c) - 1].as_py(), "title": title, "score": float(s)}
            for c, title, s in zip(codes, titles, found.scores[0], strict=False)
        ]  # fmt: skip

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Recommendation]]:
        ranker, predictor = self._ranker, self._predictor(allow_missing, 1)
        given = None if of is None else int(ranker.catalogue.codes_of(pa.array([of]))[0])
        if given == 0:
            raise UsageError(f"of: must be an item of the catalogue, by its id. Got {of!r}.")
        for _, (clean, events) in predictor.reader(source).over(source):
            check_readable(source.name, clean)
            codes = ranker.recommend(events, 1, predictor.taken).codes[:, 0]
            for user, row in enumerate(clean.rows.tolist()):
                code = int(codes[user]) if given is None else given
                if not code:
                    raise DataError(f"{source.name}: row {row}: the user has had every item; there is none to explain.")
                first, stop = events.offsets[user : user + 2].tolist()
                yield row, Recommendation(ranker, events, first, stop, code, self._reads[0].item)

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """Hits, NDCG and MRR among all items, each with its interval over users.

        On the very data of the training what was kept for the test is judged; of other data, or with ``everything``,
        each user's last event by those before it.
        """
        found = self._ranked(Table.of(table), everything)
        return {
            "rows": found.questions, "rejected": found.rejected, "part": found.part,
            "metrics": {k: e.to_dict() for k, e in found.ranked.estimates().items()},
        }  # fmt: skip

    def judge_groups(self, source: Table, asked: Asked) -> dict[str, Any]:
        """The section ``groups`` of an audit: hits of each group of users, exposure of each group of items.

        A column of the events tells the groups of users (what stands in a user's last row), one of the catalogue those
        of items.
        """
        catalogue = self._ranker.catalogue
        of_items = [name for name in asked.by if name not in source.columns and name in catalogue.columns]
        of_users = [name for name in asked.by if name not in of_items]
        found = self._ranked(source, asked.everything, of_users)
        columns = []
        if of_users and found.groups is not None:
            metrics = {key: m for key, m in found.ranked.metrics().items() if key in ("hit_at_10", "ndcg_at_10", "mrr")}
            columns += [by_weights(members, metrics) for members in found.groups]
        if of_items:
            types = {c.name: "number" if c.type == "number" else "category" for c in catalogue.codecs}
            groups = GroupColumns(of_items, types, None)
            columns += [
                exposure(m, found.ranked.recommended, found.had)
                for m in groups.members(groups.codes(catalogue.columns))
            ]
        return said_of(columns, found.questions) | {"part": found.part}

    def _ranked(self, source: Table, everything: bool, by: Sequence[str] = ()) -> _Found:
        """Where what users had next stands, and their groups ``by`` columns of the events."""
        columns, cleaner = self._reads
        source.require([name for name in (columns.item, columns.user, columns.time) if name is not None])
        same = JudgedRows.of(self.path, self.figures, source, everything).parts is not None
        settings = self.settings
        if not same:
            settings = settings.model_copy(
                update={"data": settings.data.model_copy(update={"split": SplitSettings(), "items": None})}
            )
        ranker = self._ranker
        with tempfile.TemporaryDirectory() as work:
            plan = look_ranking(settings, source)
            plan.groups = group_types(source, by)
            folder = Path(work)
            clean, _, found = ingest(
                settings, plan, source, cleaner, folder / "clean.arrow", folder / "rejected.parquet", Silent()
            )
            gathered = gather_events(clean, columns, folder / "events")
            events = gathered.events
            if not same or not self.figures["ranking"]["by_event"]:
                leave_last(events)
            recode(events, ranker.catalogue.codes_of(gathered.names))
            judged = TEST if (events.parts == TEST).any() else VALID
            places, _ = some_questions(events, judged, len(ranker.catalogue), settings.training.seed)
            if not len(places):
                raise DataError(f"{source.name}: must hold users with at least two events. Got none.")
            data, taken = ranker.data(events), self._may_take(None)
            ranked = rank_questions(lambda p: ranker.scores(data, p), events, ranker.catalogue.counts,
                                    data.in_turn(places), taken)  # fmt: skip
            had = np.bincount(events.items[places], minlength=len(ranker.catalogue) + 1)[1:]
            groups = None
            if by:
                cells = _of_users(clean, columns, gathered, by).take(pa.array(np.unique(events.owners(places))))
                reader = GroupColumns(by, plan.groups, None)
                groups = reader.members(reader.codes({n: cells[n].combine_chunks() for n in by}))
        part = f"{NAMES[judged]} events of the training data" if same else "the last event of each user"
        return _Found(ranked, had, len(places), found.rejected, part, groups)

    def _may_take(self, given: bool | None) -> bool:
        return bool(self.figures["ranking"]["taken"]) if given is None else given

    def _predictor(self, allow_missing: bool, top: int | None = None, taken: bool | None = None) -> RankingPredictor:
        top = self.top if top is None else top
        if top < 1:
            raise UsageError(f"top: must recommend at least one item. Got {top}.")
        may = self._may_take(self.taken if taken is None else taken)
        return RankingPredictor(self._ranker, *self._reads, self._users, top, may)

    def _no_rows(self) -> Recommended:
        return Recommended(np.zeros((0, 1), np.int64), np.zeros((0, 1), np.float32))


def _of_users(clean: CleanRows, columns: EventColumns, gathered: Gathered, by: Sequence[str]) -> pa.Table:
    """What the last row of each user says in the columns ``by``, in the order of the users."""
    last = np.arange(len(clean))
    if gathered.users is not None and columns.user is not None:
        names = clean.take(np.arange(len(clean)), [columns.user])[columns.user]
        owner = pc.index_in(names, value_set=gathered.users)
        last = np.zeros(len(gathered.users), np.int64)
        there = owner.is_valid().to_numpy(zero_copy_only=False)
        last[owner.drop_null().to_numpy()] = np.flatnonzero(there)
    cells = clean.take(last, [GROUP + name for name in by])
    return pa.table({name: cells[GROUP + name] for name in by})


def _cleaner_from(stored: dict[str, Any]) -> EventCleaner:
    plain = Cleaner.from_dict(stored)
    return EventCleaner(plain.plans, plain.letters, stored["needed"])


def cleaner_state(cleaner: EventCleaner) -> dict[str, Any]:
    """How events are read, as JSON."""
    return cleaner.to_dict() | {"needed": list(cleaner.needed)}


def save_ranking_model(folder: Path, model: RankingModel) -> None:
    """Write the model of a run whose catalogue is there already."""
    shape = {"architecture": "weft.RankingModel", "ranking": model.config.to_dict()}
    save_weights(folder, model, shape, CATALOGUE_FILE)


def load_ranking_model(folder: Path, catalogue: Catalogue) -> RankingModel:
    """The model of a run. Raises CheckpointError where shape, weights and catalogue do not belong together."""
    build = lambda shape: RankingModel(RankingConfig.from_dict(shape["ranking"]), catalogue.codecs)  # noqa: E731
    return load_weights(folder, build, CATALOGUE_FILE)
