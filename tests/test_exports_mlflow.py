"""A run as a model of MLflow answers as the release did that trained it, wherever its folder lies."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tests.tables import FAST, pictured

import weft
from weft.cli import call

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
KEPT = Path(__file__).parent / "releases" / "0.1.0"
ROWS = pd.read_csv(KEPT / "rows.csv")


@pytest.fixture
def mlflow():
    return pytest.importorskip("mlflow")


@pytest.mark.parametrize("kind", ["class", "number"])
def test_a_moved_folder_answers_as_its_release_did(kind, mlflow, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("uv.lock").write_text("version = 1\n")
    Path("pyproject.toml").write_text('[project]\nname = "theirs"\nversion = "1"\n')
    assert call(["export", str(KEPT / kind), "--to", "mlflow", "-o", "out"]) == 0
    said = capfd.readouterr()
    assert "mlflow.pyfunc.load_model" in said.out and said.err == ""
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"out", "uv.lock", "pyproject.toml"}  # no store of runs was made
    assert not (tmp_path / "out" / "uv.lock").exists()  # the project it was typed in stays there
    model = mlflow.pyfunc.load_model(str(shutil.move("out", "moved")))
    expected = pd.DataFrame(json.loads((KEPT / f"{kind}.json").read_text("utf-8")))
    pd.testing.assert_frame_equal(model.predict(ROWS), expected, check_dtype=False, check_index_type=False, atol=1e-5)
    turned = model.predict(ROWS.iloc[::-1].astype(object))
    pd.testing.assert_frame_equal(turned.iloc[::-1], expected, check_dtype=False, check_index_type=False, atol=1e-5)
    assert len(model.predict(model.input_example)) == 1


def test_what_lies_in_the_folder(mlflow, tmp_path):
    out = tmp_path / "out"
    assert call(["export", str(KEPT / "class"), "--to", "mlflow", "-o", str(out)]) == 0
    described = yaml.safe_load((out / "MLmodel").read_text("utf-8"))
    names = [column["name"] for column in json.loads(described["signature"]["inputs"])]
    assert sorted(names) == ["colour", "price", "review", "when"]
    assert [c["name"] for c in json.loads(described["signature"]["outputs"])][:2] == ["prediction", "probability"]
    assert f"weft[mlflow]=={version('weft')}" in (out / "requirements.txt").read_text("utf-8").splitlines()
    assert not [p for p in out.rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]
    with pytest.raises(mlflow.exceptions.MlflowException, match="price"):
        mlflow.pyfunc.load_model(str(out)).predict(ROWS.drop(columns="price"))


def test_rows_with_pictures_go_too(mlflow, tmp_path):
    table = pictured(80)
    run = weft.train(table, "side", tmp_path / "run", quiet=True, **FAST)
    assert call(["export", str(run.path), "--to", "mlflow", "-o", str(tmp_path / "out")]) == 0
    rows = table.slice(0, 9).to_pandas()
    there = mlflow.pyfunc.load_model(str(tmp_path / "out")).predict(rows)
    pd.testing.assert_frame_equal(there, run.predict(rows))


@pytest.mark.slow
def test_mlflow_is_told_not_to_report_before_it_is_imported(mlflow, tmp_path):
    code = (
        "import os, sys\n[os.environ.pop(n, None) for n in ('CI', 'PYTEST_CURRENT_TEST', 'PYTEST_VERSION')]\n"
        "from weft.cli import call\n"
        f"call({['export', str(KEPT / 'class'), '--to', 'mlflow', '-o', str(tmp_path / 'out')]})\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "import mlflow.telemetry.client as c\n"
        "assert is_telemetry_disabled() and c.get_telemetry_client() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("run", "words"), [("writer", "a run of next_token"), ("items", "a run of ranking"), ("class", "weft[mlflow]")]
)
def test_what_cannot_be_written_says_why(run, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert call(["export", str(KEPT / run), "--to", "mlflow", "-o", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
