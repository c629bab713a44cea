"""What is installed with Weft is a list that somebody looked at, and nothing of it is used to run code of a file."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS_CODE = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}


def installed() -> list[str]:
    """Name and version of everything that Weft and its extras need, from the lock file alone."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    packages: dict[str, list[dict]] = {}
    for package in lock:
        packages.setdefault(package["name"], []).append(package)
    wanted, seen = ["weft"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        for package in packages[name]:
            needs = [*package.get("dependencies", ())]
            needs += [need for extra in package.get("optional-dependencies", {}).values() for need in extra]
            wanted += [need["name"] for need in needs]
    return sorted(f"{p['name']} {p['version']}" for name in seen - {"weft"} for p in packages[name])


def test_what_is_installed_was_looked_at() -> None:
    listed = (ROOT / ".ci" / "dependencies.txt").read_text(encoding="utf-8").split("\n")
    known = [line for line in listed if line and not line.startswith("#")]
    new, gone = set(installed()) - set(known), set(known) - set(installed())
    assert not new, (
        f"look at {sorted(new)}: who keeps it, its licence, what it may do; then add it to .ci/dependencies.txt"
    )
    assert not gone and known == sorted(known), f"no longer in uv.lock: {sorted(gone)}; or not in order"


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_here_runs_code_of_a_file(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {name.split(".")[0] for name in names} & RUNS_CODE, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            asked = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert name not in CALLS and name not in ("torch.load", "torch.hub.load"), (
                f"{path.name}:{node.lineno}: {name}"
            )
            assert asked.get("trust_remote_code", "False") == "False", f"{path.name}:{node.lineno}"
            assert asked.get("allow_pickle", "False") == "False", f"{path.name}:{node.lineno}"
