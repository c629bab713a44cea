"""LanguageRun: the folder that a language task leaves, and what can be asked of it.

    weft.yaml  model.safetensors  config.json  tokenizer.json  metrics.jsonl
    report.html  report.json  rejected.parquet  README.md  manifest.json

The folder is a checkpoint as well: ``weft generate``, ``weft embed``, ``model: {from: RUN}`` and, where the model
has the shape of a family, ``transformers`` read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.table import RawBatch, Table
from weft.errors import DataError, UsageError
from weft.features.documents import Documents, Marks
from weft.features.pieces import Corpus, Cuts
from weft.inference.generate import Written, check_letters, encode_prompt, write
from weft.inference.predict import Predictor
from weft.inference.rewrite import Rewriter
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.models.pretrained import load_language_model
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.results.explain.asked import words_of
from weft.results.explain.writing import METHODS, NEW_TOKENS, Source
from weft.results.language import Surprise, estimates
from weft.runs.asked import AskedRun
from weft.runs.judged import JudgedRows
from weft.runs.run import check_readable
from weft.training.language import TokenObjective, document_nats


@dataclass
class Judged:
    """What some texts cost a model, how many they are, and which they are."""

    lost: Surprise
    rows: int
    rejected: int
    part: str
    said: list[str]
    """What was cut or left out."""


class LanguageRun(AskedRun):
    """A finished run of a language task."""

    methods = METHODS
    cell = "document"
    """How the cells of its column are read."""

    @cached_property
    def loaded(self) -> tuple[LanguageModel, Tokenizer]:
        """The model and its tokenizer, to which a special token that stands in a text is letters."""
        model, tokenizer = load_language_model(self.path)
        tokenizer.encode_special_tokens = True
        return model, tokenizer

    def cleaned(self, text: str) -> str:
        """A prompt as the training texts are: in their Unicode form, without control characters.

        Raises:
            DataError: the text holds half a surrogate pair.
        """
        check_letters(text)
        cleaner = Cleaner({"text": ColumnPlan("document")}, self.letters)
        batch = pa.record_batch([pa.array([text])], names=["text"])
        found: str | None = cleaner(RawBatch(np.zeros(1, np.int64), batch)).columns["text"][0].as_py()
        return text if found is None else found  # of spaces alone a document is missing, a prompt is not

    def generate(self, prompts: str | list[str], sampling: Sampling = Sampling()) -> list[Written]:
        """How the model goes on from the prompts, which are cleaned as the training texts were."""
        model, tokenizer = self.loaded
        texts = [prompts] if isinstance(prompts, str) else prompts
        return write(model, tokenizer, [self.cleaned(text) for text in texts], sampling)

    def _question(self, prompt: str, of: str | None) -> Source:
        return self._source_of(self.cleaned(prompt), of)

    def _source_of(self, prompt: str, of: str | None) -> Source:
        """What is to be explained of one text, cleaned."""
        if self.settings.target.masked_token:
            raise UsageError(
                f"{self.path}: must be a run that writes, to be explained. It fills in hidden words. Train a table's "
                f"model from it (model: {{from: {self.path}}}), and explain that."
            )
        return prompt_source(*self.loaded, prompt, of, "text")

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Source]]:
        """Each row and what is to be explained of it."""
        for row, text in self._cells(source):
            yield row, self._source_of(text or "", of)

    def _cells(self, source: Table) -> Iterator[tuple[int, str]]:
        """Each row and the cell of the column of texts.

        Raises:
            DataError: there is no such column, or a cell cannot be read.
        """
        name = self.settings.target.name
        source.require([name])
        cleaner = Cleaner({name: ColumnPlan(self.cell)}, self.letters, name)
        for raw in source.batches([name], rows=1_024):
            clean = cleaner(raw)
            check_readable(source.name, clean)
            yield from zip(clean.rows.tolist(), clean.columns[name].to_pylist(), strict=True)

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """How surprised the model is by the texts of a table, each figure with its interval.

        On the very data of the training only the test texts count, unless ``everything``.
        """
        found = self.judge(Table.of(table), self.loaded[0], everything)
        figures = estimates(found.lost, self.settings.target.masked_token is not None)
        return {
            "rows": found.rows, "rejected": found.rejected, "part": found.part,
            "said": found.said,
            "metrics": {k: e.to_dict() for k, e in figures.items()},
        }  # fmt: skip

    def judge(self, source: Table, model: LanguageModel, everything: bool = False) -> Judged:
        """What the texts of a table cost a model that has this run's tokens, read as this run reads them.

        On the very data of the training only the test texts count, unless ``everything``.
        """
        target = self.settings.target
        source.require([target.name])
        judged = JudgedRows.of(self.path, self.figures, source, everything)
        cleaner = Cleaner({target.name: ColumnPlan(self.cell)}, self.letters, target.name)
        found, rows, rejected = [], 0, 0
        for raw in source.batches([target.name], rows=1_024):
            clean = cleaner(raw)
            rejected += len(clean.rejected)
            texts = clean.chosen(judged(clean.rows)).columns[target.name].to_pylist()
            if texts:
                rows += len(texts)
                corpus = self._corpus(texts)
                cuts = corpus.cuts(np.arange(len(corpus.documents.letters)))
                found.append(surprise(model, corpus, cuts, np.arange(len(cuts))))
        lost = Surprise.join(found) if found else None
        if lost is None or not lost.tokens.sum():
            why = "; ".join(self._said()) or "they are too short, or too long"
            got = "none" if not rows else f"{rows:,} of which nothing can be asked: {why}"
            raise DataError(f"{source.name}: must hold texts in '{target.name}' to be judged. Got {got}.")
        return Judged(lost, rows, rejected, judged.words(), self._said())

    def scores(
        self, source: Table, chosen: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Numbers of the chosen texts, and the mean log probability of a token of each [N], in nats."""
        name = self.settings.target.name
        cleaner = Cleaner({name: ColumnPlan(self.cell)}, self.letters, name)
        rows, found = [], []
        for raw in source.batches([name], rows=1_024):
            clean = cleaner(raw)
            clean = clean.chosen(chosen(clean.rows))
            if len(clean.rows):
                nats, tokens = self._costs(clean.columns[name].to_pylist())
                rows.append(clean.rows[tokens > 0])
                found.append(-nats[tokens > 0] / tokens[tokens > 0])
        return np.concatenate(rows), np.concatenate(found)

    def costs(self, texts: list[str]) -> np.ndarray:
        """-log p of each text [N], in nats."""
        return self._costs([self.cleaned(text) for text in texts])[0]

    def perplexity(self, texts: list[str], model: LanguageModel, bfloat16: bool) -> float:
        """Of a model that has this run's tokens, on cleaned texts: exp of the mean -log p of a token."""
        nats, tokens = self._costs(texts, model, bfloat16)
        return float(np.exp(nats.sum() / max(1, tokens.sum())))

    def _costs(
        self, texts: list[str], model: LanguageModel | None = None, bfloat16: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        corpus = self._corpus(texts)
        cuts = corpus.cuts(np.arange(len(corpus.documents.letters)))
        objective = TokenObjective(model or self.loaded[0])
        nats, tokens = document_nats(objective, corpus, cuts, np.arange(len(cuts)), bfloat16)
        return np.bincount(cuts.document, nats, len(texts)), np.bincount(cuts.document, tokens, len(texts))

    def _corpus(self, texts: list[str]) -> Corpus:
        """Cells of the column, as the model reads them."""
        tokenizer = self.loaded[1]
        marks, context = Marks.of(tokenizer), int(self.figures["model"]["context"])
        masked = tokenizer.get_vocab_size() if self.settings.target.masked_token is not None else None
        seed = self.settings.training.seed
        return Corpus(Documents.of(texts, tokenizer, marks.end), marks, context, seed, masked)

    def _said(self) -> list[str]:
        """What was cut or left out of the texts that were judged last."""
        return []

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


def prompt_source(model: LanguageModel, tokenizer: Tokenizer, prompt: str, of: str | None, target: str) -> Source:
    """A text that goes on from a prompt: ``of``, or what the model writes."""

    def encode(texts: list[str]) -> list[int]:
        return encode_prompt(model, tokenizer, texts[0])

    words, context = words_of({"prompt": prompt}, tokenizer), encode([prompt])
    if of is None:
        ids = new_tokens(model, tokenizer, context, Sampling(max_tokens=NEW_TOKENS))
    else:
        whole = encode([prompt + of])
        after = whole[: len(context)] == context
        ids = whole[len(context) :] if after else tokenizer.encode(of, add_special_tokens=False).ids
    inside = words[0].owners(tokenizer)
    before = np.full(len(context) - len(inside), -1)
    return Source(model, tokenizer, words, encode, target, ids, np.concatenate([before, inside]))


def new_tokens(model: LanguageModel, tokenizer: Tokenizer, prompt: list[int], sampling: Sampling) -> list[int]:
    """The tokens that the model writes after a prompt, without its end.

    Raises:
        DataError: it writes nothing.
    """
    ids = [i for i in write(model, tokenizer, [prompt], sampling)[0].ids if i not in model.config.end]
    if not ids:
        raise DataError("the model writes nothing here, so that there is nothing to explain. Give a text (of, --of).")
    return ids
