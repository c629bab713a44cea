"""Killed without a word, again and again, and what ends at last is what was never killed (`benchmarks/kills.py`)."""

from pathlib import Path

import pytest
from benchmarks.kills import jobs, survive


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_every_kill_is_survived_and_no_bit_is_lost(tmp_path: Path, kills: int) -> None:
    for name, job in jobs(tmp_path).items():
        found = survive(job, kills, seed=kills)
        assert (found["survived"], found["bits_lost"]) == (kills, 0), (name, found)
        assert found["bits_compared"] > 100_000
        assert kills == 4 or found["inside_a_save"] > 0  # four may all miss it
