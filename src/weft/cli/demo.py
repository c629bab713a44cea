"""``weft demo``"""

from __future__ import annotations

import ast
import csv
import shutil
import sysconfig
import textwrap
import warnings
from dataclasses import asdict
from importlib.resources import files
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from cyclopts import Parameter
from PIL import Image

from weft import config
from weft.cli import Json, Out, answer, typed
from weft.data.split import TEST
from weft.data.table import Table
from weft.errors import UsageError
from weft.files import write_whole
from weft.progress import Spoken
from weft.results.metrics import METRICS

if TYPE_CHECKING:
    from weft.runs.run import Run

_FILE = """\
# What weft demo runs: 569 tumours, 30 measurements of each, and the diagnosis (Wolberg 1995).
version: 1
data:
  source: {source}
target: {{column: diagnosis, positive: malignant}}
"""

_DIGITS = """\
# What weft demo sees: 1,797 handwritten digits of 8 x 8 pixels (Alpaydin & Kaynak 1998), a folder for each digit.
version: 1
data:
  source: {source}
target: {{column: label, type: class}}
training: {{epochs: 10}}
"""
_TEXTS = """\
# What weft demo pretrains: the docstrings of the Python standard library, a text a row.
version: 1
data:
  source: {source}
target: {{next_token: text}}
features: {{text: {{type: text, max_tokens: 128, vocabulary: 2048}}}}
model: {{width: 128, layers: 4}}
training: {{minutes: {minutes}}}
"""
MINUTES = 1.0
_PROMPT, _NEXT = "Return the number of", "Return the"
_MOST_LETTERS = 3_000_000
_ASIDE = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}


def demo(
    *, out: Out = Path("weft-demo"), claims: Annotated[bool, Parameter(negative=())] = False, json: Json = False
) -> None:
    """Real data that is on every machine, end to end: a diagnosis from 30 measurements of a tumour, handwritten digits
    read, and a language model pretrained in a minute on the docstrings of the Python standard library.

    Args:
        out: The folder for the data, the pipeline files, the runs and their reports; a former demo is replaced.
        claims: Run nothing: list what Weft claims to do, each with the tests that fail where it does not.
    """
    if claims:
        _claims(json)
        return
    if out.exists() and any(out.iterdir()) and not (out / "weft.yaml").exists():
        raise UsageError(
            f"{out}: must be new, empty or a former demo. It holds something else. Choose another with -o."
        )
    for run in (out / "run", out / "digits", out / "digits-run", out / "language"):
        shutil.rmtree(run, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    say = Spoken()
    done, lines = _table(out, say)
    if not json:
        print("\n".join(lines))
    seen, lines = _digits(out, say)
    if not json:
        print("\n".join(lines))
    written, more = _language(out, say)
    answer(
        json,
        {"run": str(done.path), **done.figures, "digits": {"run": str(seen.path), **seen.figures}, "language": written},
        [
            *more,
            "",
            f"reports: {done.path / 'report.html'}, {seen.path / 'report.html'} and {written['run']}/report.html "
            "(open them in a browser)",
            f"next:    {typed('predict', done.path, out / 'tumours.csv', '-o', 'predictions.csv')}",
            f'         {typed("generate", written["run"])} "{_NEXT}" --seed 2',
            "         weft init YOUR_TABLE.csv      your own table: CSV, JSON Lines, Parquet or Arrow; or a text.txt",
        ],
    )


def _claims(json: bool) -> None:
    """What is claimed, in groups, and the tests of each; ``tests/architecture/test_claims.py`` holds the list to it."""
    groups = loads((files("weft.cli") / "claims.json").read_text(encoding="utf-8"))
    lines = []
    for group, found in groups.items():
        lines += ["", group]
        for claim in found:
            lines += [f"  {claim['claim']}", *(f"      {test}" for test in claim["tests"])]
    answer(
        json, groups, [*lines[1:], "", f'{sum(map(len, groups.values()))} claims; try one: uv run pytest -m "" TEST']
    )


def _table(out: Path, say: Spoken) -> tuple[Run, list[str]]:
    """A column of a table predicted; the run, and what is said of it."""
    from weft import pipeline  # here and below, as torch comes with it, which the list of claims does not need

    file, table, run = out / "weft.yaml", out / "tumours.csv", out / "run"
    _write_table(table)
    write_whole(file, _FILE.format(source=table))
    say.console.print("Weft turns every column of a table into tokens and lets one large model read the row.")
    say.console.print("The table: tumours of 569 patients. The question: is it malignant?\n")
    done = pipeline.run(config.load(file), out=run, say=say)
    unseen = np.flatnonzero(np.load(run / "split.npy", allow_pickle=False) == TEST)[:6]
    few = Table.open(table).head(569).take(unseen)
    rows = [
        f"  row {i}: {p['prediction']:<10} {p['probability']:>6.1%} sure   truly {t}"
        for i, p, t in zip(unseen, done.predict(few).to_pylist(), few.column("diagnosis").to_pylist(), strict=True)
    ]
    return done, [*_beside(done), "Patients it never saw:", *rows, ""]


def _beside(done: Run) -> list[str]:
    """The model's accuracy beside that of the simple ones."""
    metric = METRICS["accuracy"]
    models = [
        f"  {m['title']:<32} {m['metrics'][metric.key]['value']:.1%}  "
        f"({m['metrics'][metric.key]['low']:.1%} to {m['metrics'][metric.key]['high']:.1%})"
        for m in done.figures["models"]
    ]
    return ["", f"{metric.title} on the {done.figures['rows_judged']} test rows, with 95 % intervals:", *models, ""]


def _digits(out: Path, say: Spoken) -> tuple[Run, list[str]]:
    """Pictures in folders by their class, told apart; the run, and what is said of it."""
    from sklearn.datasets import load_digits

    from weft import pipeline

    file, folder = out / "digits.yaml", out / "digits"
    bunch = load_digits()
    for number, (picture, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        path = folder / str(digit) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 255 / 16).astype(np.uint8)).save(path)
    write_whole(file, _DIGITS.format(source=folder))
    say.console.print("Pictures: 1,797 handwritten digits, in a folder for each. Which digit is it?\n")
    done = pipeline.run(config.load(file), out=out / "digits-run", say=say)
    return done, _beside(done)


