"""A table without its personal data, into a file that appears whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import weft.inference.names  # noqa: F401 (how a model of names is opened)
from weft.data.table import Table, shown
from weft.inference.parts import Piece, write_job
from weft.preprocess.letters import Letters, Redactor
from weft.progress import Silent


def redact_table(
    redactor: Redactor, source: Any, out: str | Path, columns: Sequence[str] = (), say: Silent | None = None
) -> dict[str, Any]:
    """Write a table of any size with its columns, rows and types as they came, personal data replaced.

    Looked through are texts, also those in lists and structs, and whole numbers: a column of these that holds some
    (of a CSV file a telephone number is one) becomes texts. Fractions, times and pictures stay as they are.

    Args:
        columns: those to look through; the others are repeated as they are (default: all).

    Returns:
        The counts: rows, rejected, and of each column what was found.
    """
    say, out, table = say or Silent(), Path(out), Table.of(source)
    table.require(columns)
    looked = set(columns or table.columns)
    letters = Letters("off", redactor)
    numbers = _numbers(redactor, table, looked, say)
    schema = pa.schema([(name, pa.string() if name in numbers else kind) for name, kind in table.columns.items()])

    def work(rest: Table) -> Iterator[Piece]:
        for raw in rest.batches():
            redactor.found.clear()
            batch = shown(raw.batch, table.columns)
            cells = [
                redacted(redactor, array.cast(field.type), field.name)
                if field.name in looked
                else array.cast(field.type)
                for array, field in zip(batch.columns, schema, strict=True)
            ]
            aside = []
            for bad in raw.rejected:
                reason, text = letters.quoted(bad.reason, bad.text)
                aside.append(replace(bad, reason=reason, text=text))
            counts = {f"{kind} {column}": n for (column, kind), n in redactor.found.items()}
            yield Piece(pa.table(cells, schema=schema), aside, raw.end(0), {"rows": len(batch), **counts})

    job = {"redact": redactor.to_dict(), "columns": sorted(looked)}
    done = write_job(out, schema, table, job, work, "redacting", say)
    found: dict[str, dict[str, int]] = {}
    for key, count in done.counts.most_common():
        kind, _, column = key.partition(" ")
        if column:
            found.setdefault(column, {})[kind] = count
    return {
        "rows": done.counts["rows"] + done.counts["rejected"], "written": done.counts["rows"],
        "rejected": done.counts["rejected"], "found": {name: found[name] for name in table.columns if name in found},
        "now_texts": sorted(numbers), "output": str(out), "rejected_output": done.rejected_output,
    }  # fmt: skip


def redacted(redactor: Redactor, array: pa.Array, column: str) -> pa.Array:
    """The cells of a column without personal data, of the type they have."""
    if pa.types.is_string(array.type):
        return redactor(array, column)
    if not pa.types.is_nested(array.type):
        return array
    cells = array.to_pylist()
    texts = list(_texts(cells))
    if not texts:
        return array
    safe = iter(redactor(pa.array(texts, pa.string()), column).to_pylist())
    return pa.array(_each(cells, lambda text: next(safe)), array.type)


def _texts(value: Any) -> Iterator[str]:
    """Every text in lists, tuples and dicts, in the order of :func:`_each`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _each(value: Any, change: Any) -> Any:
    """A value of lists, tuples and dicts with every text in it changed, in one order."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_each(part, change) for part in value)
    return {name: _each(part, change) for name, part in value.items()} if isinstance(value, dict) else value


def _numbers(redactor: Redactor, table: Table, looked: set[str], say: Silent) -> set[str]:
    """The columns of whole numbers in which personal data is found, by one reading of these columns."""
    whole = [name for name, kind in table.columns.items() if name in looked and pa.types.is_integer(kind)]
    found: Counter[str] = Counter()
    if whole:
        with say.bar("reading", table.row_count() or 0) as bar:
            for raw in table.batches(whole):
                redactor.found.clear()
                for name, array in zip(whole, shown(raw.batch, table.columns).columns, strict=True):
                    redactor(pc.cast(array, pa.string()), name)
                found.update(column for column, _ in redactor.found)
                bar.advance(raw.batch.num_rows)
    return set(found)
