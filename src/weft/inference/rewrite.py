"""Rows in, written texts out: a column that is written from the text columns of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.table import RawBatch, Table
from weft.errors import DataError, did_you_mean, listing
from weft.features.pairs import Pairing
from weft.inference.generate import read_prompt, write_prompts
from weft.inference.predict import Predicted, Reader, filled
from weft.inference.sampling import Sampling
from weft.models.language import LanguageModel
from weft.preprocess.clean import CleanBatch, Cleaner, ColumnPlan
from weft.preprocess.letters import Letters

ROWS_AT_ONCE = 1_024


def write_targets(
    model: LanguageModel, tokenizer: Tokenizer, sources: Sequence[Sequence[int]], sampling: Sampling
) -> list[str]:
    """The text that each source leads to, without spaces at its ends."""
    prompts = [read_prompt(model, tokenizer, source, sampling, False) for source in sources]
    texts = [""] * len(prompts)
    for places, written in write_prompts(model, tokenizer, prompts, sampling, None):
        for place, found in zip(places, written, strict=True):
            texts[place] = found.text.strip()
    return texts


class Rewriter:
    """Applies a model to tables. ``allow_missing``: an absent column counts as all missing texts."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, pairing: Pairing, letters: Letters, sampling: Sampling,
        allow_missing: bool = False,
    ):  # fmt: skip
        self.model, self.tokenizer, self.pairing, self.sampling = model, tokenizer, pairing, sampling
        self.letters, self.allow_missing = letters, allow_missing
        self.cut = 0
        """Sources so far that were too long and lost their end."""
        self.without: list[str] = []
        """Columns that the model reads and the last table did not hold."""

    def stream(
        self, table: Table, with_target: bool = False, keep: Sequence[str] = (),
        chosen: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Iterator[Predicted]:  # fmt: skip
        """Write a table's texts batch by batch, in order; ``output`` is an array of texts [N].

        ``chosen``: row numbers -> a mask of those to write for; default: all. Raises as :meth:`reader`.
        """
        for raw, clean in self.reader(table, keep, with_target).over(table):
            yield self.answer(raw, clean if chosen is None else clean.chosen(chosen(clean.rows)))

    def answer(self, raw: RawBatch, clean: CleanBatch) -> Predicted:
        """What the model writes for clean rows."""
        sources = self.pairing.encode(clean.columns, self.tokenizer)
        self.cut += sum(cut > 0 for _, cut in sources)
        texts = write_targets(self.model, self.tokenizer, [ids for ids, _ in sources], self.sampling)
        return Predicted(raw, clean, np.array(texts, dtype=object))

    def reader(self, table: Table, keep: Sequence[str] = (), with_target: bool = False) -> Reader[CleanBatch]:
        """How the columns that the model reads are read.

        Raises:
            DataError: columns that the model reads are absent (and ``allow_missing`` is not set), or the target.
        """
        pairing = self.pairing
        absent = self.without = [name for name in pairing.sources if name not in table.columns]
        if absent and (not self.allow_missing or len(absent) == len(pairing.sources)):
            near = did_you_mean(absent[0], table.columns) if len(absent) == 1 else ""
            raise DataError(
                f"{table.name}: must hold the columns the model was trained on. Got no {listing(absent)}.{near} "
                f"Rename or add them."
            )
        if with_target and pairing.target not in table.columns:
            raise DataError(
                f"{table.name}: must hold the target '{pairing.target}' to be evaluated."
                f"{did_you_mean(pairing.target, table.columns)}"
            )
        wanted = [*pairing.sources, *([pairing.target] if with_target else [])]
        plans = {name: ColumnPlan("document") for name in wanted}
        cleaner = Cleaner(plans, self.letters, pairing.target if with_target else None)
        read = [name for name in wanted if name not in absent]
        columns = [*read, *(name for name in keep if name not in read)]
        return Reader(columns, ROWS_AT_ONCE, lambda raw: cleaner(filled(raw, absent)))

    def as_columns(self, output: np.ndarray) -> dict[str, pa.Array]:
        """The texts under the name of the target."""
        return {self.pairing.target: pa.array(output.tolist(), pa.string())}
