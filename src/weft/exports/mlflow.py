"""A run as a folder that ``mlflow.pyfunc.load_model`` loads: a model from code, the run itself beside it, no pickle."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from weft.errors import UsageError
from weft.features.codecs import CategoryCodec, NumberCodec, TextCodec, TimeCodec
from weft.features.columns import Columns
from weft.files import require_empty
from weft.runs.opening import task_of
from weft.runs.run import Run

_PROGRAM = Path(__file__).parent / "mlflow_model.py"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",  # read when mlflow is imported
    "MLFLOW_UV_AUTO_DETECT": "false",  # the lock file that lies where the command is typed is not the model's
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}  # fmt: skip
_MOMENT = datetime(2020, 1, 1)


def export_mlflow(path: Path, out: Path) -> dict[str, Any]:
    """Write a run that predicts a column of a row into the folder ``out``; returns what was written.

    The signature lets any type into a column, as Weft reads each cell itself, but demands every column.

    Raises:
        UsageError: the run does something else, or the library of the extra is not there.
    """
    require_empty(out)
    if task := task_of(path):
        raise UsageError(
            f"{path}: must predict a class, labels or a number of a row, to be a model of MLflow. Got a run of {task}. "
            f"Use it with weft predict, generate or serve."
        )
    run = Run(path)
    os.environ |= _QUIET
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's remarks on its own types
        columns = _save(run, out)
    return {"output": str(out), "columns": columns, "parameters": sum(p.numel() for p in run.model.parameters())}


def _save(run: Run, out: Path) -> list[str]:
    """Write the folder; returns the columns that it reads."""
    try:
        import mlflow
        import pandas
        from mlflow.types.schema import AnyType, ColSpec, Schema
    except ImportError:
        raise UsageError(
            "--to mlflow: needs mlflow, which is not there. python -m pip install 'weft[mlflow]'"
        ) from None
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    example = pandas.DataFrame([_example(run.columns)])
    signature = mlflow.models.infer_signature(model_output=run.predict(example))
    signature.inputs = Schema([ColSpec(AnyType(), name) for name in example])
    mlflow.pyfunc.save_model(
        out, python_model=_PROGRAM, artifacts={"run": str(run.path.resolve())}, signature=signature,
        input_example=example, pip_requirements=[f"weft[mlflow]=={version('weft')}"],
    )  # fmt: skip
    return list(example)


def _example(columns: Columns) -> dict[str, Any]:
    """A row that could be, of no row it learnt from; pictures and histories are missing in it."""
    found: dict[str, Any] = {}
    for codec in columns.codecs:
        if isinstance(codec, TimeCodec):
            form = columns.cleaner.plans[codec.name].time_format or "iso"
            found[codec.name] = _MOMENT.isoformat(" ") if form == "iso" else _MOMENT.strftime(form)
        elif isinstance(codec, NumberCodec):
            found[codec.name] = codec.mean
        elif isinstance(codec, CategoryCodec):
            found[codec.name] = next(iter(codec.categories), None)
        else:
            found[codec.name] = "a text" if isinstance(codec, TextCodec) else None
    return found
