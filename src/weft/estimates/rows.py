"""What a run will read, build, need and take, before any of it is spent.

Sizes follow from the settings; the time is measured: the model itself takes a few steps on rows of the
table's beginning.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from weft import defaults, memory
from weft.config import Settings
from weft.data.plan import Plan, look
from weft.data.table import Table
from weft.features.augment import augment_problem
from weft.features.batching import Batch, collate
from weft.features.codecs import Ragged
from weft.features.column_dropout import column_dropout_problem
from weft.features.columns import Columns
from weft.features.fit import LETTERS, fit_codecs, new_codecs
from weft.features.ragged import take
from weft.features.targets import new_target
from weft.memory import size_in_words
from weft.models.row import RowModel, RowModels, shape_in_words
from weft.models.transformer import TransformerConfig
from weft.preprocess.buckets import HELD
from weft.preprocess.clean import CleanBatch
from weft.preprocess.duplicates import Finder, first_copies
from weft.preprocess.ingest import make_cleaner
from weft.progress import duration
from weft.runs.texts import TextRun
from weft.tasks.paraphrases import open_translators, seconds_a_text
from weft.tasks.sources import open_source, see_as
from weft.training.fit import reads_once, start
from weft.training.loop import Recipe
from weft.training.pace import ends_in_words, step_cost
from weft.training.private import sized
from weft.training.regularise import Objective

COUNTED = 1 << 26
"""Bytes of files whose rows are counted where the files do not say how many they are."""
SAMPLE_ROWS, READ_ROWS = 4_096, 64
COMPARED = {"off": 32, "exact": 32, "near": 32 + 24 * 16}
"""Bytes of a row on disk while copies are looked for."""
TRANSLATED = 64
READING, FITTING, TRAINING, JUDGING, LENGTHS = (n * 10**6 for n in (250, 450, 600, 700, 600))
"""What the steps hold beside the libraries, the model and some bytes a row, as measured (benchmarks/memory.py,
benchmarks/plan.py). Where texts are of many lengths, each prepares products of its own and leaves other holes."""


def estimate(settings: Settings) -> dict[str, Any]:
    """Plan, sizes, memory and time of a run. Raises what the run itself would raise on these settings."""
    assert settings.data.source is not None
    libraries = memory.resident()
    table = Table.open(settings.data.source, settings.data.format)
    plan = look(settings, table)
    rows, exact = rows_of(table)
    source = open_source(settings, plan)
    cleaner = make_cleaner(settings, plan)
    cleaner.target = plan.target  # what steps are timed on has one
    clean, cleaning = _first(table, cleaner)
    started, way = time.monotonic(), settings.preprocess.duplicates
    alike = first_copies(Finder(cleaner.plans, plan.target, Path("unused")), clean.columns, way == "near")
    compared, comparing = rows * COMPARED[way], (time.monotonic() - started) / max(1, len(clean.rows))
    augment_problem(settings, plan, source.tokenizer if source else None)
    column_dropout_problem(settings, plan)
    through = open_translators(settings)
    started = time.monotonic()
    codecs, target = new_codecs(plan.types, settings.features), new_target(plan.target_type, settings.target)
    tokenizer = fit_codecs(codecs, lambda _: [clean], source.tokenizer if source else None, target)
    columns = Columns(cleaner, codecs, target, tokenizer)
    see_as(columns, source)
    fitting = time.monotonic() - started
    split = settings.data.split
    pool = round(rows * (1 - (0 if split.column else split.test)))
    facts = defaults.Facts.of(columns, pool, source)
    recipe, copies = defaults.recipe(settings, facts, "cpu"), defaults.copies(settings, facts)
    models = RowModels(columns.codecs, columns.target, defaults.row_config(settings, facts), 1)
    if source is not None:
        start(models.each()[0], source.model, defaults.lora_rank(settings), defaults.frozen(settings))
    trained = sum(p.numel() for p in models.parameters() if p.requires_grad)
    columns.encode(clean)  # after it the words are known, as they soon are in a run
    started = time.monotonic()
    codes = columns.encode(clean, with_target=True)
    encoding = (time.monotonic() - started) / max(1, len(clean.rows))
    learnt = pool * (1 - 1 / copies) if copies > 1 else rows * (1 - split.test - split.valid)
    units: float = learnt
    if recipe.privacy and recipe.federated:
        units = 1 if isinstance(settings.data.source, str) else len(settings.data.source)
        most_rows = min(recipe.federated.rows, math.ceil(learnt / units / recipe.federated.steps))
        recipe = replace(recipe, federated=replace(recipe.federated, rows=most_rows))
    recipe = sized(recipe, units)
    tokens, seconds, activations, once = _probe(models.each()[0], codes, len(clean.rows), recipe)
    parameters = models.parameter_count()
    steps = int(np.ceil(units / recipe.batch_rows)) * recipe.epochs * copies
    most = steps * seconds * 1.15 + learnt * once
    if recipe.minutes:
        most = min(most, 60 * recipe.minutes * copies)
    letters = sum(_letters(clean.columns[n]) for n, t in plan.types.items() if t == "text")
    parts = memory_parts(copies * parameters, trained, activations)
    model = sum(parts.values()) + (LENGTHS if letters else 0)
    a_row = sum(array.nbytes for array in clean.columns.values()) / max(1, len(clean.rows)) + 8
    stored = sum(_bytes(a) for f in codes.values() for a in f.values()) / max(1, len(clean.rows))
    learning = min(rows / max(1, len(clean.rows)), LETTERS / letters) * fitting if letters else 0.0
    files = (sum(p.size for p in table.parts), rows * a_row, rows * stored)
    held = [min(size, memory.bound() // 8) for size in files]  # of mapped files no more stays
    a_row_held = {"preprocess": 30 if split.time else 13, "features": 2, "model": 6, "results": 6}
    grows = {step: held[n] + rows * a_row_held[step] for step, n in zip(a_row_held, (0, 1, 2, 1), strict=True)}
    steps_used = {
        "preprocess": _used(
            libraries + READING, rows * a_row + (compared if compared > HELD else 0), rows * (cleaning + comparing)
        ),
        "features": _used(libraries + FITTING, rows * stored, learning + 1.3 * rows * encoding),
        "model": _used(libraries + model + TRAINING, 8 * (parameters + 4 * trained), most),
        "results": _used(libraries + model + JUDGING, 0, None),
    }
    for step, used in steps_used.items():
        used |= {"rows_bytes": int(grows[step]), "memory_bytes": used["memory_bytes"] + int(grows[step])}
    disk = sum(used["disk_bytes"] for used in steps_used.values())
    need = max(used["memory_bytes"] for used in steps_used.values())
    about = "" if exact else "about "
    translated = _translation(plan, clean, rows * (1 - split.valid - (0 if split.column else split.test)), through)
    return {
        "plan": plan.to_dict(),
        "rows": rows, "rows_exact": exact, "tokens_a_row": tokens, "parameters": parameters, "copies": copies,
        "recipe": asdict(recipe), "steps": steps, "memory_bytes": need, "memory_bound": memory.bound(),
        "memory_steps": steps_used, "disk_bytes": disk, "seconds_at_most": most,
        "shape": shape_of(models.each()[0].config.backbone), "tokens_learnt": round(tokens * learnt),
        "context": math.ceil(tokens), "memory_parts": parts,
        "back_translation": translated,
        "words": {
            "rows": f"{about}{rows:,} of {tokens:.0f} tokens each",
            "model": f"{shape_in_words(models.each()[0].config)}, {parameters:,} parameters"
            + (f", {trained:,} of them trained" if trained < parameters else "")
            + (f", {copies} copies" if copies > 1 else ""),
            "copies": copies_in_words(alike, len(clean.rows), way),
            "training": f"at most {recipe.epochs} epochs of {steps // (recipe.epochs * copies):,} steps of "
            f"{recipe.batch_rows} {'owners' if recipe.privacy and recipe.federated else 'rows'}",
            **{f"{step}:": _used_in_words(used) for step, used in steps_used.items()},
            "memory": f"at most about {size_in_words(need)}, of which {size_in_words(libraries)} are the libraries and "
            f"{size_in_words(model)} the model and a step; the bound is {size_in_words(memory.bound())}"
            + ("" if need <= memory.bound() else ": IT IS NOT ENOUGH. Give more with --memory"),
            "disk": f"about {size_in_words(disk)} while it runs",
            "time": f"at most about {duration(most)} of training on this machine ({ends_in_words(recipe)})",
            **({"translate": translated["words"]} if translated else {}),
        },
    }  # fmt: skip


def memory_parts(parameters: int, trained: int, activations: int) -> dict[str, int]:
    """Bytes of a model that learns: of what is trained also gradients, two moments, the average and the best."""
    return {"weights": 4 * parameters, "gradients": 4 * trained, "optimizer": 8 * trained,
            "average and best": 8 * trained, "activations": activations}  # fmt: skip


def shape_of(backbone: Any) -> dict[str, int] | None:
    """Width, layers and heads of a Transformer; None of a recurrent network."""
    if not isinstance(backbone, TransformerConfig):
        return None
    return {"width": backbone.width, "layers": backbone.layers, "heads": backbone.heads}


def copies_in_words(count: int, rows: int, way: str) -> str:
    left = {"off": "they are used", "exact": "they are left out", "near": "they are left out"}[way]
    what = "equal or nearly equal" if way == "near" else "equal"
    return f"of the first {rows:,} rows {count:,} are {what} to an earlier one; {left} (preprocess.duplicates: {way})"


def _first(table: Table, cleaner: Any) -> tuple[CleanBatch, float]:
    """The first rows, cleaned, and the seconds that reading and cleaning took a row."""
    cleaned = (cleaner(raw) for raw in table.batches(cleaner.plans, rows=SAMPLE_ROWS))
    clean = next(cleaned)
    started, before = time.monotonic(), clean
    while len(clean.rows) < SAMPLE_ROWS and (more := next(cleaned, None)) is not None and len(more.rows):
        clean = more  # of a text file the first pieces are small
    if clean is before:
        next(cleaned, None)
    return clean, (time.monotonic() - started) / max(1, len(clean.rows))


def _letters(texts: pa.Array) -> int:
    return pc.sum(pc.binary_length(texts)).as_py() or 0


def _used(memory_bytes: float, disk: float, seconds: float | None) -> dict[str, Any]:
    return {"memory_bytes": int(memory_bytes), "disk_bytes": int(disk), "seconds": seconds}


def _used_in_words(used: dict[str, Any]) -> str:
    disk = f", {size_in_words(used['disk_bytes'])} written" if used["disk_bytes"] > 10**6 else ""
    time = "" if used["seconds"] is None else f", about {duration(used['seconds'])}"
    return f"at most about {size_in_words(used['memory_bytes'])}{disk}{time}"


def _translation(plan: Plan, clean: CleanBatch, rows: float, through: list[TextRun]) -> dict[str, Any] | None:
    """What it takes to translate the texts of so many rows away and back, measured on a few of the first."""
    if not through:
        return None
    found = [t for n, kind in plan.types.items() if kind == "text" for t in clean.columns[n].drop_null().to_pylist()]
    texts = round(rows * len(found) / max(1, len(clean.rows)))
    seconds = texts * seconds_a_text(found[:: max(1, len(found) // TRANSLATED)][:TRANSLATED], through)
    words = f"about {texts:,} training texts go through {len(through)} runs once, in about {duration(seconds)}"
    return {"texts": texts, "seconds": seconds, "words": words}


def rows_of(table: Table) -> tuple[int, bool]:
    """Rows of a table, and whether that is exact rather than carried over from its first ones."""
    exact = table.row_count()
    if exact is not None:
        return exact, True
    if sum(p.size for p in table.parts) <= COUNTED:
        rows = 0
        for raw in table.batches([next(iter(table.columns))]):
            rows = raw.end(rows)
        return rows, True
    first = next(table.batches(), None)
    if first is None or not len(first.rows):
        return 0, True
    cells = sum(len(str(c)) + 1 for column in first.batch.slice(0, 1_000).to_pydict().values() for c in column)
    rows = round(sum(p.size for p in table.parts) / max(1.0, cells / min(1_000, len(first.rows))))
    return max(rows, len(first.rows)), False


def _probe(model: RowModel, codes: Any, rows: int, recipe: Recipe) -> tuple[float, float, int, float]:
    """Tokens a row, seconds a step, bytes of activations of a step, and seconds for which a row is read once before all
    steps, measured on the model itself."""
    objective, reads, once = Objective(model, replace(recipe, distil=None)), None, 0.0  # no teacher is asked

    def fetch(chosen: np.ndarray) -> Batch:
        batch = collate({c: {n: take(a, chosen) for n, a in f.items()} for c, f in codes.items()}, len(chosen))
        if batch.target is not None and batch.target.dtype == torch.int64:
            batch.target.clamp_(min=0)
        batch.reads = None if reads is None else reads[chosen]
        return batch

    if reads_once(model):
        rows, started = min(rows, READ_ROWS), time.monotonic()
        with torch.no_grad():
            reads = model.eval().read(model.embedding(fetch(np.arange(rows)).columns))
        once = (time.monotonic() - started) / rows
        model.train()
    seconds, held = step_cost(model, recipe, lambda batch: objective(batch, 1.0), fetch, np.arange(rows))
    with torch.no_grad():
        sample = model.embedding(fetch(np.arange(min(rows, recipe.batch_rows))).columns)
    filled = sample.mask_BT.sum(1).float().mean().item() if sample.mask_BT is not None else sample.shape[1]
    return float(filled), seconds, held, once


def _bytes(array: np.ndarray | Ragged) -> int:
    return array.values.nbytes + array.offsets.nbytes if isinstance(array, Ragged) else array.nbytes
