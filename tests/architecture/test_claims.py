"""What ``weft demo --claims`` lists has tests that are there, and whatever can be asked for is listed."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from test_architecture import loaded

from weft import config, data_settings, training_settings
from weft.cli import app, audit, explain, export
from weft.engine import ENGINES
from weft.models.families import FAMILIES

ROOT = Path(__file__).parents[2]
GROUPS = json.loads((ROOT / "src/weft/cli/claims.json").read_text(encoding="utf-8"))
CLAIMS: list[dict[str, Any]] = [claim for group in GROUPS.values() for claim in group]


def literals(hint: Any) -> set[str]:
    """The words of a Literal, of an optional one too."""
    return {word for part in get_args(hint) for word in ([part] if isinstance(part, str) else literals(part))}


def test_every_claim_has_tests_that_are_there() -> None:
    for claim in CLAIMS:
        assert claim["tests"] and claim["claim"].endswith("."), claim
        for test in claim["tests"]:
            file, *names = test.split("::")
            found: ast.AST = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            for name in names:
                inside = [n for n in ast.iter_child_nodes(found) if getattr(n, "name", None) == name]
                assert inside, f"{test} is not there"
                found = inside[0]
            assert isinstance(found, ast.FunctionDef) and found.name.startswith("test_"), test


def test_whatever_can_be_asked_for_is_claimed() -> None:
    settings: dict[str, Any] = {n: get_type_hints(c) for n, c in vars(config).items() if isinstance(c, type)}
    wanted = {
        "weft": {name for name in app if not name.startswith("-")},
        "target": literals(settings["TargetSettings"]["type"]) | set(get_args(config.Task)) - {"row"},
        "column": set(get_args(data_settings.ColumnType)),
        "family": set(FAMILIES),
        "backbone": literals(settings["ModelSettings"]["backbone"]),
        "cell": literals(settings["ModelSettings"]["cell"]),
        "adapter": literals(settings["ModelSettings"]["adapter"]),
        "fair": literals(get_type_hints(training_settings.FairnessSettings)["how"]),
        "explain": literals(get_type_hints(explain.explain)["method"]),
        "suite": literals(get_type_hints(audit.audit)["suite"]),
        "export": literals(get_type_hints(export.export)["to"]),
        "engine": set(ENGINES),
    }
    covered = {word for claim in CLAIMS for word in claim.get("covers", [])}
    assert covered == {f"{kind} {word}" for kind, words in wanted.items() for word in words}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_they_are_printed_without_torch(form: list[str]) -> None:
    code, modules, text = loaded(f"from weft.cli import call\ncall({['demo', '--claims', *form]})")
    assert code == 0 and not modules & {"torch", "sklearn", "pandas", "polars"}
    assert all(c["claim"] in text and all(t in text for t in c["tests"]) for c in CLAIMS), text
    assert not form or json.loads(text) == GROUPS
