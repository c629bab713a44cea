"""A rehearsal is the run itself, and what it took is carried over to the whole table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from weft.cli import call
from weft.estimates import rehearsal
from weft.estimates.rehearsal import Rehearsed, Watching, carried_over

USED = {
    "preprocess": {"seconds": 2.0, "cpu_seconds": 1.0, "peak_memory": 600e6},
    "model": {"seconds": 23.0, "cpu_seconds": 11.5, "peak_memory": 900e6},
    "results": {"seconds": 4.0, "cpu_seconds": 2.0, "peak_memory": 800e6},
}
TOOK = ((0.2, 0.1), (20.0, 10.0))
TOLD = {
    "rows": 4_000, "steps": 1_000, "copies": 1, "memory_steps": {"preprocess": {"rows_bytes": 40e6}},
    "recipe": {"epochs": 4, "batch_rows": 10, "minutes": None},
}  # fmt: skip


def test_what_is_not_rehearsed_is_carried_over_by_rows_and_steps() -> None:
    """Half of the rows, 100 steps in 20 s: the other 900 take 180, four checks of 400 rows a third of their steps."""
    found = carried_over(Rehearsed(2_000, False, 100, USED, 0, *TOOK, ""), TOLD, 0.1)
    steps = found["steps"]
    assert steps["preprocess"]["seconds"] == 4.0 and steps["results"]["seconds"] == 8.0
    assert steps["model"]["seconds"] == pytest.approx(3 + 1_000 * 0.2 + 4 * 40 * 0.2 / 3)
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in steps.values()))
    assert found["cpu_seconds"] == found["seconds"] / 2
    assert [step["memory_bytes"] for step in steps.values()] == [620e6, 900e6, 800e6]


def test_a_step_is_that_of_the_later_half_and_without_a_look_at_the_validation_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six steps: two that warm up, one that is looked after, three that count or are warm."""
    say, clock = Watching(), iter([0, 9, 17, 18, 60, 62, 65])
    monkeypatch.setattr(rehearsal, "_now", lambda: (t := next(clock), t / 2))
    with say.bar("training", 1) as bar:
        for step in range(6):
            if step == 3:
                say.checked(0.5, 1.0)
            bar.advance(0.1)
    assert say.took == [(9, 4.5), (8, 4.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    assert say.step_took() == (2.0, 1.0) and say.trained == (65, 32.5)


def test_lengths_that_were_not_met_are_looked_for_until_an_epoch_is_over() -> None:
    """An epoch has 250 steps, of which 125 were made: one doubling more."""
    steps = carried_over(Rehearsed(4_000, True, 125, USED, 70_000_000, *TOOK, ""), TOLD, 0.1)["steps"]
    assert [step["memory_bytes"] for step in steps.values()] == [600e6, 970e6, 870e6]
    steps = carried_over(Rehearsed(4_000, True, 300, USED, 70_000_000, *TOOK, ""), TOLD, 0.1)["steps"]
    assert steps["model"]["memory_bytes"] == 900e6


def test_a_training_that_ended_within_its_rehearsal_is_what_it_was() -> None:
    whole = carried_over(Rehearsed(4_000, True, 1_000, USED, 0, *TOOK, "all 4 epochs were done"), TOLD, 0.1)
    assert whole["seconds"] == 29.0 and whole["memory_bytes"] == 900e6


def test_the_minutes_of_a_file_bound_its_training() -> None:
    told = TOLD | {"recipe": TOLD["recipe"] | {"minutes": 1.0}}  # type: ignore[operator]
    assert carried_over(Rehearsed(4_000, True, 100, USED, 0, *TOOK, ""), told, 0.1)["steps"]["model"]["seconds"] == 63.0


def test_a_file_is_rehearsed_by_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(300)
    pq.write_table(
        pa.table({"x": x, "y": np.where(x + random.standard_normal(300) > 0, "yes", "no")}), tmp_path / "t.parquet"
    )
    file = tmp_path / "weft.yaml"
    file.write_text(
        f"data: {{source: {tmp_path / 't.parquet'}}}\ntarget: y\nmodel: {{width: 16, layers: 1, copies: 1}}\n"
        f"training: {{epochs: 3}}\nresults: {{baselines: false, explain: off}}\n"
    )
    before = set(tmp_path.iterdir())
    assert call(["plan", str(file), "--probe", "5", "--gpus", "2xA100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rehearsed = found["rehearsed"]
    assert rehearsed["rows"] == 300 and rehearsed["training_steps"] == found["steps"] > 0
    assert list(rehearsed["steps"]) == ["data", "preprocess", "features", "model", "inference", "results"]
    assert all(step["memory_bytes"] > 200e6 for step in rehearsed["steps"].values())
    assert found["on_devices"]["layout"]["shares"] == 2 and found["on_devices"]["parameters"] == found["parameters"]
    assert set(tmp_path.iterdir()) == before
    assert call(["plan", str(file), "--set", "model.backbone=rnn", "--gpus", "2xA100"]) == 2
    assert "recurrent" in capsys.readouterr().err
