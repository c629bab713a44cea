"""What the README and the pages say is typed and run: every command, and every block of Python."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tests.pages.setups import FAST, FEW, SETUPS

from weft.cli import call

ROOT = Path(__file__).parents[2]
APART = {
    "serving.md": "tests/server asks a server that listens",
    "cluster.md": "tests/engine and tests/inference/test_delivery.py run what it types, on clusters and stores",
    "textbook.md": "tests/reference builds what it quotes",
}
PAGES = [ROOT / "README.md", *(page for page in sorted(ROOT.glob("docs/*.md")) if page.name not in APART)]
PAGES += sorted(ROOT.glob("examples/*/README.md"))
ELSEWHERE = {
    "python -m pip": "needs an index of packages",
    "uv ": "needs an index of packages, or is this very suite",
    "weft import hf://": "needs the hub",
    "weft serve": "does not end: tests/server",
    "WEFT_API_KEY=... weft serve": "does not end: tests/server",
}
BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.S)


def sections() -> list[tuple[str, str, list[str]]]:
    """Name, text and YAML blocks of each part of a page that types; parts share a folder unless set up apart."""
    found = []
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        parts: dict[str, str] = {}
        where = name
        for part in re.split(r"^(?=## )", text, flags=re.M):
            titled = f"{name}: {part.splitlines()[0].removeprefix('## ')}"
            where = titled if titled in SETUPS else name if titled.startswith(f"{name}: #") else where
            parts[where] = parts.get(where, "") + part
        found += [(n, t, re.findall(r"```yaml\n(.*?)```", t, re.S)) for n, t in parts.items() if typed(t)]
    return found


def typed(text: str) -> list[tuple[str, str]]:
    """Each command without its remark, and each block of Python, in their order."""
    lines: list[tuple[str, str]] = []
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            lines.append((kind, block))
        else:
            whole = re.sub(r"\\\n\s*", "", block)
            lines += [(kind, line.strip()) for line in whole.splitlines() if line.strip()]
    return [(k, t) for k, t in lines if k == "python" or not t.startswith(tuple(ELSEWHERE))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "blocks"), sections(), ids=lambda v: v if isinstance(v, str) and len(v) < 60 else ""
)
def test_what_a_page_types_runs(name, text, blocks, tmp_path, monkeypatch) -> None:
    assert name in SETUPS, f"{name} types commands: tests/pages/setups.py says beside which files"
    monkeypatch.chdir(tmp_path)
    if name.startswith("examples/"):
        shutil.copytree((ROOT / name).parent, tmp_path, dirs_exist_ok=True)
    SETUPS[name](blocks)
    names: dict[str, object] = {}
    if (tmp_path / "reviews.csv").exists():
        names = {"table": pd.read_csv("reviews.csv"), "new_rows": pd.read_csv("new.csv")}
    for kind, line in typed(text):
        monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
        if kind == "python":
            exec(compile(line, name, "exec"), names)
            continue
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        if words[0] != "weft":
            if words[0] != "python" and shutil.which(words[0]) is None:
                pytest.skip(f"{words[0]} is not on this machine")
            words[0] = sys.executable if words[0] == "python" else words[0]
            subprocess.run(
                shlex.join(words) if words[0] == sys.executable else line, shell=True, check=True, env=os.environ
            )
            continue
        more = FAST if words[1] == "run" else FEW if "early" in words else []
        assert call(words[1:] + more) == 0, line
