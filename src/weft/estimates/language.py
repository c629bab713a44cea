"""What a language task will read, build, need and take, before any of it is spent.

Sizes are those of the first texts, carried over to the whole; the time is measured: the model itself takes a few
steps on them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from weft.config import Settings
from weft.data.plan import look_texts
from weft.data.table import Table
from weft.errors import DataError
from weft.estimates.rows import rows_of
from weft.features.documents import Documents, Marks, fit_tokenizer
from weft.features.pieces import Corpus
from weft.language_defaults import context, language_config, language_recipe
from weft.memory import size_in_words
from weft.models.language import LanguageModel
from weft.models.row import backbone_in_words
from weft.preprocess.ingest import TEXTS_AT_ONCE, make_cleaner
from weft.progress import duration
from weft.tasks.language import open_source
from weft.training.adapters import LoraConfig, attach
from weft.training.language import TokenObjective
from weft.training.loop import Recipe
from weft.training.pace import some_rows, step_cost

SAMPLE_LETTERS = 2_000_000


def estimate_language(settings: Settings) -> dict[str, Any]:
    """Plan, sizes, memory and time of a run. Raises what the run itself would raise on these settings."""
    assert settings.data.source is not None
    table = Table.open(settings.data.source, settings.data.format)
    plan = look_texts(settings, table)
    source = open_source(settings)
    rows, exact = rows_of(table)
    seen, texts = _sample(settings, table, make_cleaner(settings, plan))
    if not texts:
        raise DataError(f"{table.name}: must hold texts in '{settings.target.name}'. Got none in its first {seen:,}.")
    rows, exact = (seen, True) if seen < TEXTS_AT_ONCE and rows <= seen else (max(rows, seen), exact)
    split = settings.data.split
    share = 1 - split.valid - (0 if split.column else split.test)
    used = rows * len(texts) / seen
    letters = round(used * float(np.mean([len(t) for t in texts])))
    corpus, vocabulary = _corpus(settings, texts, source, round(letters * share))
    model = _model(settings, source, vocabulary, corpus, round(letters * share))
    tokens = used * float(corpus.documents.lengths().mean())
    cuts = corpus.cuts(np.arange(len(texts)))
    pieces = max(1, round(used * share * len(cuts) / len(texts)))
    config = model.config
    recipe = language_recipe(
        settings, round(letters * share), pieces, round(tokens * share), corpus.context, config.vocabulary,
        config.backbone.width, "cpu", source is not None,
    )  # fmt: skip
    seconds, activations = _probe(model, corpus, recipe)
    steps = int(np.ceil(pieces / recipe.batch_rows)) * recipe.epochs
    most = min(steps * seconds * 1.1, 60 * recipe.minutes if recipe.minutes else np.inf)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # of what is trained also gradients, two moments, the average and the best; on disk two checkpoints of them
    memory = 4 * (parameters + 5 * trained) + activations
    size = 2 if config.vocabulary <= 1 << 16 else 4
    disk = used * float(np.mean([len(t.encode()) for t in texts])) + size * tokens + 8 * (parameters + 4 * trained)
    about = "" if exact else "about "
    rate = tokens * share / max(1, np.ceil(pieces / recipe.batch_rows)) / seconds
    limit = f"{recipe.epochs:,} epochs of {steps // recipe.epochs:,} steps"
    if recipe.minutes:
        limit = f"{recipe.minutes:g} minutes"
    return {
        "plan": {
            "target": plan.target, "target_type": "text", "target_reason": plan.target_reason, "columns": {},
            "left_out": {n: "only the texts are read" for n in table.columns if n != plan.target},
            "warnings": plan.warnings,
        },
        "rows": rows, "rows_exact": exact, "tokens": round(tokens), "parameters": parameters,
        "recipe": asdict(recipe), "steps": steps, "memory_bytes": int(memory), "disk_bytes": int(disk),
        "tokens_a_second": round(rate), "seconds_at_most": float(most),
        "words": {
            "rows": f"{about}{rows:,} texts, about {letters:,} letters, {round(tokens):,} tokens of {vocabulary:,}",
            "model": f"{backbone_in_words(config.backbone)}, {parameters:,} parameters"
            + (f", {trained:,} of them trained" if trained < parameters else "")
            + f"; context {corpus.context:,} tokens",
            "training": f"at most {limit}, about {rate:,.0f} tokens a second",
            "memory": f"about {size_in_words(memory)} for the model and a step, beside about 500 MB for the libraries",
            "disk": f"about {size_in_words(disk)} while it runs",
            "time": f"at most about {duration(most)} of training on this machine (early stopping often halves it)",
        },
    }  # fmt: skip


def _sample(settings: Settings, table: Table, cleaner: Any) -> tuple[int, list[str]]:
    """How many of the first rows were looked at, and the texts in them."""
    seen, texts, letters = 0, [], 0
    for raw in table.batches(cleaner.plans, TEXTS_AT_ONCE):
        clean = cleaner(raw)
        seen += len(clean.rows) + len(clean.rejected)
        texts += clean.columns[settings.target.name].to_pylist()
        letters = sum(map(len, texts))
        if letters >= SAMPLE_LETTERS:
            break
    return seen, texts


def _corpus(settings: Settings, texts: list[str], source: Any, letters: int) -> tuple[Corpus, int]:
    column = settings.target.name
    given = settings.features.get(column)
    tokenizer = (
        source.tokenizer if source is not None else fit_tokenizer(texts, letters, given.vocabulary if given else None)
    )
    marks, size = Marks.of(tokenizer), tokenizer.get_vocab_size()
    recurrent = settings.model.backbone == "rnn" or (source is not None and source.longest is None)
    longest = context(settings, column, source.model if source else None)
    masked = size if settings.target.masked_token else None
    found = Documents.of(texts, tokenizer, marks.end)
    return Corpus(found, marks, longest, settings.training.seed, masked, pack=not recurrent), size


def _model(settings: Settings, source: Any, vocabulary: int, corpus: Corpus, letters: int) -> LanguageModel:
    if source is None:
        return LanguageModel(language_config(settings, vocabulary, corpus.marks, corpus.context, letters))
    if settings.model.adapter == "lora":
        source.model.requires_grad_(False)
        rank = settings.model.rank or 16
        attach(source.model.backbone, LoraConfig(rank=rank, scale=2.0 * rank))
    return source.model


def _probe(model: LanguageModel, corpus: Corpus, recipe: Recipe) -> tuple[float, int]:
    """Seconds a step, and bytes of activations of a step, measured on the model itself."""
    objective = TokenObjective(model).train()
    cuts = corpus.cuts(np.arange(len(corpus.documents.letters)))
    rows = some_rows(np.arange(len(cuts)), -(-recipe.batch_rows // recipe.accumulate))
    seconds, held = step_cost(objective, recipe, objective.loss, (corpus.batch(cuts, some, 0) for some in rows))
    return seconds * recipe.batch_rows / len(rows[0]), held
