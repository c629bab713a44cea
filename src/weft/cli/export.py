"""``weft export RUN --to hf|onnx|gguf -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from weft.cli import Json, Out, answer
from weft.exchange import export_hf


def export(
    run: Path,
    /,
    *,
    to: Literal["hf", "onnx", "gguf"],
    out: Out,
    json: Json = False,
) -> None:
    """Write a run in the form of another library.

    Args:
        run: An imported checkpoint, or a run.
        to: hf is a folder that transformers loads with equal outputs, of a checkpoint or a run trained from one (its
            fine-tuned encoder). onnx is a graph that predicts a column or embeds texts, with a program that runs
            it without torch. gguf is a file for llama.cpp, of a language model of Llama's kind.
        out: The folder, new or empty.
    """
    if to in ("hf", "gguf"):
        if to == "hf":
            found = export_hf(run, out)
        else:
            from weft.exports.gguf import export_gguf

            found = export_gguf(run, out)
        lines = [f"wrote:   {out} ({found['family']}, {found['parameters']:,} parameters)"]
    else:
        from weft.exports.onnx import export_onnx

        found = export_onnx(run, out)
        lines = [
            f"wrote:   {out} ({found['parameters']:,} parameters)",
            f"checked: answers to random rows lie within {found['difference']:.1g} of the run's",
            f"next:    see {out / 'README.md'}",
        ]
    answer(json, found, lines)
