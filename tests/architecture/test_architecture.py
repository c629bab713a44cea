"""What the shape of the code promises: imports run one way, nothing heavy hides, public names are frozen."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import weft
from weft import errors
from weft.cli import app

SOURCE = Path(weft.__file__).parent
ORDER = [
    {
        "errors",
        "config",
        "settings_errors",
        "data_settings",
        "training_settings",
        "yaml_text",
        "files",
        "progress",
        "memory",
        "processes",
    },
    {"data"},
    {"engine"},
    {"preprocess"},
    {"features"},
    {"models"},
    {"training"},
    {"inference"},
    {"results"},
    {
        "runs",
        "tasks",
        "pipeline",
        "defaults",
        "language_defaults",
        "estimates",
        "exchange",
        "exports",
        "shadows",
        "launch",
        "early",
        "smaller",
        "sklearn",
    },
    {"server"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
OPTIONAL = {
    "datasets",
    "dp_accounting",
    "duckdb",
    "gguf",
    "huggingface_hub",
    "mlflow",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "polars",
    "pyspark",
    "ray",
    "usearch",
}
LATE = {
    "scipy.optimize",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.preprocessing",
    "torch.utils.tensorboard",
}
"""What only training and judging need: 0.1 GB and 1.6 seconds of a command that predicts or writes."""
MODULES = sorted(SOURCE.rglob("*.py"))
COMMANDS = [
    "demo",
    "init",
    "schema",
    "check",
    "plan",
    "run",
    "predict",
    "evaluate",
    "explain",
    "audit",
    "report",
    "generate",
    "serve",
    "embed",
    "redact",
    "search",
    "export",
    "import",
]


def package(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import with the full name of what it brings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            base = node.module or ""
            yield from ((node, f"{base}.{a.name}" if base == "weft" else base) for a in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_run_one_way(path: Path) -> None:
    own = package(path)
    if own in ("__init__", "__main__"):
        return
    assert own in RANK, f"{own} stands in no rank: put it into ORDER"
    for node, full in imported(ast.parse(path.read_text(encoding="utf-8"))):
        parts = full.split(".")
        if parts[0] == "weft" and len(parts) > 1:
            assert RANK[parts[1]] <= RANK[own], f"{name(path)}:{node.lineno}: {own} may not import {full}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_import_hides_in_a_function(path: Path) -> None:
    if package(path) in ("cli", "__init__"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node, full in imported(function):
                assert full in LATE or full.split(".")[0] in OPTIONAL, (
                    f"{name(path)}:{node.lineno}: {full} is imported in a function"
                )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text and len(text.splitlines()[0]) > 10, name(path)


def loaded(code: str) -> tuple[int, set[str], str]:
    """Exit code and modules of a fresh Python that ran ``code``, and what it printed."""
    tail = "\nimport sys\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=60, check=False)
    out, _, modules = done.stdout.rpartition("MODULES")
    return done.returncode, set(modules.split()), out + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_never_imports_torch(arguments: list[str]) -> None:
    code, modules, text = loaded(f"from weft.cli import call\ncall({arguments})")
    assert code == 0, text
    assert "weft.cli" in modules and not modules & {"torch", "sklearn", "pandas", "polars", "pyarrow"}
    assert "weft" in text.lower()


@pytest.mark.parametrize("arguments", [["plan", "--help"], ["plan", "--params", "7B", "--gpus", "64xH100"]])
def test_a_plan_of_sizes_never_imports_torch(arguments: list[str]) -> None:
    code, modules, text = loaded(f"from weft.cli import call\ncall({arguments})")
    assert code == 0, text
    assert "weft.estimates.plan" in modules and not modules & {"torch", "sklearn", "pandas", "polars"}


def test_the_data_and_preprocess_steps_never_import_torch() -> None:
    code, modules, text = loaded("import weft, weft.preprocess.ingest, weft.data.plan")
    assert code == 0, text
    assert "pyarrow" in modules and not modules & {"torch", "sklearn"}


def test_what_asks_a_model_imports_nothing_that_only_trains_or_judges() -> None:
    code, modules, text = loaded("import weft.cli.generate, weft.cli.predict, weft.cli.serve")
    assert code == 0, text
    assert "weft.runs.opening" in modules and not modules & LATE and "sklearn" not in modules


def test_public_names_are_frozen() -> None:
    assert sorted(weft.__all__) == ["Pipeline", "WeftError", "load", "train"]
    public = {n for n, v in vars(weft).items() if not n.startswith("_") and getattr(v, "__module__", "") == "weft"}
    assert public == {"Pipeline", "load", "train"}


def test_commands_are_frozen() -> None:
    assert [n for n in app if not n.startswith("-")] == COMMANDS
    files = {"import": "import_checkpoint"}  # import is a word of Python
    stems = sorted(files.get(command, command) for command in COMMANDS)
    assert sorted(p.stem for p in (SOURCE / "cli").glob("*.py") if p.stem != "__init__") == stems


def test_every_error_is_a_weft_error_in_one_tree() -> None:
    tree = {
        n: [b.__name__ for b in v.__bases__]
        for n, v in vars(errors).items()
        if isinstance(v, type) and v.__module__ == "weft.errors"
    }
    assert tree == {
        "WeftError": ["ValueError"], "UsageError": ["WeftError"], "SettingsError": ["WeftError"],
        "DataError": ["WeftError"],
        "TooManyBadRows": ["DataError"], "RunError": ["WeftError"], "CheckpointError": ["RunError"],
        "TrainingError": ["WeftError"],
    }  # fmt: skip
