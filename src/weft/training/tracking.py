"""What happened at each step: ``metrics.jsonl`` for programs, TensorBoard events for people."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from weft import processes
from weft.files import write_whole


class Tracker:
    """Appends records of one copy of the model to the files of the run, from :meth:`rewind` to :meth:`close`.

    Of several processes the first alone does.
    """

    def __init__(self, folder: Path, copy: int = 0):
        self._copy, self._folder, self._path = copy, folder, folder / "metrics.jsonl"
        self._open: list[Any] = []

    def rewind(self, step: int) -> None:
        """Begin after ``step``: later records are cut off, for a resumed training will do those steps again."""
        if processes.number():
            return
        from torch.utils.tensorboard import SummaryWriter

        kept = []
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run may be half a line
            if record["copy"] != self._copy or record["step"] <= step:
                kept.append(line + "\n")
        write_whole(self._path, "".join(kept))
        self._stream = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(self._folder), purge_step=step + 1, filename_suffix=f".copy{self._copy}")
        self._open = [self._stream, self._board]

    def log(self, step: int, **values: Any) -> None:
        if not self._open:
            return
        self._stream.write(json.dumps({"copy": self._copy, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"copy{self._copy}/{name}", value, step)

    def flush(self) -> None:
        """Wait until the records are on the disk."""
        for stream in self._open[:1]:
            os.fsync(stream.fileno())

    def close(self) -> None:
        for one in self._open:
            one.close()
