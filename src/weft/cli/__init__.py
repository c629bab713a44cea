"""The commands. One small file each, imported only when called: ``weft --help`` never imports torch."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from weft import processes
from weft.errors import DataError, SettingsError, TrainingError, UsageError, WeftError, in_words
from weft.files import json_text

Json = Annotated[bool, Parameter(help="One JSON object on stdout.")]
Many = Annotated[tuple[str, ...], Parameter(negative=())]
Memory = Annotated[
    str | None,
    Parameter(
        help="What may be resident at most, e.g. 2GB (default: four fifths of what the machine or container has left)."
    ),
]
Engine = Annotated[
    str,
    Parameter(help="Where the rows are worked on: local (this process), ray (RAY_ADDRESS, else this machine), spark."),
]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
To = Annotated[str, Parameter(name=["--out", "-o"])]
"""A file, a folder of parts (it ends in ``/``), or an address of either."""

app = App(
    name="weft",
    help="Turns every column of a big table into tokens, and lets one large model read the row.",
    version=lambda: f"weft {version('weft')}",
    suppress_keyboard_interrupt=False,  # which signal it was tells the exit code
    help_epilogue="Start with: weft demo    ·    your own table: weft init DATA",
)
for name, line in {
    "demo": "Real data that is on every machine, end to end, in a few minutes.",
    "init": "Look at a table and write a starter pipeline file.",
    "schema": "Write the JSON Schema of pipeline files, with which editors complete and explain them.",
    "check": "Validate a pipeline file and say what a run will do and need.",
    "plan": "Say what a training will take: size, memory, layout, days, energy.",
    "run": "Train a model as a pipeline file says.",
    "predict": "Predict the rows of a table of any size.",
    "evaluate": "Judge a run on a table that holds the target.",
    "explain": "Say why a run answers as it does.",
    "audit": "Say whom a run fails, by how much and how surely.",
    "report": "Write the report of a run again and say where it is.",
    "generate": "Go on from a prompt with a language model, or show the next token.",
    "serve": "Answer over HTTP, with a page to try the runs.",
    "embed": "Turn a column of texts into vectors.",
    "redact": "Write a table again without its personal data.",
    "search": "Find the rows of an index whose meaning is nearest to a query.",
    "export": "Write a run in the form of another library.",
}.items():
    app.command(f"weft.cli.{name}:{name}", name=name, help=line)
app.command(
    "weft.cli.import_checkpoint:import_checkpoint",  # import is a word of Python
    name="import",
    help="Read a Hugging Face checkpoint into a run folder.",
)


def main(arguments: list[str] | None = None) -> None:
    """Exit 0 done, 1 failed, 2 wrong use, 130 interrupted (Ctrl-C), 143 told to end (SIGTERM)."""
    signal.signal(signal.SIGTERM, _end)
    # torch, when it is imported, reads that its large tensors are to lie in pages of 2 MB
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.exit(call(sys.argv[1:] if arguments is None else arguments))


def _end(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(number)  # as Ctrl-C does: what is half done is tidied up


def call(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    as_json = "--json" in arguments
    try:
        app(
            arguments,
            error_console=errors,
            exit_on_error=False,
            print_error=True,
            result_action="return_value",
        )
        return 0
    except CycloptsError as error:  # said already, in a frame on stderr
        if as_json:
            print(json_text({"error": str(error)}))
        return 2
    except WeftError as error:
        code = 2 if isinstance(error, (UsageError, SettingsError)) else 1
        if not (processes.number() and isinstance(error, (SettingsError, DataError, TrainingError))):
            _fail(errors, as_json, str(error))  # of several processes, all of which meet these, the first says it
        return code
    except KeyboardInterrupt as stop:
        if not processes.number():
            errors.print("interrupted")
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _fail(errors, as_json, in_words(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not memory_full(error):
            raise
        said = str(error) if isinstance(error, MemoryError) else (
            "One step of the model does not fit. Take fewer rows a step (training.batch_rows), fewer columns, or a "
            "smaller model (model.width, model.layers)."
        )  # fmt: skip
        _fail(errors, as_json, f"the memory is full. {said}".strip())
        return 1


def memory_full(error: Exception) -> bool:
    """Whether a step asked for more memory than there is, on the processor (whose error torch has no class for) too."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def _fail(errors: Console, as_json: bool, text: str) -> None:
    if as_json:
        print(json_text({"error": text}))
    errors.print("[bold red]error[/] ", end="")
    errors.print(text, markup=False)


def check_page(html: Path | None) -> None:
    """Raises UsageError where a page is asked for in a folder that is not there."""
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}. Make it, or choose another file.")


def typed(*words: object) -> str:
    """A command to be typed, its words quoted where a shell asks for it."""
    return shlex.join(["weft", *map(str, words)])


def aside(done: Mapping[str, Any]) -> list[str]:
    """Where the rows are that were set aside, if any were."""
    return [f"aside:   {done['rejected_output']}"] if done["rejected"] else []


def answer(as_json: bool, values: dict[str, Any], lines: list[str]) -> None:
    """The result on stdout: one JSON object, or lines for a person."""
    if as_json:
        print(json_text(values))
    else:
        for line in lines:
            print(line)
