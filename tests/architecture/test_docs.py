"""What the pages name is there."""

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from weft import config
from weft.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]
)
yaml = YAML(typ="safe")


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


def valid(block: str, page: Path) -> None:
    """A block is a file, the end of one, or lines each of which is an example."""
    whole = yaml.load(block)
    needed = "".join(f"\n{k}" for k in ("data: {source: a.csv}", "target: y") if k.partition(":")[0] not in whole)
    config.loads(block + needed, str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_pipeline_files_of_a_page_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        keys = re.findall(r"^(\w+):", block, re.M)
        for part in [block] if len(keys) == len(set(keys)) else block.splitlines():
            valid(part, page)


def commands(page: Path) -> list[str]:
    """What a page types, without the remarks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


PAIRS = [(ROOT / "README.md", ROOT / "README.zh.md")]
PAIRS += [(ROOT / "docs" / page.name, page) for page in sorted(ROOT.glob("docs/zh/*.md"))]
PAIRS += [(page.with_name("README.md"), page) for page in sorted(ROOT.glob("examples/**/README.zh.md"))]


def test_every_page_is_there_in_both_languages() -> None:
    english, chinese = ({page.name for page in ROOT.glob(f"docs/{part}*.md")} for part in ("", "zh/"))
    assert english - {"glossary.md"} == chinese, "each page but the glossary has its twin in docs/zh"
    examples = {page.parent for page in ROOT.glob("examples/**/README.md")}
    assert examples == {page.parent for page in ROOT.glob("examples/**/README.zh.md")}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p[1].relative_to(ROOT)))
def test_a_page_has_the_same_commands_and_figures_in_both_languages(pair: tuple[Path, Path]) -> None:
    english, chinese = (commands(page) for page in pair)
    figures = [re.findall(r"0\.\d+", page.read_text(encoding="utf-8")) for page in pair]
    assert english == chinese and figures[0] == figures[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_that_a_page_types_exists(page: Path) -> None:
    words = {line.split()[1] for line in commands(page) if line.startswith("weft ")}
    assert words <= set(app)
