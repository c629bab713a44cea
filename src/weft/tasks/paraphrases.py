"""Training texts translated away and back by given runs, once, before the training (Sennrich 2016; Xie 2020, UDA).

Texts go through a few hundred rows at a time, each piece a file: a run that is stopped goes on with the next piece.
Rows that are watched or judged are never read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weft.config import Settings
from weft.data.split import TRAIN
from weft.data.table import RawBatch
from weft.errors import RunError, SettingsError, WeftError, listing
from weft.files import MANIFEST, sha256, write_whole
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.ingest import ROW, CleanRows
from weft.preprocess.letters import Letters
from weft.progress import Silent
from weft.results.text import TextScores, language_of
from weft.runs.opening import open_run
from weft.runs.texts import TextRun

PIECE, JOINED = 256, 64
SAMPLES, JUDGED = 5, 1_000
PARAPHRASES, THROUGH = "paraphrases.arrow", "through.json"


def open_translators(settings: Settings) -> list[TextRun]:
    """The runs that ``training.augment.back_translation`` names, in their order; none where it is not asked for.

    Raises:
        SettingsError: one is no finished run that writes a text from one text.
    """
    augment = settings.training.augment
    if augment is None or augment.back_translation is None:
        return []
    where, found = "training.augment.back_translation.through", []
    for path in augment.back_translation.through:
        try:
            run = open_run(path)
        except WeftError as error:
            raise SettingsError([f"{where}: {error}"]) from None
        if not isinstance(run, TextRun):
            raise SettingsError(
                [f"{where}: must be runs that write a text from a text (target: {{column: ..., type: text}}). "
                 f"Got {path}, a run of another target. Train one, or remove back_translation."]
            )  # fmt: skip
        if len(run.pairing.sources) > 1:
            raise SettingsError(
                [f"{where}: must be runs that write from one text. Got {path}, which reads "
                 f"{listing(run.pairing.sources)}. Train one with a single column in features."]
            )  # fmt: skip
        found.append(run)
    return found


def write_paraphrases(
    clean: CleanRows, parts: np.ndarray, names: Sequence[str], letters: Letters, through: Sequence[TextRun],
    folder: Path, say: Silent,
) -> tuple[CleanRows, dict[str, Any]]:  # fmt: skip
    """The columns ``names`` of the training rows through all runs, one after the other, and what became of them.

    Args:
        parts: of every row of the table, what it is for.
        letters: how the texts of the table are read, and those that come back too.
        folder: what was written here by a run that was stopped is kept.

    Returns:
        for every cleaned row its texts in other words, missing where it is no training row or its own text is to stay
        (it is too long for a run, or came back empty, broken off or the same); what ``report.json`` says of them.

    Raises:
        RunError: ``folder`` was begun with other runs.
    """
    _claim(folder, through)
    pieces = [slice(first, first + PIECE) for first in range(0, len(clean.rows), PIECE)]
    cleaner = Cleaner({name: ColumnPlan("text") for name in names}, letters)
    with say.bar("translating", clean.count(TRAIN)) as bar:
        for number, piece in enumerate(pieces):
            file = folder / f"{number:08d}.arrow"
            places = np.arange(len(clean.rows))[piece]
            if not file.exists():
                write_whole(file, _piece(clean, places, names, cleaner, through))
            bar.advance(int((clean.parts[piece] == TRAIN).sum()))
    _join(folder, len(pieces))
    found = CleanRows(folder / PARAPHRASES, parts)
    facts = _facts(clean, found, names, through)
    say.line(facts["words"])
    for own, other in facts["samples"][:2]:
        say.line(f"{own[:50]!r} came back as {other[:50]!r}")
    if facts["warning"]:
        say.warn(facts["warning"])
    return found, facts


def seconds_a_text(texts: Sequence[str], through: Sequence[TextRun]) -> float:
    """How long a text takes through all runs, measured on a few."""
    there_and_back(texts[:4], through)  # the first texts also load the models
    started = time.monotonic()
    there_and_back(texts, through)
    return (time.monotonic() - started) / max(1, len(texts))


def there_and_back(texts: Sequence[str | None], through: Sequence[TextRun]) -> list[str | None]:
    """What each text is after all runs; None where there is none, or where it got lost on the way."""
    found: dict[str, str | None] = {text: text for text in texts if text}
    for run in through:
        live = {own: text for own, text in found.items() if text is not None}
        found |= zip(live, run.rewrite(list(live.values())), strict=True)
    return [found.get(text) if text else None for text in texts]


def _claim(folder: Path, through: Sequence[TextRun]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    now = json.dumps([sha256(run.path / MANIFEST) for run in through])
    file = folder / THROUGH
    if file.exists() and file.read_text(encoding="utf-8") != now:
        raise RunError(
            f"{folder}: a run resumes with the translation runs it began with. Got others in "
            f"{listing(run.path for run in through)}. Start a new run with -o."
        )
    write_whole(file, now)


def _piece(
    clean: CleanRows, places: np.ndarray, names: Sequence[str], cleaner: Cleaner, through: Sequence[TextRun]
) -> bytes:
    """Some rows' paraphrases as an Arrow file."""
    learnt = (clean.parts[places] == TRAIN).tolist()
    own = {
        name: [text if use else None for text, use in zip(texts.to_pylist(), learnt, strict=True)]
        for name, texts in clean.take(places, list(names)).items()
    }
    rows = clean.rows[places]
    back = [pa.array(there_and_back(own[name], through), pa.string()) for name in names]
    columns = cleaner(RawBatch(rows, pa.record_batch(back, names=list(names)), [])).columns
    changed = [
        pa.array([b if b != a else None for a, b in zip(own[n], columns[n].to_pylist(), strict=True)], pa.string())
        for n in names
    ]
    batch = pa.RecordBatch.from_arrays([pa.array(rows), *changed], names=[ROW, *names])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _join(folder: Path, pieces: int) -> None:
    """All pieces as one file, which is mapped while training; many a batch, for rows are searched batch by batch."""
    beside = folder / f".{PARAPHRASES}.part"
    writer = None
    for first in range(0, pieces, JOINED):
        files = [folder / f"{number:08d}.arrow" for number in range(first, min(first + JOINED, pieces))]
        table = pa.concat_tables(pa.ipc.open_file(file.read_bytes()).read_all() for file in files).combine_chunks()
        writer = writer or pa.ipc.new_file(str(beside), table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    beside.replace(folder / PARAPHRASES)


def _facts(clean: CleanRows, found: CleanRows, names: Sequence[str], through: Sequence[TextRun]) -> dict[str, Any]:
    """Counts, a few samples, how near their own texts those that came back are, and what is suspicious."""
    train = np.flatnonzero(clean.parts == TRAIN)
    texts, changed = 0, 0
    for places in np.split(train, range(PIECE, len(train), PIECE)):
        texts, changed = texts + _present(clean, places, names), changed + _present(found, places, names)
    few = np.sort(np.random.default_rng(0).choice(train, min(len(train), JUDGED), replace=False))
    sides = zip(*([t for n in names for t in rows.take(few, list(names))[n].to_pylist()] for rows in (clean, found)),
                strict=True)  # fmt: skip
    pairs = [(own, other) for own, other in sides if other]
    scores, warning, chrf = TextScores(("chrf",)), "", None
    if pairs:
        scores.add([other for _, other in pairs], [[own] for own, _ in pairs])
        chrf = scores.estimates()["chrf"].value
        spoken = [language_of(side) for side in zip(*pairs, strict=True)]
        if spoken[0] != spoken[1]:
            warning = (
                "the texts came back in another script: training.augment.back_translation.through must end in the "
                "language it begins with"
            )
    words = f"{changed:,} of {texts:,} training texts came back in other words"
    return {
        "through": [str(run.path) for run in through], "texts": texts, "changed": changed, "chrf": chrf,
        "samples": pairs[:: max(1, len(pairs) // SAMPLES)][:SAMPLES], "warning": warning,
        "words": words + (f"; chrF beside their own {chrf:.0f}" if chrf is not None else ""),
    }  # fmt: skip


def _present(rows: CleanRows, places: np.ndarray, names: Sequence[str]) -> int:
    return sum(len(places) - texts.null_count for texts in rows.take(places, list(names)).values())
