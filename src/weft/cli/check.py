"""``weft check FILE``"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft import config
from weft.cli import Json, Many, Memory, answer, typed
from weft.data.table import Table
from weft.errors import listing
from weft.estimates.rows import estimate
from weft.estimates.tasks import estimate_task
from weft.memory import limit
from weft.preprocess.personal import survey
from weft.tasks.tuning import AGAIN, open_names

SURVEYED = 2_000
"""First rows in which personal data is looked for."""


def check(
    file: Path, /, *, set: Many = (), memory: Memory = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Validate a pipeline file and its data, and say what a run will read, build, need and take.

    Args:
        file: The pipeline file.
        set: A setting laid over the file, e.g. --set training.epochs=5; may be given several times.
    """
    settings = config.load(file, set)
    search = settings.training.search
    sought = open_names(settings) if search is not None else []
    found = estimated(settings, memory)
    plan = found["plan"]
    assert settings.data.source is not None
    personal = survey(Table.open(settings.data.source, settings.data.format), SURVEYED)
    found["personal"] = {"rows": personal.rows, "found": personal.found}
    lines = [
        f"{file} is valid.",
        f"target    {plan['target']}: {plan['target_type']}, {plan['target_reason']}",
    ]
    lines += [f"read      {n:<24} {c['type']:<9} {c['reason']}" for n, c in plan["columns"].items()]
    lines += [f"left out  {n:<24} {'':<9} {reason}" for n, reason in plan["left_out"].items()]
    lines += [f"warning   {text}" for text in plan["warnings"]]
    redact, read = settings.preprocess.redact, {*plan["columns"], plan["target"]}
    lines += [f"personal  {words}" for words in personal.in_words(redact.kinds if redact else (), read)]
    lines += [f"{key:<9} {text}" for key, text in found["words"].items()]
    if search is not None:
        found["search"] = {"trials": search.trials, "again": 2 * AGAIN, "over": sought}
        lines.append(
            f"search    at most {search.trials + 2 * AGAIN + 1:,} trainings such as this one: {search.trials:,} trials "
            f"of {listing(sought, 20)}, {2 * AGAIN} with other seeds, and the last"
        )
    answer(json, found, [*lines, f"next:     {typed('run', file)}"])


def estimated(settings: config.Settings, memory: Memory) -> dict[str, Any]:
    """What a run of these settings will need, under a bound in the words of --memory."""
    limit(memory)
    with _without_writing(settings) as tried:
        return estimate(tried) if tried.target.task == "row" else estimate_task(tried)


@contextmanager
def _without_writing(settings: config.Settings) -> Iterator[config.Settings]:
    """The settings with a passing key of the stand-ins where the one they name is still to be made, by a run."""
    redact = settings.preprocess.redact
    if redact is None or redact.key is None or Path(redact.key).exists() or not Path(redact.key).parent.is_dir():
        yield settings
        return
    with tempfile.TemporaryDirectory() as folder:
        passing = redact.model_copy(update={"key": str(Path(folder) / "key")})
        preprocess = settings.preprocess.model_copy(update={"redact": passing})
        yield settings.model_copy(update={"preprocess": preprocess})
