"""What happened at each step: ``metrics.jsonl`` for programs, TensorBoard events for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from weft.files import write_whole


class Tracker:
    """Appends records of one copy of the model to the files of the run."""

    def __init__(self, folder: Path, copy: int = 0):
        self._copy, self._folder, self._path = copy, folder, folder / "metrics.jsonl"
        self._open(None)

    def _open(self, purge: int | None) -> None:
        self._stream = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(self._folder), purge_step=purge, filename_suffix=f".copy{self._copy}")

    def rewind(self, step: int) -> None:
        """Cut off the records after ``step``: a resumed training will do those steps again."""
        self.close()
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run may be half a line
            if record["copy"] != self._copy or record["step"] <= step:
                kept.append(line + "\n")
        write_whole(self._path, "".join(kept))
        self._open(step + 1)

    def log(self, step: int, **values: Any) -> None:
        self._stream.write(json.dumps({"copy": self._copy, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"copy{self._copy}/{name}", value, step)

    def close(self) -> None:
        self._stream.close()
        self._board.close()
