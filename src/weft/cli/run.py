"""``weft run FILE``"""

from __future__ import annotations

from pathlib import Path

from weft import config, pipeline
from weft.cli import Engine, Json, Many, Memory, Out, answer
from weft.engine import running
from weft.errors import RunError
from weft.memory import limit
from weft.progress import Spoken
from weft.tasks.steps import free_name
from weft.training.loop import Interrupted


def run(
    file: Path,
    /,
    *,
    set: Many = (),
    out: Out | None = None,
    resume: bool = False,
    engine: Engine = "local",
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
    """
    limit(memory)
    settings = config.load(file, set)
    if resume and out is None:
        raise RunError("--resume: say which run, with -o RUN.")
    path = out or free_name()
    try:
        with running(engine):
            done = pipeline.run(settings, out=path, say=Spoken(), resume=resume)
    except KeyboardInterrupt as stop:
        if path.exists():
            saved = "stopped and saved" if isinstance(stop, Interrupted) else "stopped"
            Spoken().line(f"{saved}; go on with: weft run {file} -o {path} --resume")
        raise
    use = {
        "next_token": f'weft generate {done.path} "PROMPT"    or a table\'s model: {{from: {done.path}}}',
        "masked_token": f"weft embed {done.path} DATA -o vectors.parquet    or a table's model: {{from: {done.path}}}",
        "dialogue": f"weft generate {done.path} --chat",
        "embedding": f"weft embed {done.path} DATA -o i.parquet    and    weft search {done.path} i.parquet QUERY",
    }.get(settings.target.task, f"weft predict {done.path} DATA -o predictions.parquet")
    answer(
        json,
        {"run": str(done.path), **done.figures},
        [f"report:  {done.path / 'report.html'}", f"next:    {use}"],
    )
