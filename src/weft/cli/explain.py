"""``weft explain RUN DATA --row N``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from weft.cli import Json, answer
from weft.data.table import Table
from weft.errors import UsageError
from weft.exchange import is_checkpoint
from weft.inference.embed import text_column, text_reader
from weft.models.language import check_writes
from weft.models.pretrained import load_language_model
from weft.results.explain.asked import check_method
from weft.results.explain.asked import why as explain_why
from weft.results.explain.nearest import Nearest
from weft.results.explain.page import strongest, write_page
from weft.results.explain.why import EVALUATIONS, Explanation
from weft.results.explain.words import sentences
from weft.results.explain.writing import METHODS, Writing
from weft.runs.asked import AskedRun
from weft.runs.language import prompt_source
from weft.runs.opening import open_run, task_of

MOST_ROWS = 100
SHOWN = 12
WIDTH = 32
COLUMNS, CELL, LINES = 8, 10, 60
FAINT, STRONG = 0.1, 0.5


def explain(
    run: Path,
    data: str | None = None,
    /,
    *,
    prompt: str | None = None,
    row: Annotated[tuple[int, ...], Parameter(negative=())] = (0,),
    method: Literal["shap", "lime", "gradient", "attention"] = "shap",
    of: str | None = None,
    column: str | None = None,
    evaluations: int = EVALUATIONS,
    seed: int = 0,
    language: Literal["en", "zh"] = "en",
    html: Path | None = None,
    nearest: int = 0,
    training: str | None = None,
    allow_missing: bool = False,
    json: Json = False,
) -> None:
    """Say why a run answers, writes or recommends as it does: which words, values and past items spoke for and against.

    Args:
        run: The run folder.
        data: File, glob, folder or address of CSV, JSON Lines, Parquet or Arrow.
        prompt: Of a run that writes: one text in the place of a table.
        row: The row to explain, counted from 0; may be given several times.
        method: shap (what each part adds), lime (a line near the row), gradient, or attention (where it looked).
        of: What to explain (default: what the run says): a class or label, a text that it may have written, the id of
            an item, a part of the context.
        column: Of an imported checkpoint that writes: the column of texts (default: the only one that holds texts).
        evaluations: Most questions that shap and lime put to the model about one row; more is surer.
        seed: Of the questions that are drawn.
        language: Of the sentences and the page: en or zh.
        html: Write the rows to this page too: one file that needs nothing else.
        nearest: Show so many of the training rows that are most like each row, with their answers.
        training: Where the table that it was trained on lies, if not where it lay then.
        allow_missing: Treat an absent column as all missing values instead of stopping.
    """
    if not 1 <= len(row) <= MOST_ROWS or min(row) < 0:
        raise UsageError(f"--row: must be 1 to {MOST_ROWS} row numbers from 0 on. Got {len(row)}.")
    if evaluations < 64:
        raise UsageError(f"--evaluations: must be at least 64. Got {evaluations}.")
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}. Make it, or choose another file.")
    if nearest < 0 or (training is not None and not nearest):
        raise UsageError("--nearest: must be the number of training rows to show, from 1 on; --training needs it.")
    if (data is None) == (prompt is None):
        raise UsageError("there must be DATA, or of a run that writes a text (--prompt TEXT); not both.")
    rows = None if data is None else Table.open(data).rows(row)
    found: Sequence[Explanation | Writing]
    if not task_of(run) and is_checkpoint(run):
        found = _of_checkpoint(
            run, [prompt or ""] if rows is None else _texts(rows, column), method, of, evaluations, seed
        )
    elif column is not None:
        raise UsageError("--column is for an imported checkpoint. A run knows its columns. Leave it out.")
    elif rows is not None:
        found = open_run(run).explain(rows, method, of, evaluations, seed, allow_missing, nearest, training)
    else:
        finished = open_run(run)
        if not isinstance(finished, AskedRun):
            raise UsageError("--prompt is for a run that writes. This one reads rows. Give DATA.")
        found = finished.explain(None, method, of, evaluations, seed, prompt=prompt)
    for why, number in zip(found, row if rows is not None else (0,), strict=True):
        why.row = number
    if html is not None:
        write_page(html, found, run.resolve().name, "" if data is None else Path(data).name, language)
    if json:
        told = [{**why.to_dict(), "sentences": sentences(why, language)} for why in found]
        answer(True, {"explanations": told, "page": None if html is None else str(html)}, [])
        return
    console = Console(highlight=False, soft_wrap=True)
    for why in found:
        _print(console, why, language)
    if html is not None:
        console.print(f"page: {html}")


def _of_checkpoint(
    run: Path, texts: list[str], method: str, of: str | None, evaluations: int, seed: int
) -> list[Writing]:  # fmt: skip
    """What an imported checkpoint that writes says after some texts."""
    check_method(method, METHODS)
    model, tokenizer = load_language_model(run)
    check_writes(model)
    return [explain_why(prompt_source(model, tokenizer, t, of, "text"), 0, method, evaluations, seed) for t in texts]


def _texts(rows: Table, column: str | None) -> list[str]:
    if column is None:
        column = text_column(rows)
    return [text or "" for _, some in text_reader(rows, column).over(rows) for text in some.texts]


def _print(console: Console, why: Explanation | Writing, language: str) -> None:
    console.print(Text(f"row {why.row}, {why.target}", style="bold"))
    for line in sentences(why, language):
        console.print(Text(line))
    if isinstance(why, Writing):
        _heat(console, why)
    else:
        _bars(console, why)
    checks = ", ".join(f"{c.name} {c.value:.3g} {'ok' if c.passed else 'FAILED'}" for c in why.checks)
    console.print(
        Text(f"checks: {checks or 'none'}; {why.evaluations:,} evaluations in {why.seconds:.1f} s", style="dim")
    )
    console.print()


def _heat(console: Console, why: Writing) -> None:
    """A line for each word written, a column for each of the words of the source that count most."""
    for name, text in why.texts.items():
        console.print(Text(f"{name}: ", style="dim").append(text, style="default"))
    shown = strongest(why.shares, COLUMNS)
    largest = max(float(np.abs(why.shares).max(initial=0.0)), 1e-12)
    head = Text(f"{'log probability':{WIDTH}}", style="dim")
    for player in shown:
        head.append(" " + _fitted(why.players[player].shown, CELL - 1, right=True))
    console.print(head)
    for word, shares, score in zip(why.words[:LINES], why.shares.T, why.score.tolist(), strict=False):
        line = Text(_fitted(word.shown, WIDTH - 7) + f"{np.exp(score):>6.1%} ")
        for player in shown:
            line.append(f" {shares[player]:>+{CELL - 1}.2f}", style=_style(shares[player] / largest))
        console.print(line)
    if len(why.words) > LINES:
        console.print(Text(f"{len(why.words) - LINES:,} more words: --json, --html", style="dim"))


def _fitted(text: str, width: int, right: bool = False) -> str:
    """A text in so many places of a terminal, where some letters take two."""
    text = set_cell_size(text, width) if cell_len(text) > width else text
    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def _bars(console: Console, why: Explanation) -> None:
    largest = max(float(np.abs(why.shares).max(initial=0.0)), 1e-12)
    texts = dict.fromkeys(p.column for p in why.players if p.start is not None)
    for column in texts:
        told = Text(f"{column}: ", style="dim")
        for player, share in zip(why.players, why.shares.tolist(), strict=True):
            if player.column == column:
                told.append(player.shown, style=_style(share / largest))
                told.append(" ")
        console.print(told)
    for column in why.pictures:
        _print_patches(console, column, [s / largest for p, s in zip(why.players, why.shares.tolist(), strict=True)
                                         if p.column == column])  # fmt: skip
    unit = "share of the looks" if why.method == "attention" else "log odds" if why.of is not None else why.target
    console.print(Text(f"{'':{WIDTH}} {unit}", style="dim"))
    for place in np.argsort(-np.abs(why.shares), kind="stable")[:SHOWN].tolist():
        player, share = why.players[place], float(why.shares[place])
        name = player.shown if player.start is not None else f"{player.column} {player.shown}"
        bar = "█" * max(1, round(20 * abs(share) / largest))
        error = f" ± {2 * why.errors[place]:.2g}" if why.errors[place] > 0 else ""
        bars = Text(f"{name[:WIDTH]:{WIDTH}} {share:+8.3f}{error:9} ")
        bars.append(bar, style="green" if share >= 0 else "red")
        console.print(bars)
    if why.nearest is not None:
        _print_nearest(console, why.nearest)


def _print_patches(console: Console, column: str, shares: list[float]) -> None:
    """The patches of a picture as signs: ++ and + for the answer, -- and - against it."""
    side = round(len(shares) ** 0.5)
    console.print(Text(f"{column}, patch by patch:", style="dim"))
    for start in range(0, len(shares), side):
        line = Text("  ")
        for share in shares[start : start + side]:
            sign = "·" if abs(share) < FAINT else ("+" if share > 0 else "-") * (1 + (abs(share) > STRONG))
            line.append(f"{sign:3}", style=_style(share))
        console.print(line)


def _print_nearest(console: Console, found: Nearest) -> None:
    console.print(Text(f"most like it, of {found.seen:,} of {found.of:,} training rows:", style="dim"))
    for n in found.neighbours:
        truth = ", ".join(n.truth) if isinstance(n.truth, list) else str(n.truth)
        cells = "; ".join(f"{name}: {cell}" for name, cell in n.cells.items())
        console.print(Text(f"  {n.likeness:.3f}  {truth}  ", style="bold").append(f"row {n.row}  {cells}", style=""))


def _style(share: float) -> str:
    """The colour of a word by its share of the largest: green for the answer, red against it."""
    if abs(share) < FAINT:
        return ""
    colour = "green" if share > 0 else "red"
    return f"bold {colour} reverse" if abs(share) > STRONG else colour
