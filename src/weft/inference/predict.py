"""Rows in, outputs out: the same function for a table on disk, rows in memory and the test split."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from weft import memory
from weft.data.split import uniform
from weft.data.table import RawBatch, Table
from weft.errors import DataError, did_you_mean, listing
from weft.features.batching import Batch, collate, in_turn, tokens_to_read
from weft.features.columns import Columns
from weft.features.ragged import take
from weft.features.store import RowCodes, fixed_tokens, lengths
from weft.features.targets import LabelsTarget, NumberTarget
from weft.models.backbone import machine_has_bfloat16
from weft.models.packed import pack_layers
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch, Cleaner

T = TypeVar("T")
MOST_CLASS_COLUMNS = 100
WIDE = 256
LEAST = 1 << 10
"""Numbers of a matrix from which on it is packed: rows are many."""
MORE = 4
"""Times as many tokens are read at once on a CPU in bfloat16, whose packed matrices are quicker for long lists."""
_SEED = 11  # of the rows to judge; not that of a split, whose draws these would follow


@dataclass
class Predicted:
    """Answers to clean rows, as their model gives them; the rows as they came, and those set aside."""

    raw: RawBatch
    clean: CleanBatch
    output: Any


def predict_codes(model: RowModels, codes: RowCodes, rows: int, exact: bool = False) -> np.ndarray:
    """Outputs of encoded rows in their order. Wide models read in bfloat16 where the machine multiplies it, in a third
    of the time, unless the answers must be ``exact``."""
    return easy_first(model, codes, rows, lambda codes, rows: _read_all(model, codes, rows, exact))


def easy_first(
    model: RowModels, codes: RowCodes, rows: int, rest: Callable[[RowCodes, int], np.ndarray]
) -> np.ndarray:  # fmt: skip
    """Outputs of encoded rows in their order: where the model has what answers easy rows these by that, the others by
    ``rest``."""
    if model.first is None or not rows:
        return rest(codes, rows)
    first = model.first
    with torch.no_grad():
        outputs = read_codes(model, codes, rows, lambda batch: first(batch.columns))
    assert outputs is not None
    hard = np.flatnonzero(~first.easy(outputs))
    if len(hard):
        outputs[hard] = rest(
            {c: {n: take(a, hard) for n, a in fields.items()} for c, fields in codes.items()}, len(hard)
        )
    return outputs


def _read_all(model: RowModels, codes: RowCodes, rows: int, exact: bool) -> np.ndarray:
    device, width = model.temperature.device.type, model.each()[0].config.backbone.width
    wide = (not exact and width >= WIDE and machine_has_bfloat16(device)) or torch.is_autocast_enabled(device)
    packs = device == "cpu" and (wide or width < WIDE)
    reader = packed(model, torch.bfloat16 if wide else torch.float32) if packs else model
    # one context for all batches: each matrix is rounded once
    with torch.autocast(device, torch.bfloat16, enabled=wide):
        outputs = read_codes(model, codes, rows, reader.predict)
    return np.empty(0 if model.width is None else (0, model.width)) if outputs is None else outputs


_PACKED: WeakKeyDictionary[RowModels, tuple[list[Any], RowModels]] = WeakKeyDictionary()


def packed(model: RowModels, dtype: torch.dtype) -> RowModels:
    """The model with its backbone's matrices packed as numbers of a kind, its other tensors shared; kept until a tensor
    of the model changes."""
    tensors = [*model.parameters(), *model.buffers()]
    state = [dtype, *((t.data_ptr(), t._version) for t in tensors)]
    kept = _PACKED.get(model)
    if kept is None or kept[0] != state:
        found = copy.deepcopy(model, {id(t): t for t in tensors})
        for each in found.each():
            pack_layers(each.backbone, dtype, LEAST)
        kept = _PACKED[model] = state, found
    return kept[1]


def read_codes(model: RowModels, codes: RowCodes, rows: int, read: Callable[[Batch], Tensor]) -> np.ndarray | None:
    """What ``read`` makes of encoded rows, in their order; None of no rows. Rows of like length share a batch."""
    outputs: np.ndarray | None = None
    device = model.temperature.device
    memory.keep_freed()
    budget = tokens_to_read(model.each()[0].config.backbone.width, device.type)
    budget *= MORE if device.type == "cpu" and torch.is_autocast_enabled("cpu") else 1
    for chosen in in_turn(np.arange(rows), lengths(codes), budget, fixed_tokens(codes)) if rows else ():
        picked = {c: {n: take(a, chosen) for n, a in fields.items()} for c, fields in codes.items()}
        out = read(collate(picked, len(chosen)).to(device)).cpu().numpy()
        if outputs is None:
            outputs = np.empty((rows, *out.shape[1:]), out.dtype)
        outputs[chosen] = out
    return outputs


@dataclass
class Reader(Generic[T]):
    """How a table is read: which columns, how many rows at once, and what becomes of a batch of them."""

    columns: list[str]
    rows: int
    read: Callable[[RawBatch], T]

    def over(self, table: Table) -> Iterator[tuple[RawBatch, T]]:
        """Every batch of a table, as it came and as it is read, in order."""
        for raw in table.batches(self.columns, self.rows):
            yield raw, self.read(raw)


class Predictor:
    """Applies a model to tables. An absent column counts as all missing values, but where another one of the table may
    be it under a new name (``allow_missing``: also then)."""

    def __init__(self, columns: Columns, model: RowModels, allow_missing: bool = False):
        self.columns, self.model, self.allow_missing = columns, model, allow_missing
        self.without: list[str] = []
        """Columns that the model reads and the last table did not hold."""
        self.cut = 0
        """Texts to read that lost their end; a row's are cut as the model was taught, and not counted."""

    def stream(
        self, table: Table, with_target: bool = False, keep: Sequence[str] = (),
        chosen: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Iterator[Predicted]:  # fmt: skip
        """Predict a table batch by batch, in order. Columns in ``keep`` come along in ``raw``.

        ``chosen``: row numbers -> a mask of those to predict; default: all.

        Raises:
            DataError: all columns that the model reads are absent, or one seems to be renamed (and ``allow_missing``
                is not set), or the target.
        """
        for raw, clean in self.reader(table, keep, with_target).over(table):
            yield self.answer(raw, clean if chosen is None else clean.chosen(chosen(clean.rows)))

    def answer(self, raw: RawBatch, clean: CleanBatch) -> Predicted:
        """What the model says of clean rows."""
        return Predicted(raw, clean, predict_codes(self.model, self.columns.encode(clean), len(clean.rows)))

    def clean(
        self, table: Table, with_target: bool = False, chosen: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> Iterator[CleanBatch]:
        """The rows of a table as the model's codecs read them, batch by batch. Raises as :meth:`stream`."""
        for _, clean in self.reader(table, (), with_target).over(table):
            yield clean if chosen is None else clean.chosen(chosen(clean.rows))

    def reader(self, table: Table, keep: Sequence[str] = (), with_target: bool = False) -> Reader[CleanBatch]:
        """How the rows of a table become what the model's codecs read. Raises as :meth:`stream`."""
        wanted = [codec.name for codec in self.columns.codecs]
        target = self.columns.target.name
        if with_target:
            wanted.append(target)
        if with_target and target not in table.columns:
            raise DataError(
                f"{table.name}: must hold the target '{target}' to be evaluated.{did_you_mean(target, table.columns)}"
            )
        absent = self.without = self.absent(table.name, table.columns)
        plans = {name: self.columns.cleaner.plans[name] for name in wanted}
        cleaner = Cleaner(plans, self.columns.cleaner.letters, target if with_target else None)
        read = [name for name in wanted if name not in absent]
        columns = [*read, *(name for name in keep if name not in read)]
        return Reader(columns, cleaner.batch_rows, lambda raw: cleaner(filled(raw, absent)))

    def absent(self, where: str, there: Collection[str], without: str = "go on without (--allow-missing)") -> list[str]:
        """Columns that the model reads and that are not there. Raises as :meth:`stream`, and says how to go on
        ``without``."""
        names = [codec.name for codec in self.columns.codecs]
        absent = [name for name in names if name not in there]
        others = [name for name in there if name not in (*names, self.columns.target.name)]
        near = next((words for name in absent if (words := did_you_mean(name, others))), "")
        if len(absent) == len(names) or (near and not self.allow_missing):
            raise DataError(
                f"{where}: must hold the columns the model was trained on. Got no {listing(absent)}.{near} "
                f"Rename or add them" + (f", or {without}, which costs quality." if near else ".")
            )
        return absent

    def as_columns(self, output: np.ndarray) -> dict[str, pa.Array]:
        """Outputs as columns for a person: ``prediction``; for classes ``probability`` and one column each; for labels
        a list and one column each; where the model declines rows ``declined``, and no prediction for those."""
        target = self.columns.target
        if isinstance(target, NumberTarget):
            return {"prediction": pa.array(output, pa.float64())}
        probability = output[:, : len(target.classes)]
        if isinstance(target, LabelsTarget):
            return label_columns(target.classes, probability, self.model.threshold.cpu().numpy())
        declined = output[:, -1] < 0 if self.model.score is not None else None
        return class_columns(target.classes, probability, declined)


class Sample:
    """At most ``most`` rows of a stream, drawn at random by their numbers, with what is added of them (outputs, truth).

    ``parts``: of every row of the table its part, where only those of ``part`` count.
    """

    def __init__(self, most: int, parts: np.ndarray | None, part: int):
        self.most, self._parts, self._part = most, parts, part
        self._below, self._seen = 1.0, 0
        self._kept: list[tuple[np.ndarray, ...]] = []

    def wanted(self, rows: np.ndarray) -> np.ndarray:
        """A mask of the rows that may belong to the sample."""
        mine = np.ones(len(rows), bool) if self._parts is None else self._parts[rows] == self._part
        self._seen += int(mine.sum())
        return mine & (uniform(_SEED, rows) < self._below)

    def add(self, rows: np.ndarray, *columns: np.ndarray) -> None:
        self._kept.append((rows, *columns))
        if sum(len(kept[0]) for kept in self._kept) > 2 * self.most:
            self._shrink()

    def columns(self) -> tuple[np.ndarray, ...]:
        """What was added of the rows, in their order."""
        self._shrink()
        return self._kept[0][1:]

    def words(self) -> str:
        """What a person should know of it."""
        return "" if self._seen <= self.most else f", {self.most:,} drawn at random of {self._seen:,}"

    def _shrink(self) -> None:
        """Keep the rows of the lowest draws."""
        columns = [np.concatenate(column) for column in zip(*self._kept, strict=True)]
        if len(columns[0]) > self.most:
            draws = uniform(_SEED, columns[0])
            self._below = float(np.partition(draws, self.most)[self.most])
            columns = [column[draws < self._below] for column in columns]
        self._kept = [tuple(columns)]


def class_columns(
    classes: Sequence[str], output: np.ndarray, declined: np.ndarray | None = None
) -> dict[str, pa.Array]:
    """Probabilities [N, C] as the columns ``prediction``, ``probability`` and, of few classes, one for each.

    ``declined``: rows [N] that get no prediction, which a column of that name says.
    """
    best = output.argmax(axis=1) if len(output) else np.zeros(0, np.int64)
    no = np.zeros(len(output), bool) if declined is None else declined
    return {
        "prediction": pa.array(
            [None if n else classes[i] for i, n in zip(best.tolist(), no, strict=True)], pa.string()
        ),
        **({} if declined is None else {"declined": pa.array(declined)}),
        "probability": pa.array(output[np.arange(len(best)), best], pa.float32()),
        **_probabilities(classes, output),
    }


def label_columns(classes: Sequence[str], output: np.ndarray, thresholds: np.ndarray) -> dict[str, pa.Array]:
    """Probabilities [N, L] as the column ``prediction``, a list of labels, and, of few labels, one for each."""
    lists = [[classes[i] for i in np.flatnonzero(row).tolist()] for row in output >= thresholds]
    return {"prediction": pa.array(lists, pa.list_(pa.string())), **_probabilities(classes, output)}


def _probabilities(classes: Sequence[str], output: np.ndarray) -> dict[str, pa.Array]:
    shown = enumerate(classes) if len(classes) <= MOST_CLASS_COLUMNS else ()
    return {f"probability of {name}": pa.array(output[:, place], pa.float32()) for place, name in shown}


def without_in_words(names: Sequence[str]) -> str:
    return f"no {listing(names)}, which the model reads: as if missing in every row, which costs quality"


def filled(raw: RawBatch, absent: list[str]) -> RawBatch:
    """The rows with columns of missing values for those that are absent."""
    batch = raw.batch
    for name in absent:
        batch = batch.append_column(name, pa.nulls(batch.num_rows))
    return RawBatch(raw.rows, batch, raw.rejected, raw.folder)
