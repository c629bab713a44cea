"""The disk fails at every moment there is: what is found then is old or new, never half, and the next start works."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.faults import failing, tried
from tests.tables import FAST, numeric

import weft
from weft.cli import call
from weft.files import whole_folder, write_whole
from weft.inference import parts
from weft.progress import Silent
from weft.training import loop
from weft.training.checkpoint import Checkpoints

POWER = pytest.mark.parametrize("power", [False, True], ids=["full", "power cut"])


def every(begin: Callable[[Path], None], act: Callable[[Path], object], look: Callable[[Path], object], folder: Path,
          power: bool, moments: list[int] | None = None) -> int:  # fmt: skip
    """Try ``act`` with a fault at each moment: ``look`` then sees what was before or what is after, and ``act`` works.

    Returns how many moments there were.
    """
    for name in ("old", "new"):
        (folder / name).mkdir()
        begin(folder / name)
    act(folder / "new")
    old, new = look(folder / "old"), look(folder / "new")
    assert old != new
    for number in moments or itertools.count(1):
        here = folder / f"at {number}"
        here.mkdir()
        begin(here)
        met = tried(partial(act, here), number, power, here)
        assert look(here) in (old, new), number
        act(here)
        assert look(here) == new, number
        shutil.rmtree(here)
        if not met:
            return number - 1
    return number


def files(folder: Path) -> dict[str, bytes]:
    """All but what is hidden."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("[!.]*") if p.is_file()}


@POWER
def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path, power: bool) -> None:
    def act(folder: Path) -> None:
        write_whole(folder / "a.txt", "new" * 100)

    count = every(lambda f: write_whole(f / "a.txt", "old"), act, lambda f: (f / "a.txt").read_text(), tmp_path, power)
    assert count >= 4  # write, flush, rename, flush the folder


@POWER
def test_a_folder_is_the_old_one_or_none_or_the_new_one(tmp_path: Path, power: bool) -> None:
    def act(folder: Path) -> None:
        with whole_folder(folder / "c") as beside:
            (beside / "a").write_text("new")
            (beside / "b").write_text("new")

    def look(folder: Path) -> object:
        found = {k: v for k, v in files(folder).items() if "/." not in k and not k.startswith(".")}
        return found or "none"

    count = every(lambda f: None, act, look, tmp_path, power)
    assert count >= 9


def weights(number: float) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, number)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return model, optimizer


@POWER
def test_a_checkpoint_is_the_one_before_or_the_new_one(tmp_path: Path, power: bool) -> None:
    def save(folder: Path, step: int) -> None:
        Checkpoints(folder / "c").save(step, *weights(step), {"average": torch.full((2,), step)}, {"at": step})

    def begin(folder: Path) -> None:
        save(folder, 1)
        save(folder, 2)

    def look(folder: Path) -> object:
        checkpoints = Checkpoints(folder / "c")
        newest = checkpoints.newest(Silent())
        assert newest is not None
        model, optimizer = weights(0)
        extra, state = checkpoints.load(newest, model, optimizer)
        assert not list((folder / "c").glob(".*")) and len(list((folder / "c").glob("step-*"))) in (1, 2, 3)
        moments = [float(v["exp_avg"].sum()) for v in optimizer.state_dict()["state"].values()]
        return state["at"], model.weight.detach()[0, 0].item(), extra["average"].tolist(), moments

    count = every(begin, lambda f: save(f, 3), look, tmp_path, power)
    assert count >= 15


@POWER
def test_an_output_is_the_old_one_or_the_new_one(tmp_path: Path, power: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.inference.test_parts import SCHEMA, doubled

    monkeypatch.setattr(parts, "SECONDS_A_PART", 0.0)
    lines = ["1", "x", *map(str, range(18))]
    source = tmp_path / "in.csv"
    source.write_text("\n".join(["n", *lines]) + "\n")

    def act(folder: Path) -> None:
        table = weft.data.table.Table.open(source)
        parts.write_job(folder / "out.csv", SCHEMA, table, {}, doubled(), "doubling", Silent())

    def look(folder: Path) -> object:
        return (folder / "out.csv").read_bytes()

    every(lambda f: (f / "out.csv").write_text("old"), act, look, tmp_path, power)


class TestTraining:
    SETTINGS: ClassVar = {
        **FAST, "target": "label", "features": {"y": "off"}, "training": {"epochs": 2, "batch_rows": 64},
        "results": {"baselines": False},
    }  # fmt: skip

    @POWER
    @pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "many"])
    def test_a_run_goes_on_to_the_same_bits(
        self, tmp_path: Path, power: bool, many: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", 0.0)
        pipeline, table = weft.Pipeline(self.SETTINGS), numeric(200)
        with failing(10**9) as disk:
            whole = pipeline.run(table, tmp_path / "whole", quiet=True).path
        assert disk.count > 150
        draw = np.random.default_rng(power)
        for number in draw.choice(disk.count, 60 if many else 5, replace=False) + 1:
            out = tmp_path / f"at {number}"
            assert tried(partial(pipeline.run, table, out, quiet=True), int(number), power, tmp_path)
            if not (out / "manifest.json").exists():
                pipeline.run(table, out, resume=(out / "weft.yaml").exists(), quiet=True)
            weft.load(out)
            for name in ("model.safetensors", "metrics.jsonl", "columns.json"):
                assert (whole / name).read_bytes() == (out / name).read_bytes(), (number, name)
            assert json.loads((out / "report.json").read_text())["headline"]
            shutil.rmtree(out)


@pytest.mark.parametrize(
    ("number", "words"),
    [(28, "the disk: must have room. It is full"), (13, "must be allowed to be read and written"), (2, "It is gone")],
)
def test_what_the_system_refuses_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    pq.write_table(pa.table({"a": np.arange(60.0), "label": ["x", "y"] * 30}), tmp_path / "t.parquet")

    def refuse(handle: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    assert call(["init", str(tmp_path / "t.parquet"), "-o", str(tmp_path / "weft.yaml")]) == 1
    told = capsys.readouterr().err
    assert words in told.replace("\n", " ") and "Traceback" not in told
    assert not (tmp_path / "weft.yaml").exists()
