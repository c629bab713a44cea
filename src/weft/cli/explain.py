"""``weft explain RUN DATA --row N``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from weft.cli import Json, answer, check_page
from weft.data.table import Table
from weft.errors import UsageError
from weft.exchange import is_checkpoint
from weft.inference.embed import text_column, text_reader
from weft.models.language import check_writes
from weft.models.pretrained import load_language_model
from weft.results.explain.asked import check_method
from weft.results.explain.asked import why as explain_why
from weft.results.explain.page import drawn, told, write_page
from weft.results.explain.why import EVALUATIONS, Explanation
from weft.results.explain.words import sentences
from weft.results.explain.writing import METHODS, Writing
from weft.results.pages import Phrases
from weft.runs.asked import AskedRun
from weft.runs.language import prompt_source
from weft.runs.opening import open_run, task_of

MOST_ROWS = 100
WIDTH = 32
COLUMNS, CELL = 8, 10
COLOURS = {"for": "green", "looked": "green", "against": "red"}
STRONG = 3
"""The level (:data:`weft.results.explain.page.LEVELS`) from which on a part is marked strongly."""


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
    check_page(html)
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
    page = None if html is None else str(html)
    if not json:
        console = Console(highlight=False, soft_wrap=True)
        for why in found:
            _print(console, told(why), Phrases(language))
    explained = [{**why.to_dict(), "sentences": sentences(why, language)} for why in found] if json else []
    answer(json, {"explanations": explained, "page": page}, [f"page: {page}"] if page else [])


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


def _print(console: Console, row: dict[str, Any], t: Phrases) -> None:
    shown = drawn(row, t, COLUMNS)
    console.print(Text(f"row {row['row']}, {row['target']}", style="bold"))
    for line in shown["lines"]:
        console.print(Text(line))
    for column, pieces in shown["texts"].items():
        told = Text(f"{column}: ", style="dim")
        for piece in pieces:
            told.append(piece["text"], style=_style(piece) or "default")
        console.print(told)
    (_heat if "heat" in shown else _bars)(console, shown)
    if row.get("nearest"):
        _print_nearest(console, row["nearest"], shown["nearest"]["rows"])
    checks = ", ".join(f"{c['name']} {c['value']:.3g} {'ok' if c['passed'] else 'FAILED'}" for c in row["checks"])
    spent = f"{row['evaluations']:,} evaluations in {row['seconds']:.1f} s"
    console.print(Text(f"checks: {checks or 'none'}; {spent}\n", style="dim"))


def _heat(console: Console, shown: dict[str, Any]) -> None:
    """A line for each word written, a column for each of the words of the source that count most."""
    head = Text(f"{'log probability':{WIDTH}}", style="dim")
    for name in shown["heads"]:
        head.append(" " + _fitted(name, CELL - 1, right=True))
    console.print(head)
    for word in shown["heat"]:
        line = Text(_fitted(word["word"], WIDTH - 7) + f"{word['probability']:>6} ")
        for cell in word["cells"]:
            line.append(f" {cell['share']:>{CELL - 1}}", style=_style(cell))
        console.print(line)
    if shown["more"]:
        console.print(Text(f"{shown['more']:,} more words: --json, --html", style="dim"))


def _fitted(text: str, width: int, right: bool = False) -> str:
    """A text in so many places of a terminal, where some letters take two."""
    text = set_cell_size(text, width) if cell_len(text) > width else text
    gap = " " * (width - cell_len(text))
    return gap + text if right else text + gap


def _bars(console: Console, shown: dict[str, Any]) -> None:
    for picture in shown["pictures"]:
        _print_patches(console, picture["column"], picture["marks"])
    console.print(Text(f"{'':{WIDTH}} {shown['unit']}", style="dim"))
    for bar in shown["bars"]:
        name = bar["name"] if bar["word"] else f"{bar['column']} {bar['name']}"
        error = f" ± {bar['error']}" if bar["error"] else ""
        line = Text(f"{_fitted(name, WIDTH)} {bar['share']:>8}{error:9} ")
        console.print(line.append("█" * max(1, round(bar["width"] / 5)), style=COLOURS[bar["side"]]))


def _print_patches(console: Console, column: str, marks: list[dict[str, Any]]) -> None:
    """The patches of a picture as signs: ++ and + for the answer, -- and - against it."""
    side = round(len(marks) ** 0.5)
    console.print(Text(f"{column}, patch by patch:", style="dim"))
    for start in range(0, len(marks), side):
        line = Text("  ")
        for mark in marks[start : start + side]:
            sign = ("-" if mark["side"] == "against" else "+") * (1 + (mark["level"] >= STRONG))
            line.append(f"{sign if mark['level'] else '·':3}", style=_style(mark))
        console.print(line)


def _print_nearest(console: Console, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    console.print(Text(f"most like it, of {found['seen']:,} of {found['of']:,} training rows:", style="dim"))
    for n in rows:
        cells = "; ".join(f"{name}: {cell}" for name, cell in n["cells"].items())
        told = Text(f"  {n['likeness']}  {n['truth']}  ", style="bold")
        console.print(told.append(f"row {n['row']}  {cells}", style=""))


def _style(mark: dict[str, Any]) -> str:
    """The colour of a word or patch: green for the answer, red against it."""
    colour = COLOURS.get(mark["side"], "") if mark["level"] else ""
    return f"bold {colour} reverse" if mark["level"] >= STRONG else colour
