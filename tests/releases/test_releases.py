"""Runs of every release open and answer as they did then."""

import json
from pathlib import Path

import pytest
from tests.releases.make import answers

import weft

HERE = Path(__file__).parent
KEPT = sorted(path.with_suffix("") for path in HERE.glob("*/*.json"))


def alike(ours, theirs, where=""):
    if isinstance(theirs, dict):
        assert set(theirs) <= set(ours), where  # a later version may say more
        for key, value in theirs.items():
            alike(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            alike(one, other, f"{where}[{place}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5), where
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: f"{path.parent.name} {path.name}")
def test_a_run_of_an_earlier_release_answers_as_it_did(kept):
    told = json.loads(kept.with_suffix(".json").read_text(encoding="utf-8"))
    alike(answers(weft.load(kept), kept.name, kept.parent), told)


def test_every_release_of_the_changelog_is_kept():
    text = (HERE.parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    released = {line.split()[1].strip("[]") for line in text.splitlines() if line.startswith("## ")} - {"Unreleased"}
    assert released <= {path.parent.name for path in KEPT} and KEPT
