"""Several processes that train one model: the curve and the weights of one process, whatever each of them holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.team_job import VOCABULARY, Stopped, train

from weft.models.checkpoints import save_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig

OTHER = {"qk_norm": True, "biases": "all", "norm": "layer", "feed_forward": "gelu", "groups": 2}
TWO: dict[str, dict[str, Any]] = {
    "rows": {"accumulate": 2},
    "shard": {"shard": True, "checkpoint_activations": True},
    "tensor": {"tensor": 2, "model": OTHER},
    "muon": {"shard": True, "optimizer": "muon", "kind": "float32"},
}
FOUR: dict[str, dict[str, Any]] = {
    "rows": {},
    "shard": {"shard": True, "model": OTHER},
    "both": {"shard": True, "tensor": 2, "model": OTHER},
    "rows and tensor": {"tensor": 2},
    "muon": {"shard": True, "tensor": 2, "optimizer": "muon", "kind": "float32"},
}


def launch(processes: int, folder: Path, jobs: dict[str, dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "-m", "tests.training.team_job", str(folder), json.dumps(jobs)]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4_000:]


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_as_one(folder: Path, jobs: dict[str, dict[str, Any]], alone: Path) -> None:
    for name, job in jobs.items():
        one = train(alone / name, {k: v for k, v in job.items() if k not in ("shard", "tensor")})
        ours, theirs = records(folder / name), records(alone / name)
        assert len(ours) == len(theirs) == 19
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-5), name
        weights = load_file(folder / name / "weights.safetensors")
        for key, value in one.model.state_dict().items():
            torch.testing.assert_close(weights[key], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("processes", "jobs"), [(2, TWO), pytest.param(4, FOUR, marks=pytest.mark.slow)], ids=["two", "four"]
)
def test_the_curve_and_the_weights_are_those_of_one_process(
    processes: int, jobs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    shape = TransformerConfig(16, 2, 4, attention="writing")
    save_hf(LanguageModel(LanguageConfig(shape, VOCABULARY)), tmp_path / "checkpoint")
    jobs = jobs | {"from": {"shard": True, "from": str(tmp_path / "checkpoint")}}
    launch(processes, tmp_path / "together", jobs)
    assert_as_one(tmp_path / "together", jobs, tmp_path / "alone")


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    job = {"shard": True, "optimizer": "muon", "kind": "float32", "model": OTHER}
    with pytest.raises(Stopped):
        train(tmp_path / "run", {**job, "stop": 4})
    for processes, more in ((2, {"stop": 7}), (4, {"stop": 11, "tensor": 2})):
        launch(processes, tmp_path, {"run": {**job, **more}})
    folder = tmp_path / "run" / "checkpoints" / "step-00000011"
    assert len(list(folder.glob("model*.safetensors"))) == 4  # each process wrote its pieces, and nobody pickled
    assert {f.suffix for f in folder.iterdir()} == {".safetensors", ".json"}
    train(tmp_path / "run", job)
    assert records(tmp_path / "run")[-1]["step"] == 15
    train(tmp_path / "whole", job)
    for a, b in zip(records(tmp_path / "run"), records(tmp_path / "whole"), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


@pytest.mark.slow
def test_as_many_processes_go_on_with_the_same_bits_dropout_included(tmp_path: Path) -> None:
    jobs = {"rows": {"dropout": 0.3}, "shard": {"dropout": 0.3, "shard": True}}
    launch(2, tmp_path, jobs | {f"{name} stopped": {**job, "stop": 7} for name, job in jobs.items()})
    assert not (tmp_path / "rows stopped" / "weights.safetensors").exists()
    launch(2, tmp_path, {f"{name} stopped": job for name, job in jobs.items()})
    for name in jobs:
        whole, resumed = (load_file(tmp_path / f / "weights.safetensors") for f in (name, f"{name} stopped"))
        assert all(torch.equal(resumed[key], value) for key, value in whole.items())
        assert records(tmp_path / name) == records(tmp_path / f"{name} stopped")


def test_activations_computed_again_are_the_same_bits(tmp_path: Path) -> None:
    kept = train(tmp_path / "kept", {"dropout": 0.2})
    again = train(tmp_path / "again", {"dropout": 0.2, "checkpoint_activations": True})
    assert all(map(torch.equal, kept.model.state_dict().values(), again.model.state_dict().values()))
    assert records(tmp_path / "kept") == records(tmp_path / "again")
