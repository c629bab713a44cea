"""``weft audit RUN DATA``"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from weft.cli import Json, Memory, answer, check_page, typed
from weft.data.table import Table
from weft.errors import UsageError
from weft.memory import limit
from weft.progress import Spoken
from weft.results.audit.page import TITLES, in_words, write_page
from weft.results.pages import Phrases
from weft.runs.audit import audit_suite
from weft.runs.opening import open_run
from weft.shadows import train_shadows


def audit(
    run: Path,
    data: str,
    /,
    *,
    by: str = "",
    of: str | None = None,
    suite: Literal["crows-pairs", "stereoset", "winobias", "bbq"] | None = None,
    shadows: int = 0,
    language: Literal["en", "zh"] = "en",
    html: Path | None = None,
    allow_missing: bool = False,
    all_rows: bool = False,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Say whom a run fails, by how much and how surely, on a table with the target; or how a language model leans.

    Args:
        run: The run folder.
        data: File, glob, folder or address. On the very data of the training only the test rows count.
        by: Columns that say to which group a row belongs, e.g. sex,race; several also together.
        of: The class whose share counts (default: of two classes the one that is looked for).
        suite: Score a language model (a run or an imported checkpoint) by a published test instead; DATA is its file or
            folder: crows_pairs.csv, StereoSet's dev.json, WinoBias's folder, BBQ's JSON Lines.
        shadows: On the very data of the training: train so many models of the same settings on halves of the rows, an
            even number, to tell better whom the run remembers. Each takes as long as the run took.
        language: Of the sentences and the page: en or zh.
        html: Write the audit to this page too: one file that needs nothing else.
        allow_missing: Go on without a column even if another of a like name may be it.
        all_rows: Judge on every row even on the data of the training (too good to be true).
    """
    limit(memory)
    check_page(html)
    if suite is not None and (by or of or all_rows or allow_missing or shadows):
        raise UsageError(
            "--suite: asks its own questions. Leave out --by, --of, --shadows, --allow-missing and --all-rows."
        )
    columns = tuple(name.strip() for name in by.split(",") if name.strip())
    if suite is not None:
        found = audit_suite(run, Path(data), suite, Spoken())
    else:
        opened = open_run(run)
        with tempfile.TemporaryDirectory() as folder:
            beside = train_shadows(opened, Table.of(data), shadows, Path(folder), Spoken()) if shadows else []
            found = opened.audit(data, columns, of, allow_missing, all_rows, beside)
    told = in_words(found, language)
    if html is not None:
        write_page(html, found, language)
    t = Phrases(language)
    lines = [line for name in TITLES if name in told for line in (t(TITLES[name]), *told[name], "")]
    page = None if html is None else str(html)
    if not (columns or suite):
        lines.append(
            f"next: {typed('audit', run, data, '--by', 'sex,race')}    says whom it fails, by columns that tell groups"
        )
    answer(json, {**found, "sentences": told, "page": page}, lines + ([f"page: {page}"] if page else []))
