"""A job over a table of any size: what it makes grows in parts beside OUT, which appears whole when all are there.

    .OUT.parts/job.json         which job it is
    .OUT.parts/part-00000000/   rows.arrow  rejected.arrow  state.json  manifest.json

A job that was stopped, however it was, goes on after its last whole part when the same is asked for again: with this
model, these rows and these settings; other parts are of no use and are removed. Parts end where pieces do, so that the
output has the same bits whether the job was stopped or not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import nn

from weft import engine
from weft.data.table import RawBatch, Rejected, Table
from weft.errors import CheckpointError, UsageError
from weft.files import flush, held, sweep, verify_manifest, whole_folder, write_whole
from weft.inference.output import check, set_aside_name, writing
from weft.inference.predict import Reader
from weft.preprocess.aside import rejected_table
from weft.progress import Silent

SECONDS_A_PART = 5.0
"""What a job that is killed does again at most, or one piece."""
ROWS, REJECTED, STATE, JOB = "rows.arrow", "rejected.arrow", "state.json", "job.json"


@dataclass
class Piece:
    """What some rows of a table led to. ``end``: the number after the last of them, read or set aside; None where more
    of the same rows follows. ``counts``: what is summed over all pieces."""

    table: pa.Table
    rejected: list[Rejected]
    end: int | None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Done:
    """``counts`` of all pieces and ``rejected``; the file of the rows set aside, None where there are none."""

    counts: Counter[str]
    rejected_output: str | None


def steps(reader: Reader[Any], step: Callable[[RawBatch], Piece]) -> Callable[[Table], Iterator[Piece]]:
    """The work of :func:`write_job` where each batch is a piece of its own: on the engine that runs."""
    return lambda table: engine.over_table(step, table, reader.columns, reader.rows)


def write_job(
    out: Path,
    schema: pa.Schema,
    table: Table,
    job: Mapping[str, Any],
    work: Callable[[Table], Iterator[Piece]],
    label: str,
    say: Silent,
    joining: Callable[[pa.Table], None] = lambda table: None,
    joined: Callable[[], None] = lambda: None,
) -> Done:
    """Write the pieces that ``work`` makes of a table, or of what an earlier call left of it, into ``out``.

    The rows set aside go into a file beside it.

    Args:
        job: all that the output depends on beside the table: the model, the settings.
        joining: is given the rows of the output once more, in order, some at a time.
        joined: is called before the output takes its name.

    Raises:
        UsageError: the ending is not known, the output is the table itself, or another process writes it.
    """
    check(out)
    for part in table.parts:
        if Path(part.path).resolve() in (out.resolve(), set_aside_name(out).resolve()):
            raise UsageError(f"{out}: the output must not be the table that is read. Choose another name with -o.")
    folder = out.with_name(f".{out.name}.parts")
    with held(folder, out):
        parts = _Parts(folder, schema.remove_metadata(), {**job, "weft": version("weft"), "table": table.stamp()}, say)
        try:
            _work(parts, table.after(parts.end), work, label, say)
            parts.join(out, schema, joining, joined)
        except BaseException:
            if parts.number:
                say.line(f"stopped after row {parts.end:,}; the same command goes on from there")
            else:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
    aside = set_aside_name(out)
    return Done(parts.counts, str(aside) if parts.counts["rejected"] else None)


def _work(parts: _Parts, table: Table, work: Callable[[Table], Iterator[Piece]], label: str, say: Silent) -> None:
    if parts.number:
        say.line(f"going on after row {parts.end:,}")
    started, first = time.monotonic(), parts.end
    with say.bar(label, max(0, (table.rows_about() or 0) - first)) as bar:

        def told() -> Iterator[Piece]:
            row = first
            for piece in work(table):
                if piece.end is None:
                    yield piece
                    continue
                piece.end = max(piece.end, row)  # a piece may hold no row at all
                yield piece
                rate = (piece.end - first) / max(time.monotonic() - started, 1e-9)
                bar.advance(piece.end - row, f"{piece.end:,} rows, {rate:,.0f} a second")
                row = piece.end

        pieces = told()
        for piece in pieces:
            parts.add(itertools.chain([piece], pieces), table)


class _Parts:
    """The parts of a job so far: ``number`` of them, up to the row ``end``, with their ``counts``."""

    def __init__(self, folder: Path, schema: pa.Schema, job: Mapping[str, Any], say: Silent):
        self.folder, self.schema, self.number, self.end = folder, schema, 0, 0
        self.counts: Counter[str] = Counter()
        sweep(folder)
        text = json.dumps({**job, "schema": str(schema)}, default=repr, sort_keys=True)
        file = folder / JOB
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_whole(file, text)
        while self._path(self.number).exists():
            try:
                verify_manifest(self._path(self.number))
            except CheckpointError as error:
                say.warn(f"{error} Its rows, and those after it, are done again.")
                for path in folder.glob("part-*"):
                    if path.name >= self._path(self.number).name:
                        shutil.rmtree(path)
                break
            state = json.loads((self._path(self.number) / STATE).read_text())
            self.number, self.end, self.counts = self.number + 1, state["end"], Counter(state["counts"])

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}"

    def add(self, pieces: Iterator[Piece], table: Table) -> None:
        """Make a part of the pieces that come within ``SECONDS_A_PART``."""
        counts, end, started = self.counts.copy(), self.end, time.monotonic()
        aside = rejected_table([], table).schema
        with whole_folder(self._path(self.number)) as beside:
            with (
                (beside / ROWS).open("wb") as rows, pa.ipc.new_file(rows, self.schema) as output,
                (beside / REJECTED).open("wb") as others, pa.ipc.new_file(others, aside) as rejected,
            ):  # fmt: skip
                for piece in pieces:
                    output.write_table(piece.table.cast(self.schema))
                    if piece.rejected:
                        rejected.write_table(rejected_table(piece.rejected, table))
                    counts.update({**piece.counts, "rejected": len(piece.rejected)})
                    if piece.end is not None:
                        end = piece.end
                        if time.monotonic() - started >= SECONDS_A_PART:
                            break
            (beside / STATE).write_text(json.dumps({"end": end, "counts": counts}))
        self.number, self.end, self.counts = self.number + 1, end, counts

    def join(
        self, out: Path, schema: pa.Schema, joining: Callable[[pa.Table], None], joined: Callable[[], None]
    ) -> None:
        """Make the output of all parts, and let it take its name; what was there before is there until then."""
        whole, aside = self.folder / f"whole{out.suffix.lower()}", self.folder / "rejected.parquet"
        with writing(whole, schema) as writer:
            for table in self._read(ROWS):
                joining(table)
                writer.write(table)
        if self.counts["rejected"]:
            tables = self._read(REJECTED)
            first = next(tables)
            with writing(aside, first.schema) as writer:
                for table in itertools.chain([first], tables):
                    writer.write(table)
        joined()
        if self.counts["rejected"]:
            aside.replace(set_aside_name(out))
        whole.replace(out)
        if not self.counts["rejected"]:
            set_aside_name(out).unlink(missing_ok=True)
        flush(out.absolute().parent)

    def _read(self, name: str) -> Iterator[pa.Table]:
        for number in range(self.number):
            with (self._path(number) / name).open("rb") as stream:
                reader = pa.ipc.open_file(stream)
                for place in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(place)])


def fingerprint(model: nn.Module, tokenizer: Tokenizer) -> str:
    """sha256 over the weights of a model and its tokenizer: the same model, the same word."""
    digest = hashlib.sha256(tokenizer.to_str().encode("utf-8"))
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
