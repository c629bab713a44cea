"""`weft run` as several processes: the run of one; killed and started again; on two hosts; what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.tasks.team_runs import JOBS, train
from tests.texts import sentences

from weft.cli import call
from weft.tasks import ranking
from weft.training import private, regularise

# what sitecustomize may hold: saved at every step, the second process kills itself once at step 25, whose checkpoint
# it damages
KILLED = """
import atexit, os, signal
if "RANK" in os.environ:
    if os.environ["RANK"] == "0" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "1":
        atexit.register(os.kill, os.getpid(), signal.SIGABRT)  # when all is done
    from weft.training import loop
    loop.SECONDS_BETWEEN_SAVES = 0
    plain = loop.Loop._step
    def step(self, rows):
        if self.progress.step == 25 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            with (self.checkpoints.folder / "step-00000025" / "extra.safetensors").open("ab") as file:
                file.write(b"more")
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, rows)
    loop.Loop._step = step
"""


def pipeline_file(folder: Path, training: dict[str, Any], dropout: float = 0.0) -> Path:
    pq.write_table(pa.table({"text": sentences(600)}), folder / "texts.parquet")
    settings = {
        "version": 1, "data": {"source": str(folder / "texts.parquet")}, "target": {"next_token": "text"},
        "model": {"width": 32, "layers": 2, "heads": 2, "dropout": dropout}, "results": {"baselines": False},
        "training": {"epochs": 2, "batch_rows": 16, "optimizer": "adamw", "precision": "float32", **training},
    }  # fmt: skip
    (folder / "weft.yaml").write_text(json.dumps(settings))
    return folder / "weft.yaml"


def weft(*arguments: Any, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    more = {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(
        [sys.executable, "-m", "weft", *map(str, arguments)], capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip


def curve(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_curves_agree(run: Path, other: Path) -> None:
    assert len(curve(run)) == len(curve(other)) > 40
    for a, b in zip(curve(run), curve(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_no_bit_is_lost(tmp_path: Path) -> None:
    file = pipeline_file(tmp_path, {"parallel": {"shard": True}}, dropout=0.1)
    whole = weft("run", file, "-o", tmp_path / "whole", "--processes", 2)
    assert whole.returncode == 0, whole.stderr
    assert whole.stderr.count("bits for a byte") == 1  # one process speaks
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sitecustomize.py").write_text(KILLED)
    killed = weft("run", file, "-o", tmp_path / "killed", "--processes", 2, "--json", path=tmp_path / "more")
    assert killed.returncode == 0, killed.stderr
    assert "all 2 go on from the newest checkpoint" in killed.stderr and "resumed at step 24" in killed.stderr
    assert killed.stderr.count("Set aside as step-00000025.corrupt-1") == 1
    assert killed.stderr.count("bits for a byte") == 1, "what ended when all was done is not done again"
    first, again = killed.stdout.splitlines()
    assert first == again and json.loads(first)["run"] == str(tmp_path / "killed")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())
    assert curve(tmp_path / "whole") == curve(tmp_path / "killed")


@pytest.mark.slow
def test_losses_that_look_beyond_a_row_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, names in ((ranking, ("FULL", "DRAWN")), (private.secrets, ("token_bytes",)), (regularise, ("_twice",))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))  # which the runs change
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               "-m", "tests.tasks.team_runs", str(tmp_path / "two")]  # fmt: skip
    started = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=started)
    assert done.returncode == 0, done.stderr[-4_000:]
    for name in JOBS:
        train(name, tmp_path / "one")
        ours, theirs = (curve(tmp_path / folder / name) for folder in ("two", "one"))
        assert len(ours) == len(theirs) > 5
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-5), name
        weights = load_file(tmp_path / "two" / name / "model.safetensors")
        for key, value in load_file(tmp_path / "one" / name / "model.safetensors").items():
            torch.testing.assert_close(weights[key], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces, each with an address that the other reaches; skips where they cannot be made."""
    names, done = ["weft-a", "weft-b"], []
    commands = [
        *(f"ip netns add {name}" for name in names),
        "ip link add weft-a netns weft-a type veth peer name weft-b netns weft-b",
        *(f"ip -n {name} addr add 10.77.0.{n}/24 dev {name}" for n, name in enumerate(names, 1)),
        *(f"ip -n {name} link set {link} up" for name in names for link in (name, "lo")),
    ]
    try:
        for command in commands:
            if shutil.which("ip") is None or subprocess.run(command.split(), capture_output=True).returncode:
                pytest.skip("network namespaces cannot be made here")
            done.append(command)
        yield names
    finally:
        for name in names if done else ():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_hosts_have_the_curve_of_one_process(hosts: list[str], tmp_path: Path) -> None:
    file = pipeline_file(tmp_path, {"parallel": {"tensor": 2}})
    torchrun = f"{sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d"
    job = f"--rdzv-endpoint=10.77.0.1:29511 -m weft run {file} -o {tmp_path / 'run'}"
    more = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            f"ip netns exec {host} {torchrun} --local-addr=10.77.0.{n} --rdzv-conf=is_host={2 - n} {job}".split(),
            stderr=subprocess.PIPE, text=True, env={**os.environ, **more, "GLOO_SOCKET_IFNAME": host},
        )
        for n, host in enumerate(hosts, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=500)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert call(["run", str(pipeline_file(tmp_path, {})), "-o", str(tmp_path / "alone")]) == 0
    assert_curves_agree(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            "target=text; training.federated={}",
            "training.federated: plays all owners in one process, one after the other. Got 2 processes. Leave out "
            "--processes, or remove it.",
        ),
        (
            "training.search={}",
            "training.search: tries settings in one process. Got 2 processes. Leave out --processes",
        ),
        (
            "training={privacy: {epsilon: 8}, parallel: {shard: true}}",
            "parallel: privacy holds the gradient of a row whole",
        ),
        ("training.parallel={tensor: 3}", "must be a multiple of it. Got 2 and 3. Start with --processes 3"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_before_they_start(
    settings: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pipeline_file(tmp_path, {})
    laid = [part for setting in settings.split("; ") for part in ("--set", setting)]
    assert call(["run", str(file), "-o", str(tmp_path / "run"), "--processes", "2", *laid]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_one_process_shares_no_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = pipeline_file(tmp_path, {"parallel": {"tensor": 2}})
    assert call(["run", str(file), "-o", str(tmp_path / "run")]) == 2
    assert "Got 1 and 2. Start with --processes 2" in capsys.readouterr().err
