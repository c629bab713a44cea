"""The six steps for pairs of texts: vectors that are near where two texts belong together (semantic search)."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from weft.data.plan import Plan
from weft.data.split import TRAIN, VALID
from weft.data.task_plans import look_embedding
from weft.errors import DataError
from weft.features.store import Store
from weft.features.twins import encode_pairs
from weft.inference.embed import Embedder
from weft.language_defaults import longest
from weft.models.language import LanguageModel
from weft.models.pretrained import TextModel, describe
from weft.preprocess.ingest import CleanRows
from weft.preprocess.letters import Letters
from weft.preprocess.paired import PairCleaner
from weft.results.beside import Judged, beside
from weft.results.retrieval import SHOWN, Retrieval, bm25, rank_metrics, retrieval_sentence, tfidf
from weft.runs.pairs import PairRun, nearness, pair_cleaner
from weft.tasks.reading import ReadingSteps, Ready
from weft.training.parallel import once
from weft.training.reading import PairObjective

LONGEST = 256
"""Tokens of a text that are read while training."""
BATCH, BATCH_FROM_NOTHING = 64, 128
"""Pairs of a step: each has the others as its wrong answers, so that a larger batch asks more."""
EXAMPLES = 8


class PairSteps(ReadingSteps):
    """The vectors of a text and its target are to be nearer than those of any other two."""

    kind, asked = PairRun, "queries"

    def _ready(self) -> Ready:
        plan = look_embedding(self.settings, self.table)
        source = self._open_source()
        (self.query,) = plan.types
        self.longest = longest(self.settings, [self.query], LONGEST, source.model if source else None)
        clean, found = self._begin(plan, f"'{self.query}' is to find '{plan.target}'")
        if clean.count(TRAIN) < 2 or clean.count(VALID) < 2:
            raise DataError(
                f"{self.table.name}: there must be at least two pairs to learn from and two to watch. "
                f"Got {clean.count(TRAIN)} and {clean.count(VALID)}. Give more rows, or change data.split."
            )
        with self._timed("features"):
            tokenizer = self._tokenizer(clean, source, [self.query, plan.target])
            folder = self.work / "store"

            def encode() -> tuple[Store, int]:
                shutil.rmtree(folder, ignore_errors=True)
                return encode_pairs(clean, self.query, plan.target, tokenizer, self.longest, folder, self.say)

            store, cut = once(encode, lambda: (Store(folder), 0))
            self.say.step(
                "features", f"{len(clean):,} pairs as tokens, at most {self.longest:,} a text"
                + (f"; {cut:,} texts were longer and were cut" if cut else ""),
            )  # fmt: skip
        letters = 0 if source else round(self._letters(clean, plan.target) * self.scale)
        batch = BATCH if source else BATCH_FROM_NOTHING
        return Ready(plan, clean, found, source, tokenizer, store, clean.parts, batch, letters)

    def _objective(self, ready: Ready) -> PairObjective:
        return PairObjective(self._reader(ready, span=False))

    def _infer(
        self, ready: Ready, model: LanguageModel, judged: np.ndarray
    ) -> tuple[Retrieval, np.ndarray, np.ndarray]:
        """The judged pairs, the place of each one's text and the nearest of all."""
        embedder = Embedder(TextModel(model, ready.tokenizer, self.family, describe(model, ready.tokenizer)))
        columns = ready.clean.take(judged, [self.query, ready.plan.target])
        retrieval = Retrieval(*(columns[n].to_pylist() for n in (self.query, ready.plan.target)))
        ranks, nearest = retrieval.ranks(nearness(embedder, retrieval.documents))
        self.say.step(
            "inference", f"{len(judged):,} queries compared with {len(retrieval.documents):,} different texts"
        )
        return retrieval, ranks, nearest

    def _cleaner(self, plan: Plan) -> PairCleaner:
        return pair_cleaner(self.query, plan.target, Letters.of(self.settings.preprocess))

    def _letters(self, clean: CleanRows, target: str) -> int:
        rows = np.flatnonzero(clean.parts == TRAIN)
        return sum(len(t) for texts in clean.take(rows, [self.query, target]).values() for t in texts.to_pylist())

    def _results(self, ready: Ready, said: tuple[Retrieval, np.ndarray, np.ndarray], seen: str) -> dict[str, Any]:
        retrieval, ranks, nearest = said
        rows = len(ranks)
        ours = Judged.of("weft", "Weft", rank_metrics(ranks), rows, seconds=self.seconds["model"])
        others = []
        if self.settings.baselines:
            simple = [("tfidf", "TF-IDF", tfidf(retrieval.documents)), ("bm25", "BM25", bm25(retrieval.documents))]
            if ready.source is not None:
                untouched = nearness(Embedder(ready.source), retrieval.documents)
                simple.append(("untouched", "The checkpoint as it was", untouched))
            for key, title, score in simple:
                others.append(Judged.of(key, title, rank_metrics(retrieval.ranks(score)[0]), rows))
        return beside(ours, others, rows, ["recall_at_1"]) | {
            "headline": retrieval_sentence(ours.estimates, rows, len(retrieval.documents), seen), "shown": SHOWN,
            "examples": [
                {"query": retrieval.queries[row][:300], "found": retrieval.documents[nearest[row]][:300],
                 "place": int(ranks[row])}
                for row in range(min(EXAMPLES, rows))
            ],
            "pairs": {"query": self.query, "documents": len(retrieval.documents)},
        }  # fmt: skip