def _language(out: Path, say: Spoken) -> tuple[dict[str, Any], list[str]]:
    """A language model pretrained; what it wrote, and what is said of it."""
    from weft import pipeline
    from weft.cli.generate import bars, readable
    from weft.inference.generate import next_tokens, write
    from weft.inference.sampling import Sampling
    from weft.models.pretrained import load_language_model

    file, texts, run = out / "language.yaml", out / "docstrings.jsonl", out / "language"
    count = _write_docstrings(texts)
    write_whole(file, _TEXTS.format(source=texts, minutes=MINUTES))
    say.console.print(
        f"Texts: the {count:,} docstrings of the Python standard library. A model learns to write them.\n"
    )
    done = pipeline.run(config.load(file), out=run, say=say)
    model, tokenizer = load_language_model(run)
    text = write(model, tokenizer, [_PROMPT], Sampling(max_tokens=40, temperature=0.7, seed=1))[0].text
    following, rest = next_tokens(model, tokenizer, _NEXT, 8, Sampling())
    metric = METRICS["bits_per_byte"]
    models = [f"  {m['title']:<32} {m['metrics'][metric.key]['value']:.3f}" for m in done.figures["models"]]
    found = {
        "run": str(run), "headline": done.figures["headline"], "prompt": _PROMPT, "text": text,
        "next": [asdict(token) for token in following], "rest": rest,
    }  # fmt: skip
    return found, [
        "",
        f"{metric.title} of docstrings it never saw ({metric.meaning}):",
        *models,
        "",
        "It goes on from a beginning:",
        *textwrap.wrap(_PROMPT + text, 100, initial_indent="  ", subsequent_indent="  "),
        "",
        f'What may come after "{_NEXT}":',
        *("  " + line for line in bars([(readable(t.text), t.probability) for t in following], rest)),
    ]


def _write_docstrings(path: Path) -> int:
    """The docstrings of modules, classes and functions that every installation of Python carries; how many."""
    root, texts, letters = Path(sysconfig.get_path("stdlib")), [], 0
    for file in sorted(root.rglob("*.py")):
        if letters >= _MOST_LETTERS or _ASIDE & set(file.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError):  # a file of another version; the others suffice
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                texts.append({"module": str(file.relative_to(root)), "text": text})
                letters += len(text)
    texts = [row for row in texts if len(row["text"]) > 40]
    write_whole(path, "".join(dumps(row, ensure_ascii=False) + "\n" for row in texts))
    return len(texts)


def _write_table(path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*bunch.feature_names, "diagnosis"])
        for row, target in zip(bunch.data, bunch.target, strict=True):
            writer.writerow([*row, bunch.target_names[target]])
