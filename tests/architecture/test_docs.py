"""What the pages name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def names_in(file: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tests_files_and_links_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", text):
        found = list(ROOT.glob(f"tests/**/{file}"))
        assert found and name in names_in(found[0]), f"{file}::{name}"
    for name in re.findall(r"`((?:benchmarks|docs|tests|src)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("language", ["README.md", "README.zh.md"])
def test_the_pipeline_file_of_the_readme_is_valid(language: str) -> None:
    from weft import config

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / language).read_text(encoding="utf-8"), re.S)
    assert blocks
    for block in blocks:
        for line in [block] if "data:" in block else block.splitlines():
            config.loads(line if "data:" in line else f"{line}\ndata: {{source: a.csv}}\ntarget: y", language)


def test_both_readmes_hold_the_same_commands_and_figures() -> None:
    english, chinese = (
        re.findall(r"^(?:weft \w+[^#\n]*|python -m pip[^\n]*)", (ROOT / f).read_text(encoding="utf-8"), re.M)
        for f in ("README.md", "README.zh.md")
    )
    assert [c.strip() for c in english] == [c.strip() for c in chinese] and len(english) >= 7
    figures = [re.findall(r"0\.\d+", (ROOT / f).read_text(encoding="utf-8")) for f in ("README.md", "README.zh.md")]
    assert figures[0] == figures[1]


def test_every_command_that_the_readme_types_exists() -> None:
    from weft.cli import app

    words = re.findall(r"^(?:uv run )?weft (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert words and set(words) <= set(app)
