"""PairRun: the folder that pairs of texts leave. It is a checkpoint: ``weft embed`` and ``weft search`` read it.

weft.yaml  model.safetensors  config.json  tokenizer.json  metrics.jsonl
report.html  report.json  rejected.parquet  README.md  manifest.json
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.exchange import open_text_model
from weft.inference.embed import Embedder
from weft.preprocess.clean import ColumnPlan
from weft.preprocess.letters import Letters
from weft.preprocess.paired import PairCleaner
from weft.results.explain.reading import Nearness
from weft.results.metrics import with_intervals
from weft.results.retrieval import Retrieval, Score, rank_metrics
from weft.runs.asked import AskedRun
from weft.runs.judged import JudgedRows
from weft.runs.run import check_readable


class PairRun(AskedRun):
    """A finished run whose model gives texts that belong together vectors that are near."""

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(open_text_model(self.path), self.letters.redact)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors [N, D] of length one: the product of two is their cosine."""
        return self._embedder(list(texts))[0]

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Nearness]]:
        if of is not None:
            raise UsageError("of: two texts have one nearness, and no other answer to explain. Leave it out.")
        cleaner = self._cleaner(source)
        for raw in source.batches(cleaner.plans):
            clean = cleaner(raw)
            check_readable(source.name, clean)
            for place, row in enumerate(clean.rows.tolist()):
                texts = {name: clean.columns[name][place].as_py() for name in cleaner.plans}
                yield row, Nearness(self._embedder, texts)

    def _predictor(self, allow_missing: bool) -> NoReturn:
        raise UsageError(
            f"{self.path}: must be a run that predicts a column. This one gives vectors: weft embed {self.path} "
            f'DATA -o index.parquet, then weft search {self.path} index.parquet "QUERY"; or run.embed(texts).'
        )

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """Recall and mean reciprocal rank of the pairs of a table, each query among all documents of the table.

        On the very data of the training only the test rows count, unless ``everything``.
        """
        source = Table.of(table)
        cleaner = self._cleaner(source)
        query, target = cleaner.plans
        judged = JudgedRows.of(self.path, self.figures, source, everything)
        queries: list[str] = []
        documents: list[str] = []
        rejected = 0
        for raw in source.batches(cleaner.plans):
            clean = cleaner(raw)
            rejected += len(clean.rejected)
            chosen = clean.chosen(judged(clean.rows)).columns
            queries += chosen[query].to_pylist()
            documents += chosen[target].to_pylist()
        if not queries:
            raise DataError(f"{source.name}: must hold pairs of '{query}' and '{target}'. Got none.")
        retrieval = Retrieval(queries, documents)
        ranks, _ = retrieval.ranks(nearness(self._embedder, retrieval.documents))
        return {
            "rows": len(queries), "documents": len(retrieval.documents), "rejected": rejected,
            "part": judged.words(),
            "metrics": {k: e.to_dict() for k, e in with_intervals(rank_metrics(ranks), len(ranks)).items()},
        }  # fmt: skip

    def _cleaner(self, source: Table) -> PairCleaner:
        """What reads the pairs of a table. Raises DataError where it lacks a column."""
        query, target = self.figures["pairs"]["query"], self.settings.target.name
        source.require((query, target))
        return pair_cleaner(query, target, self.letters)


def pair_cleaner(query: str, document: str, letters: Letters) -> PairCleaner:
    """How the texts are read: as ``weft embed`` reads them, unless something else is said."""
    return PairCleaner({query: ColumnPlan("text"), document: ColumnPlan("text")}, letters, (query, document))


def nearness(embedder: Embedder, documents: Sequence[str]) -> Score:
    """Cosines of queries with the documents, by a model."""
    vectors, _ = embedder(list(documents))
    return lambda queries: embedder(list(queries))[0] @ vectors.T
