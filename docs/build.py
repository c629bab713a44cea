"""Makes the pages of the documentation: ``uv run --group docs python docs/build.py`` writes build/site.

The pages are those one reads in the repository (README, docs, examples, results), with their links turned to those of
the site; the reference of settings and commands is made of the code. Nothing of the site asks another machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from weft.cli import app
from weft.config import Settings

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def pages(root: Path = ROOT) -> dict[Path, Path]:
    """Each page of the repository, and its place in the site; both relative."""
    found = {Path("README.md"): Path("index.md"), Path("README.zh.md"): Path("zh/index.md")}
    found |= {Path("CHANGELOG.md"): Path("changelog.md"), Path("benchmarks/RESULTS.md"): Path("results.md")}
    for path in sorted(root.glob("docs/**/*.md")):
        found[path.relative_to(root)] = path.relative_to(root / "docs")
    for path in sorted(root.glob("examples/**/README*.md")):
        name = path.parent.name if path.parent != root / "examples" else "index"
        found[path.relative_to(root)] = Path("zh" if ".zh." in path.name else ".", "examples", f"{name}.md")
    return found


def with_links_of_the_site(text: str, page: Path, places: dict[Path, Path]) -> str:
    """A link to a page leads to its place; one to another file of the repository keeps only its words."""

    def turned(link: re.Match[str]) -> str:
        target, _, part = link[3].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        path = Path(os.path.normpath(page.parent / target))
        path = path / "README.md" if (ROOT / path).is_dir() else path
        if path in places:
            to = os.path.relpath(places[path], places[page].parent)
            return f"[{link[2]}]({to}{'#' + part if part else ''})"
        if link[1] and (ROOT / path).exists():  # a picture goes along
            return f"![{link[2]}]({os.path.relpath(path.relative_to('docs'), places[page].parent)})"
        return link[2]

    return LINK.sub(turned, text)


def parts(schema: dict[str, Any]) -> dict[str, str]:
    """Each part of the file by its class in the schema: the keys that lead to it, where it is first met from above."""
    found: dict[str, str] = {}
    levels = [("", schema["properties"])]
    for path, fields in levels:
        for key, field in fields.items():
            for name in re.findall(r"'#/\$defs/(\w+)'", str(field)):
                if name not in found:
                    found[name] = f"{path}{key}{'.COLUMN' if 'additionalProperties' in field else ''}"
                    levels.append((f"{found[name]}.", schema["$defs"][name]["properties"]))
    order = list(schema["properties"])
    return dict(sorted(found.items(), key=lambda part: (order.index(part[1].partition(".")[0]), part[1].count("."))))


def with_mathml(text: str) -> str:
    """Equations as MathML, which browsers draw by themselves; code keeps its dollars."""

    def drawn(part: re.Match[str]) -> str:
        block, line = part["block"], part["line"]
        if block is None and line is None:
            return part[0]
        return convert(block or line, display="block" if block else "inline")

    return re.sub(r"```.*?```|`[^`]*`|\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\s][^$]*)\$", drawn, text, flags=re.S)


def kind(schema: dict[str, Any], places: dict[str, str]) -> str:
    """What may stand there, in words and marks of the schema."""
    if "$ref" in schema:
        path = places[schema["$ref"].rsplit("/", 1)[1]]
        return f"[{path}](#{path.lower().replace('.', '')})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(s, places) for s in schema["anyOf"] if s.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{v}`" for v in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'], places)}" if "items" in schema else "list"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"column: {kind(schema['additionalProperties'], places)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {schema[word]:,}" for word, sign in signs.items() if word in schema)
    words = {"boolean": "true, false", "string": "text", "integer": "whole number", "number": "number"}
    return " ".join(filter(None, (words.get(schema.get("type", ""), "any"), bounds)))


def settings_page() -> str:
    """The reference of the pipeline file, of its schema."""
    schema = Settings.model_json_schema()
    places = parts(schema)
    assert set(places) == set(schema["$defs"])
    lines = ["# Settings of a pipeline file", "", "Every key but `data.source` and `target` has a default. "
             "`weft schema -o weft.schema.json` writes the same for editors, which then complete and explain each key.",
             ""]  # fmt: skip
    for name, path in {"": "The whole file", **places}.items():
        part = schema["$defs"][name] if name else schema
        lines += [f"## {path}", "", " ".join(part.get("description", "").split()), ""]
        lines += ["| key | is | default | meaning |", "|---|---|---|---|"]
        for key, field in part["properties"].items():
            default = field.get("default")
            said = "" if default is None or isinstance(default, dict) else f"`{str(default).lower()}`"
            said = "needed" if key in part.get("required", []) else said
            meant = field.get("description") or schema["$defs"].get(field.get("$ref", "").rsplit("/", 1)[-1], {}).get(
                "description", ""
            )
            cells = [f"`{key}`", kind(field, places), said, " ".join(meant.split())]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def build(out: Path) -> Path:
    """Writes the pages into ``out/pages`` and the site into ``out/site``, which is returned."""
    places, staged = pages(), out / "pages"
    shutil.rmtree(staged, ignore_errors=True)
    made = {Path("reference/settings.md"): settings_page(),
            Path("reference/commands.md"): app.generate_docs(output_format="markdown")}  # fmt: skip
    for page, place in places.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        made[place] = with_links_of_the_site(with_mathml(text) if "$$" in text else text, page, places)
    for place, text in made.items():
        (staged / place).parent.mkdir(parents=True, exist_ok=True)
        (staged / place).write_text(text, encoding="utf-8")
    for picture in ROOT.glob("docs/**/*.svg"):
        (staged / (at := picture.relative_to(ROOT / "docs"))).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, staged / at)
    subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", ROOT / "mkdocs.yml"], check=True
    )
    return out / "site"


if __name__ == "__main__":
    print(build(ROOT / "build"))
