"""``weft export RUN --to hf|onnx|gguf|mlflow|int8|int4|early -o OUT``"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from weft.cli import Json, Out, answer, typed
from weft.errors import UsageError, listing
from weft.exchange import export_hf
from weft.progress import Spoken
from weft.results.pareto import pareto_lines

MOST = 0.5


def export(
    run: Path,
    /,
    *,
    to: Literal["hf", "onnx", "gguf", "mlflow", "int8", "int4", "early"],
    out: Out,
    max_loss: float | None = None,
    data: str | None = None,
    json: Json = False,
) -> None:
    """Write a run in the form of another library, or as a smaller run.

    Args:
        run: An imported checkpoint, or a run.
        to: hf is a folder that transformers loads with equal outputs, of a checkpoint or a run trained from one (its
            fine-tuned encoder). onnx is a graph that predicts a column or embeds texts, with a program that runs
            it without torch. gguf is a file for llama.cpp, of a language model of Llama's kind. mlflow is a folder that
            mlflow.pyfunc.load_model loads, of a run that predicts a column. int8 and int4 are runs whose matrices
            have so many bits a number, judged on the validation rows first. early is a run of classes whose easy rows
            are answered before its model reads them.
        out: The folder, new or empty.
        max_loss: Points of the run's figure that fewer bits may cost (default: 0.5; inf: any); of early, how many of a
            hundred rows may get another label than by the model alone.
        data: Labelled rows to judge fewer bits on, or to decide on which rows are easy (default: the rows of the table
            of the training).
    """
    if to in ("int8", "int4"):
        from weft.smaller import export_smaller

        found = export_smaller(run, to, out, MOST if max_loss is None else max_loss, data)
        lines = [*pareto_lines(found), f"wrote:   {out}", f"next:    {typed('evaluate', out, 'DATA')}"]
        return answer(json, found, lines)
    if to == "early":
        from weft.early import export_early

        found = export_early(run, out, MOST if max_loss is None else max_loss, data, Spoken())
        lines = [
            *pareto_lines(found),
            f"early:   {found['left']:.1%} of {found['decided']:,} validation rows are answered before the model reads "
            f"them, {found['differ']:.2%} of all with another label",
            f"wrote:   {out}", f"next:    {typed('evaluate', out, 'DATA')}",
        ]  # fmt: skip
        return answer(json, found, lines)
    if max_loss is not None or data is not None:
        raise UsageError(f"--max-loss and --data are for int8, int4 and early; {to} loses nothing. Leave them out.")
    if to in ("hf", "gguf"):
        if to == "hf":
            found = export_hf(run, out)
        else:
            from weft.exports.gguf import export_gguf

            found = export_gguf(run, out)
        lines = [f"wrote:   {out} ({found['family']}, {found['parameters']:,} parameters)"]
    elif to == "mlflow":
        from weft.exports.mlflow import export_mlflow

        found = export_mlflow(run, out)
        lines = [
            f"wrote:   {out} ({found['parameters']:,} parameters)",
            f'next:    mlflow.pyfunc.load_model("{out}").predict(frame), with the columns {listing(found["columns"])}',
        ]
    else:
        from weft.exports.onnx import export_onnx

        found = export_onnx(run, out)
        lines = [
            f"wrote:   {out} ({found['parameters']:,} parameters)",
            f"checked: answers to random rows lie within {found['difference']:.1g} of the run's",
            f"next:    see {out / 'README.md'}",
        ]
    answer(json, found, lines)
