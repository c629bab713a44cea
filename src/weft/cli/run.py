"""``weft run FILE``"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from weft import config, pipeline
from weft import processes as told
from weft.cli import Engine, Json, Many, Memory, Out, answer, typed
from weft.config import Settings
from weft.engine import running
from weft.errors import RunError, UsageError
from weft.files import MANIFEST
from weft.memory import limit
from weft.progress import Silent, Spoken
from weft.runs.opening import open_run
from weft.runs.run import Run
from weft.tasks.steps import free_name
from weft.training.loop import Interrupted
from weft.training.parallel import Helped


def run(
    file: Path,
    /,
    *,
    set: Many = (),
    out: Out | None = None,
    resume: bool = False,
    engine: Engine = "local",
    processes: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Train a model as a pipeline file says.

    With --engine other workers clean the rows, look for copies and encode; the model is trained here.

    Args:
        file: The pipeline file.
        set: A setting laid over the file, e.g. --set training.epochs=5; may be given several times.
        out: The run folder (default: runs/1, runs/2, ...).
        resume: Go on with the run in --out that was stopped.
        processes: How many processes of this machine train together; on several machines, torchrun starts them.
    """
    limit(memory)
    settings = config.load(file, set)
    if resume and out is None:
        raise RunError("--resume: say which run, with -o RUN.")
    if told.count() > 1 and out is None:
        raise UsageError("-o RUN: must be given where torchrun starts several processes: all work on one folder.")
    path = out or free_name()
    if processes > 1:
        if told.count() > 1:
            raise UsageError("--processes: torchrun has started them already. Leave it out.")
        _together(file, set, path, resume, processes, settings, engine, memory, json)
        return
    try:
        with running("local" if told.number() else engine):
            done = _train(settings, path, resume)
    except Helped:
        # threads of Gloo that end late would abort the interpreter on its way out, and all would be started again
        os._exit(0)
    except KeyboardInterrupt as stop:
        if path.exists() and not told.number():
            saved = "stopped and saved" if isinstance(stop, Interrupted) else "stopped"
            again = f" --processes {told.count()}" if told.count() > 1 else ""
            Spoken().line(f"{saved}; go on with: {typed('run', file, '-o', path, '--resume')}{again}")
        raise
    where, start = shlex.quote(str(done.path)), f"    or a table's model: {{from: {done.path}}}"
    use = {
        "next_token": f'weft generate {where} "PROMPT"{start}',
        "masked_token": f"weft embed {where} DATA -o vectors.parquet{start}",
        "dialogue": f"weft generate {where} --chat",
        "embedding": f"weft embed {where} DATA -o i.parquet    and    weft search {where} i.parquet QUERY",
    }.get(settings.target.task, f"weft predict {where} DATA -o predictions.parquet")
    answer(
        json,
        {"run": str(done.path), **done.figures},
        [f"report:  {done.path / 'report.html'}", f"next:    {use}"],
    )


def _together(
    file: Path, set: tuple[str, ...], out: Path, resume: bool, count: int, settings: Settings, engine: str,
    memory: str | None, json: bool,
) -> None:  # fmt: skip
    """The same command in several processes, of which the first speaks."""
    from weft.launch import launch

    pipeline.check_processes(settings, count)
    told = [part for setting in set for part in ("--set", setting)] + (["--memory", memory] if memory else [])
    flags = [name for name, on in (("--resume", resume), ("--json", json)) if on]
    launch(["run", str(file), "-o", str(out), "--engine", engine, *told, *flags], count)


def _train(settings: Settings, out: Path, resume: bool) -> Run:
    """The finished run. Raises Helped in all processes but the first."""
    if told.count() == 1:
        return pipeline.run(settings, out=out, say=Spoken(), resume=resume)
    from weft.training.team import joined

    say = Silent() if told.number() else Spoken()
    with joined() as again:
        if again and (out / MANIFEST).exists():  # all was done when the process ended
            if told.number():
                raise Helped
            return open_run(out)
        resume = resume or (again and (out / "weft.yaml").exists())
        if again:
            say.warn(f"a process ended; all {told.count()} go on from the newest checkpoint")
        return pipeline.run(settings, out=out, say=say, resume=resume)
