"""Settings of a language task that are left out: the shape of the model and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from weft import processes
from weft.config import Settings
from weft.defaults import fresh_backbone, resolved
from weft.errors import SettingsError
from weft.features.documents import Marks
from weft.models.attention import Attention
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.recurrent import Recurrent
from weft.models.transformer import Block, Transformer
from weft.training.loop import Recipe

CONTEXT = 256
LARGE = 50_000_000
"""Letters of text from which a model no longer over-fits in the time a laptop has."""
AT_ONCE = 2_048
"""Tokens that a step computes at once on a CPU: 4,096 took as long, or 6 % longer, and 0.2 GB more
(benchmarks/RESULTS.md)."""


def one_setting(settings: Settings, names: Sequence[str], key: str) -> Any:
    """A setting of columns that share one model, or None. Raises SettingsError where they say different things."""
    given = {n: v for n in names if (f := settings.features.get(n)) and (v := getattr(f, key)) is not None}
    if len(set(given.values())) > 1:
        said = ", ".join(f"{value} for '{name}'" for name, value in given.items())
        raise SettingsError([f"features: {key} must be the same for all texts of a model. Got {said}. Keep one."])
    return next(iter(given.values()), None)


def given_tokens(settings: Settings, names: Sequence[str], source: LanguageModel | None) -> int | None:
    """``max_tokens`` of some columns, if it is set. Raises SettingsError where the checkpoint reads fewer."""
    given: int | None = one_setting(settings, names, "max_tokens")
    limit = _positions(source)
    if limit and given and given > limit:
        name = next(n for n in names if n in settings.features and settings.features[n].max_tokens)
        raise SettingsError(
            [f"features.{name}.max_tokens: the checkpoint reads at most {limit:,} tokens. Got {given:,}. "
             f"Lower it, or leave it out."]
        )  # fmt: skip
    return given


def longest(settings: Settings, names: Sequence[str], usual: int, source: LanguageModel | None) -> int:
    """Tokens of the longest text that is read: as set, else ``usual``, or as many as the checkpoint reads."""
    return given_tokens(settings, names, source) or min(usual, _positions(source) or usual)


def _positions(source: LanguageModel | None) -> int | None:
    return source.config.longest if source else None


def context(settings: Settings, column: str, source: LanguageModel | None) -> int:
    """Tokens of the longest piece."""
    return longest(settings, [column], CONTEXT, source)


def language_config(settings: Settings, vocabulary: int, marks: Marks, context: int, letters: int) -> LanguageConfig:
    """The shape of a model that begins from nothing. Of a Transformer that writes it is Llama's."""
    m = settings.model
    task = settings.target.task
    reads = task in ("masked_token", "span", "embedding")
    dropout = m.dropout if m.dropout is not None else 0.0 if letters > LARGE else 0.1
    width = m.width or int(np.clip(64 * round(np.log2(max(letters, 1) / 1e5) / 1.5 + 1), 128, 512))
    attention: Literal["reading", "writing", "rewriting"]
    attention = "reading" if reads else "rewriting" if task == "text" else "writing"
    layers = 2 if m.backbone == "rnn" else 4 if width < 192 else 6
    backbone = fresh_backbone(settings, width, layers, width // 64, dropout, attention, max_positions=context)
    end = () if marks.end is None else (marks.end,)
    return LanguageConfig(backbone, vocabulary, begin=marks.begin, end=end)


def language_recipe(
    settings: Settings, letters: int, pieces: int, tokens: int, context: int, vocabulary: int, width: int, device: str,
    fine_tuning: bool,
) -> Recipe:  # fmt: skip
    """How it is trained. ``pieces`` and ``tokens``: of the training texts."""
    t = settings.training
    # a step of some four thousand tokens, fewer where their logits would not fit
    budget = min(4_096, max(1_024, 2**26 // vocabulary))
    mean = max(1.0, tokens / max(1, pieces))
    batch = t.batch_rows or max(1, round(budget / mean))
    steps = int(np.ceil(pieces / batch))
    epochs = 10_000 if t.minutes else int(np.clip(3_000 / steps, 1, 40))
    # a CPU is no faster at more tokens at once than its caches hold, and would keep what each needs on the way back
    at_once = batch if device != "cpu" or t.private else max(1, round(AT_ONCE * processes.count() / mean))
    optimizer = t.optimizer or ("adamw" if fine_tuning or settings.model.backbone == "rnn" else "muon")
    rate, decay = 3e-4 if fine_tuning else 3e-3, 0.3 if optimizer == "muon" else 0.1
    return resolved(
        settings, width, device, epochs, batch, rate, decay, 5, optimizer=optimizer,
        check_steps=max(50, min(steps, 500)), warmup=0.02, down="linear", accumulate=-(-batch // at_once),
    )  # fmt: skip


def reading_recipe(settings: Settings, rows: int, batch: int, width: int, device: str, fine_tuning: bool) -> Recipe:
    """How a model that reads is trained on ``rows`` stored rows, ``batch`` a step if nothing is said."""
    t = settings.training
    batch = t.batch_rows or batch
    steps = int(np.ceil(rows / batch))
    # a wider checkpoint takes smaller steps: 2e-4 at the width of MiniLM, 1e-4 at that of BERT
    rate = min(2e-4, 0.0768 / width) if fine_tuning else 1e-3
    epochs = 10_000 if t.minutes else int(np.clip(3_000 / steps, 3, 10 if fine_tuning else 40))
    return resolved(settings, width, device, epochs, batch, rate, 0.01, 3)


def with_dropout(model: LanguageModel, dropout: float) -> None:
    """Set the dropout of a model that is there already."""
    for module in model.backbone.modules():
        if isinstance(module, (Transformer, Block, Recurrent)):
            module.config = replace(module.config, dropout=dropout)


def without_map_dropout(model: LanguageModel) -> None:
    """No dropout of attention's map: fused kernels then keep none, a third less time and half the memory."""
    for module in model.modules():
        if isinstance(module, (Transformer, Block, Attention)):
            module.config = replace(module.config, attention_dropout=0.0)
