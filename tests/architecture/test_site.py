"""The documentation as a site: whole, closed, and made of the code."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from weft.cli import app
from weft.config import Settings

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
assert _spec and _spec.loader
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


def named(part: object) -> set[str]:
    """Every page of the navigation."""
    if isinstance(part, str):
        return {part}
    return set().union(*(named(p) for p in (part.values() if isinstance(part, dict) else part)))  # type: ignore


def test_every_page_is_in_the_navigation() -> None:
    nav = YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    made = {"reference/settings.md", "reference/commands.md"}
    places = made | {str(place) for place in build.pages().values()}
    assert named(nav) == places, "mkdocs.yml names every page in its nav, and no other"


def test_the_reference_names_every_setting_and_says_what_it_is() -> None:
    page, schema = build.settings_page(), Settings.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for key in part["properties"]:
            row = re.search(rf"^\| `{key}` \| (.+) \| .* \| (.+) \|$", page, re.M)
            assert row and "any" not in row[1].split(), f"{part['title']}.{key}"


class Outside(HTMLParser):
    """What a page loads from another machine, and where it leads to in the site."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        address = found.get("src") or (found.get("href") if tag in ("a", "link") else None) or ""
        if tag == "a" and not re.match(r"[a-z]+:|//", address):
            self.links.append(address)
        elif re.match(r"(https?:)?//", address) and tag != "a" and found.get("rel") != "canonical":
            self.loaded.append(address)


@pytest.mark.slow
def test_the_site_is_built_whole_and_asks_no_other_machine() -> None:
    site = build.build(ROOT / "build")
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for command in app:
        assert command.startswith("-") or f"weft {command}" in commands
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        (parser := Outside()).feed(text)
        assert not parser.loaded, page
        for link in parser.links if page.name != "404.html" else ():
            path, _, part = link.partition("#")
            leads = (page.parent / path if path else page).resolve()
            leads = leads / "index.html" if leads.is_dir() else leads
            assert leads.exists(), f"{page.relative_to(site)} leads to {link}"
            if part and leads.suffix == ".html":
                assert f'id="{part}"' in leads.read_text(encoding="utf-8"), f"{page.relative_to(site)}: {link}"
