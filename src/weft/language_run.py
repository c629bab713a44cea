"""LanguageRun: the folder that a language task leaves, and what can be asked of it.

    weft.yaml  model.safetensors  config.json  tokenizer.json  metrics.jsonl
    report.html  report.json  rejected.parquet  README.md  manifest.json

The folder is a checkpoint as well: ``weft generate``, ``weft embed``, ``model: {from: RUN}`` and, where the model
has the shape of a family, ``transformers`` read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.split import NAMES, TEST, VALID
from weft.data.table import Table
from weft.errors import DataError, UsageError
from weft.features.documents import Documents, Marks
from weft.features.pieces import Corpus
from weft.inference.generate import Written, write
from weft.inference.predict import Predictor
from weft.inference.rewrite import Rewriter
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.models.pretrained import load_language_model
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.results.language import Surprise, estimates
from weft.run import Run
from weft.training.language import TokenObjective, document_nats


@dataclass
class Judged:
    """What some texts cost a model, how many they are, and which they are."""

    lost: Surprise
    rows: int
    rejected: int
    part: str


class LanguageRun(Run):
    """A finished run of a language task."""

    @cached_property
    def _loaded(self) -> tuple[LanguageModel, Tokenizer]:
        return load_language_model(self.path)

    def generate(self, prompts: str | list[str], sampling: Sampling = Sampling()) -> list[Written]:
        """How the model goes on from the prompts."""
        model, tokenizer = self._loaded
        return write(model, tokenizer, [prompts] if isinstance(prompts, str) else prompts, sampling)

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """How surprised the model is by the texts of a table, each figure with its interval.

        On the very data of the training only the test texts count, unless ``everything``.
        """
        judged = self.judge(Table.of(table), self._loaded[0], everything)
        found = estimates(judged.lost, self.settings.target.masked_token is not None)
        return {
            "rows": judged.rows, "rejected": judged.rejected, "unknown_class": 0, "part": judged.part,
            "metrics": {k: e.to_dict() for k, e in found.items()},
        }  # fmt: skip

    def judge(self, source: Table, model: LanguageModel, everything: bool = False) -> Judged:
        """What the texts of a table cost a model that has this run's tokens, read as this run reads them."""
        tokenizer = self._loaded[1]
        target, marks, size = self.settings.target, Marks.of(tokenizer), tokenizer.get_vocab_size()
        masked = size if target.masked_token is not None else None
        context = int(self.figures["model"]["context"])
        if target.name not in source.columns:
            raise DataError(f"{source.name}: there is no column '{target.name}', whose texts are read.")
        same = not everything and source.fingerprint() == self.figures["data"]["fingerprint"]
        parts = np.load(self.path / "split.npy", allow_pickle=False) if same else None
        judged = TEST if parts is None or (parts == TEST).any() else VALID
        cleaner = Cleaner({target.name: ColumnPlan("document")}, self.settings.preprocess.normalize or "nfc",
                          target.name)  # fmt: skip
        found, rows, rejected = [], 0, 0
        for raw in source.batches([target.name], rows=1_024):
            clean = cleaner(raw)
            rejected += len(clean.rejected)
            use = np.ones(len(clean.rows), bool) if parts is None else parts[clean.rows] == judged
            texts = clean.columns[target.name].filter(pa.array(use)).to_pylist()
            if texts:
                rows += len(texts)
                corpus = Corpus(Documents.of(texts, tokenizer, marks.end), marks, context, 0, masked)
                found.append(surprise(model, corpus, np.arange(len(texts))))
        if not rows:
            raise DataError(f"{source.name}: must hold texts in '{target.name}'. Got none.")
        part = f"{NAMES[judged]} rows of the training data" if same else "all rows"
        return Judged(Surprise.join(found), rows, rejected, part)

    def _predictor(self, allow_missing: bool) -> Predictor | Rewriter:
        raise UsageError(f"{self.path}: a run of a language task predicts no column. Write with weft generate.")


def surprise(model: LanguageModel, corpus: Corpus, rows: np.ndarray) -> Surprise:
    """What each piece of some documents costs a model; the size of a document is dealt to its pieces by tokens."""
    cuts = corpus.cuts(rows)
    numbers = np.arange(len(cuts))
    nats, tokens = document_nats(TokenObjective(model), corpus, cuts, numbers)
    start, stop = cuts.spans(numbers)
    share = (stop - start) / np.maximum(1, corpus.documents.lengths()[cuts.document])
    letters, size = corpus.documents.letters[cuts.document] * share, corpus.documents.bytes[cuts.document] * share
    kept = tokens > 0
    return Surprise(nats[kept], tokens[kept], letters[kept], size[kept])
