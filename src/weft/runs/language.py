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
from weft.features.pieces import Corpus, Cuts
from weft.inference.generate import Written, write
from weft.inference.predict import Predictor
from weft.inference.rewrite import Rewriter
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.models.pretrained import load_language_model
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.results.language import Surprise, estimates
from weft.runs.run import Run
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

    cell = "document"
    """How the cells of its column are read."""

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
        found = self.judge(Table.of(table), self._loaded[0], everything)
        figures = estimates(found.lost, self.settings.target.masked_token is not None)
        return {
            "rows": found.rows, "rejected": found.rejected, "unknown_class": 0, "part": found.part,
            "metrics": {k: e.to_dict() for k, e in figures.items()},
        }  # fmt: skip

    def judge(self, source: Table, model: LanguageModel, everything: bool = False) -> Judged:
        """What the texts of a table cost a model that has this run's tokens, read as this run reads them.

        On the very data of the training only the test texts count, unless ``everything``.
        """
        target = self.settings.target
        if target.name not in source.columns:
            raise DataError(f"{source.name}: there is no column '{target.name}', whose texts are read.")
        same = not everything and source.fingerprint() == self.figures["data"]["fingerprint"]
        parts = np.load(self.path / "split.npy", allow_pickle=False) if same else None
        judged = TEST if parts is None or (parts == TEST).any() else VALID
        cleaner = Cleaner({target.name: ColumnPlan(self.cell)}, self.settings.preprocess.normalize or "nfc",
                          target.name)  # fmt: skip
        found, rows, rejected = [], 0, 0
        for raw in source.batches([target.name], rows=1_024):
            clean = cleaner(raw)
            rejected += len(clean.rejected)
            use = np.ones(len(clean.rows), bool) if parts is None else parts[clean.rows] == judged
            texts = clean.columns[target.name].filter(pa.array(use)).to_pylist()
            if texts:
                rows += len(texts)
                corpus = self._corpus(texts)
                cuts = corpus.cuts(np.arange(len(corpus.documents.letters)))
                found.append(surprise(model, corpus, cuts, np.arange(len(cuts))))
        lost = Surprise.join(found) if found else None
        if lost is None or not lost.tokens.sum():
            got = "none" if not rows else f"{rows:,} of which nothing can be asked: they are too short, or too long"
            raise DataError(f"{source.name}: must hold texts in '{target.name}' to be judged. Got {got}.")
        part = f"{NAMES[judged]} rows of the training data" if same else "all rows"
        return Judged(lost, rows, rejected, part)

    def _corpus(self, texts: list[str]) -> Corpus:
        """Cells of the column, as the model reads them."""
        tokenizer = self._loaded[1]
        marks, context = Marks.of(tokenizer), int(self.figures["model"]["context"])
        masked = tokenizer.get_vocab_size() if self.settings.target.masked_token is not None else None
        seed = self.settings.training.seed
        return Corpus(Documents.of(texts, tokenizer, marks.end), marks, context, seed, masked)

    def _predictor(self, allow_missing: bool) -> Predictor | Rewriter:
        use = f'weft generate {self.path} "PROMPT", or run.generate(prompts)'
        if self.settings.target.masked_token:
            use = f"weft embed {self.path} DATA -o OUT"
        raise UsageError(
            f"{self.path}: must be a run that predicts a column. It is a language model. Use it: {use}; or train a "
            f"table's model from it: model: {{from: {self.path}}}."
        )


def surprise(model: LanguageModel, corpus: Corpus, cuts: Cuts, numbers: np.ndarray) -> Surprise:
    """What some pieces of documents cost a model."""
    nats, tokens = document_nats(TokenObjective(model), corpus, cuts, numbers)
    return Surprise.of(corpus, cuts, numbers, nats, tokens)
