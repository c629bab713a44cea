"""Where an output goes: a file, a folder of parts (``OUT/``), an address of an object store (``s3://bucket/OUT``).

A file is written in its place. All else is made first as a file in a folder beside it (of an address: here, where the
command runs), which a job that was stopped goes on from, and which is removed when all is where it belongs.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from weft.data.stores import is_address, occupied, send
from weft.errors import DataError, UsageError, did_you_mean, listing
from weft.inference.output import set_aside_name

ROWS_A_FILE, ROWS_A_GROUP = 1_000_000, 1 << 17
MOST_PARTS = 1_000
_NAME = "part-{i}.parquet"


class Delivery:
    """An output on its way.

    Args:
        out: a file, a folder (it ends in ``/``), or an address of either.
        by: the column of the output whose values are folders (``COLUMN=value/``).

    Raises:
        UsageError: a folder holds something, ``by`` is for files, or the output is what is read.
    """

    def __init__(self, out: str | Path, source: str = "", by: str | None = None):
        self.out, self.by = str(out), by
        self.folder, self.remote = self.out.endswith("/"), is_address(self.out)
        if by is not None and not self.folder:
            raise UsageError(f"--partition-by: writes a folder. Got {out}. Let -o end in a slash: -o {out}/")
        if self.out.rstrip("/") == source.rstrip("/"):
            raise UsageError(f"{out}: the output must not be the table that is read. Choose another name with -o.")
        self.path = Path(self.out)
        if not (self.folder or self.remote):
            return
        name = re.sub(r"[^\w.=-]+", "-", self.out.rstrip("/")) if self.remote else self.path.name
        self._made = (Path() if self.remote else self.path.parent) / f".{name}.making"
        if not self.remote and not self.path.absolute().parent.is_dir():
            raise UsageError(f"{out}: the folder {self.path.absolute().parent} must exist. Create it.")
        if self.folder and not self._sent.exists() and self._holds_something():
            raise UsageError(f"{out}: the folder must be new or empty. It holds files. Choose another with -o.")
        self.path = self._made / ("whole.parquet" if self.folder else self.out.rpartition("/")[2])
        self._made.mkdir(exist_ok=True)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError):  # unless a stopped job goes on from there
            if self.folder or self.remote:
                self._made.rmdir()

    @property
    def _sent(self) -> Path:
        """Is there when some of a folder may be in the store."""
        return self._made / "sending"

    def _holds_something(self) -> bool:
        if self.remote:
            return occupied(self.out)
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    def deliver(self, done: dict[str, Any]) -> dict[str, Any]:
        """Bring what was written where it belongs; ``done`` with the names it has there.

        Raises:
            DataError: a store cannot be reached; the output stays whole here.
        """
        if not (self.folder or self.remote):
            return done
        whole, aside = self.path, set_aside_name(self.path)
        if self.folder:
            whole = self._made / "parts"
            shutil.rmtree(whole, ignore_errors=True)
            _divide(self.path, whole, self.by)
        at = self.out.rstrip("/")
        rejected = f"{at if self.folder else at.rpartition('.')[0]}.rejected.parquet"
        if self.remote:
            self._sent.touch()
            try:
                if aside.exists():
                    send(aside, rejected)
                send(whole, at)
            except DataError as error:
                raise DataError(f"{error} The output is whole in {whole}: send it yourself, or try again.") from None
        else:
            if aside.exists():
                aside.replace(rejected)
            if Path(at).is_dir():
                Path(at).rmdir()
            whole.replace(at)
        shutil.rmtree(self._made)
        return done | {"output": self.out, "rejected_output": rejected if done["rejected_output"] else None}

    def check(self, schema: pa.Schema) -> None:
        """Raises UsageError where the output has no column ``by``, or one of which no folders can be named."""
        if self.by is None:
            return
        if self.by not in schema.names:
            near = did_you_mean(self.by, schema.names)
            raise UsageError(f"--partition-by {self.by}: must be one of {listing(schema.names)}.{near}")
        kind = schema.field(self.by).type
        if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise UsageError(f"--partition-by {self.by}: must be a column of words or whole numbers. Got {kind}.")


def _divide(whole: Path, folder: Path, by: str | None) -> None:
    """A file of Parquet as a folder of parts in its order, one below another where ``by`` says so."""
    file = pq.ParquetFile(whole)
    schema = file.schema_arrow
    options = ds.ParquetFileFormat().make_write_options(compression="zstd", write_page_checksum=True)
    try:
        ds.write_dataset(
            file.iter_batches(1 << 14), folder, schema=schema, format="parquet", file_options=options,
            basename_template=_NAME, max_rows_per_file=ROWS_A_FILE, max_rows_per_group=ROWS_A_GROUP, use_threads=False,
            partitioning=None if by is None else ds.partitioning(pa.schema([schema.field(by)]), flavor="hive"),
            max_partitions=MOST_PARTS, existing_data_behavior="error",
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        if "partitions" not in str(error):
            raise
        raise UsageError(
            f"--partition-by {by}: must have at most {MOST_PARTS:,} different values. It has more. Choose another "
            f"column; the rows are in {whole}."
        ) from None
    if not file.metadata.num_rows:
        folder.mkdir(exist_ok=True)
        pq.write_table(schema.empty_table(), folder / _NAME.format(i=0))
    for part in folder.rglob("part-*.parquet"):  # in the order of their names
        part.rename(part.with_name(f"part-{int(part.stem.removeprefix('part-')):05d}.parquet"))
