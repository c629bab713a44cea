"""``weft init DATA``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.cli import Json, Out, answer, typed
from weft.data.columns import SAMPLE_ROWS, Guess, guess, guess_target
from weft.data.labels import guess_labels, kind_in_words
from weft.data.table import Table
from weft.errors import UsageError, did_you_mean
from weft.files import write_whole
from weft.yaml_text import scalar

_LIKELY = ["target", "label", "class", "y", "outcome", "diagnosis", "risk", "churn", "rating", "sentiment", "price"]


def init(
    data: str,
    /,
    *,
    target: str | None = None,
    out: Out = Path("weft.yaml"),
    force: bool = False,
    json: Json = False,
) -> None:
    """Look at a table and write a starter pipeline file with every guess explained.

    Args:
        data: File, glob, folder or address of CSV, JSON Lines, Parquet, Arrow or plain text, or a folder of pictures.
        target: The column to predict (default: a guess, to be checked).
        out: Where the pipeline file goes.
        force: Write over a file that is there.
    """
    if out.exists() and not force:
        raise UsageError(f"{out}: there is such a file already. Choose another with -o, or --force.")
    table = Table.open(data)
    if target is None and {part.format for part in table.parts} == {"text"}:
        _texts(data, out, json)
        return
    if target is not None and target not in table.columns:
        raise UsageError(f"{data}: there is no column '{target}'.{did_you_mean(target, table.columns)}")
    head = table.sample(SAMPLE_ROWS)
    guesses = {name: guess(name, head.column(name)) for name in table.columns}
    chosen = target or _likely_target(list(table.columns), {n: g.type for n, g in guesses.items()})
    why = guess_labels(head.column(chosen)) or guess_target(head.column(chosen))
    # of histories and nothing else in the table the next item is what can be learnt
    alone = all(g.type == "off" for n, g in guesses.items() if n != chosen)
    if guesses[chosen].type == "sequence" and alone:
        why = Guess("ranking", "the next item of each history")
    said = scalar(chosen) if why.type != "ranking" else f"{{column: {scalar(chosen)}, type: ranking}}"
    checked = "" if target else "; guessed, check this"
    lines = [
        f"# Written by weft init from {len(head):,} rows of {data}. Every guess can be changed.",
        "version: 1",
        "data:",
        f"  source: {scalar(data)}",
        f"target: {said}  # {kind_in_words(why.type)}: {why.reason}{checked}",
        *(["features:  # text, number, category, time, image, sequence, or off"] if why.type != "ranking" else []),
    ]
    width = max((len(scalar(n)) for n in guesses), default=0)
    for name, found in guesses.items():
        if name != chosen and why.type != "ranking":
            lines.append(f"  {scalar(name) + ':':<{width + 1}} {found.type:<8}  # {found.reason}")
    columns = {n: {"type": g.type, "reason": g.reason} for n, g in guesses.items() if n != chosen}
    used = sum(c["type"] != "off" for c in columns.values())
    seen = f"{len(guesses)} columns, {used} are read; the target is taken to be '{chosen}' ({why.type})."
    _write(out, lines, f"{data}: {seen}", {"target": chosen, "target_type": why.type, "columns": columns}, json)


def _texts(data: str, out: Path, json: bool) -> None:
    """A file for plain texts, whose every next token is learnt."""
    lines = [
        f"# Written by weft init for the plain text of {data}.",
        "version: 1",
        "data:",
        f"  source: {scalar(data)}",
        "  split: {time: place, test: 0.1, valid: 0.1}  # the end of the text is judged, what is before it watched",
        "target: {next_token: text}  # a model that writes; masked_token: text makes one that reads",
        "training: {minutes: 10}",
    ]
    seen = f"{data}: plain text; a language model learns to write it."
    _write(out, lines, seen, {"target": "text", "target_type": "next_token", "columns": {}}, json)


def _write(out: Path, lines: list[str], seen: str, guessed: dict[str, Any], json: bool) -> None:
    write_whole(out, "\n".join(lines) + "\n")
    next_ = f"next:    look at it, then  {typed('check', out)}"
    answer(json, {"file": str(out), **guessed}, [seen, f"wrote:   {out}", next_])


def _likely_target(names: list[str], types: dict[str, str]) -> str:
    lowered = {n.lower(): n for n in names}
    for word in _LIKELY:
        if word in lowered:
            return lowered[word]
    usable = [n for n in names if types[n] in ("category", "number")]
    return usable[-1] if usable else names[-1]
