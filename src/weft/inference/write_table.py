"""A text for every prompt of a table's column, into a file that appears whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.table import RawBatch, Rejected, Table
from weft.errors import DataError
from weft.inference.delivery import Delivery
from weft.inference.generate import Prompt, Written, grammar_of, read_prompt, write_prompts
from weft.inference.parts import Piece, fingerprint, steps, write_job
from weft.inference.predict import Reader
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.progress import Silent

ROWS_AT_ONCE = 256
SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])
VALID = pa.field("valid", pa.bool_())


def write_table(
    model: LanguageModel,
    tokenizer: Tokenizer,
    source: Any,
    column: str,
    out: str | Path,
    sampling: Sampling = Sampling(),
    cut: bool = False,
    say: Silent | None = None,
    clean: Callable[[str], str] = str,
) -> dict[str, Any]:
    """Write ``row`` and ``text`` in the order of the table. A missing prompt has a missing text.

    With a constraint also ``valid``: whether the text fulfils it, which one that was cut off may not.

    ``clean``: what becomes of a prompt before it is read.

    A prompt that cannot be read (too long, not UTF-8) sets its row aside, in a file beside ``out`` with the reason.
    Returns the counts: rows in = written + missing + rejected, why the texts stopped, how many break the constraint.
    """
    say = say or Silent()
    table = Table.of(source)
    table.require([column])
    kind = table.columns[column]
    if not (pa.types.is_string(kind) or pa.types.is_null(kind)):
        raise DataError(f"{table.name}: column '{column}' must hold texts to be prompts. Got {kind}.")
    step = _Writing(model, tokenizer, column, sampling, cut, clean)
    reader = Reader([column], ROWS_AT_ONCE, step)
    job = {"model": fingerprint(model, tokenizer), "column": column, "sampling": repr(sampling), "cut": cut}
    with Delivery(out, table.name) as way:
        done = write_job(way.path, step.schema, table, job, steps(reader, step), "writing", say)
    counts = done.counts
    return way.deliver({
        "rows": counts["written"] + counts["missing"] + counts["rejected"], "written": counts["written"],
        "missing": counts["missing"], "rejected": counts["rejected"],
        "stopped": {k.removeprefix("stopped "): n for k, n in counts.items() if k.startswith("stopped ")},
        "invalid": counts["invalid"], "output": str(out), "rejected_output": done.rejected_output,
    })  # fmt: skip


class _Writing:
    """The texts for the prompts of a batch."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, column: str, sampling: Sampling, cut: bool,
        clean: Callable[[str], str],
    ):  # fmt: skip
        self.model, self.tokenizer, self.column = model, tokenizer, column
        self.sampling, self.cut, self.clean = sampling, cut, clean
        self.grammar = grammar_of(model, tokenizer, sampling)
        self.schema = SCHEMA.append(VALID) if self.grammar else SCHEMA

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"grammar": None}  # it cannot travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self.grammar = grammar_of(self.model, self.tokenizer, self.sampling)

    def __call__(self, raw: RawBatch) -> Piece:
        prompts, aside = self._prompts(raw)
        written: dict[int, Written] = {}
        chosen = [(row, prompt) for row, prompt in prompts.items() if prompt is not None]
        asked = [prompt for _, prompt in chosen]
        for places, texts in write_prompts(self.model, self.tokenizer, asked, self.sampling, self.grammar):
            written |= {chosen[i][0]: text for i, text in zip(places, texts, strict=True)}
        of_row = [written.get(row) for row in prompts]
        cells_of = {"row": list(prompts), "text": [w and w.text for w in of_row]}
        if self.grammar:
            cells_of["valid"] = [w and w.valid for w in of_row]
        counts = Counter(f"stopped {w.stopped}" for w in written.values())
        counts["invalid"] = sum(w.valid is False for w in written.values())
        counts["written"], counts["missing"] = len(written), len(prompts) - len(written)
        return Piece(pa.table(cells_of, self.schema), aside, raw.end(0), counts)

    def _prompts(self, raw: RawBatch) -> tuple[dict[int, Prompt | None], list[Rejected]]:
        """The prompt of every row that has a readable one, None where it is missing; and the rows set aside."""
        prompts: dict[int, Prompt | None] = {}
        rejected = list(raw.rejected)
        # as bytes: a cell that is not UTF-8 costs its row, not the table
        cells = raw.batch.column(0).cast(pa.binary()).to_pylist()
        for row, cell in zip(raw.rows.tolist(), cells, strict=True):
            try:
                text = None if cell is None else self.clean(cell.decode("utf-8"))
                prompts[row] = (
                    None if text is None else read_prompt(self.model, self.tokenizer, text, self.sampling, self.cut)
                )
            except (UnicodeDecodeError, DataError) as error:
                reason = str(error) if isinstance(error, DataError) else "the prompt is not UTF-8"
                rejected.append(Rejected(row, self.column, reason, cell.decode("utf-8", "replace")[:1000]))
        return prompts, sorted(rejected, key=lambda r: r.row)
