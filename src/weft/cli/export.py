"""``weft export RUN --to hf -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from weft.cli import Json, Out, answer
from weft.exchange import export_hf


def export(
    run: Path,
    /,
    *,
    to: Literal["hf"],
    out: Out,
    json: Json = False,
) -> None:
    """Write a run in the form of another library.

    Args:
        run: An imported checkpoint, or a run trained from one (then its fine-tuned encoder is written).
        to: hf is a folder that transformers loads with equal outputs.
        out: The folder, new or empty.
    """
    found = export_hf(run, out)
    answer(json, found, [f"wrote:   {out} ({found['family']}, {found['parameters']:,} parameters)"])
