"""Which rows an evaluation counts, where there are more than it can hold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from tests.tables import FAST, mixed

import weft
from weft.data.split import uniform
from weft.inference import predict
from weft.inference.predict import Sample
from weft.runs import run as runs


@pytest.mark.parametrize("batch", [7, 100, 5_000])
def test_a_sample_is_the_same_rows_whatever_the_batches(batch: int) -> None:
    """The rows of the lowest draws, found by sorting all of them."""
    parts = (np.arange(5_000) % 3).astype(np.uint8)
    drawn = Sample(200, parts, 1)
    for start in range(0, 5_000, batch):
        rows = np.arange(start, min(start + batch, 5_000))
        rows = rows[drawn.wanted(rows)]
        drawn.add(rows, rows * 2.0, rows)
    output, truth = drawn.columns()
    mine = np.flatnonzero(parts == 1)
    assert truth.tolist() == np.sort(mine[np.argsort(uniform(predict._SEED, mine))[:200]]).tolist()
    assert output.tolist() == (truth * 2.0).tolist() and drawn.words() == ", 200 drawn at random of 1,667"


def test_few_rows_are_all_counted() -> None:
    drawn = Sample(200, None, 0)
    rows = np.arange(150)
    assert drawn.wanted(rows).all()
    drawn.add(rows, rows, rows)
    assert len(drawn.columns()[0]) == 150 and drawn.words() == ""


def test_an_evaluation_of_many_rows_judges_some_and_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = weft.train(mixed(300), "bought", out=tmp_path / "run", quiet=True, **FAST)
    table = mixed(700, seed=5)
    monkeypatch.setattr(runs, "most_rows", lambda width: 250)
    found = run.evaluate(table)
    assert found["rows"] == 250 and found["part"] == "all rows, 250 drawn at random of 700"
    rows = np.sort(np.argsort(uniform(predict._SEED, np.arange(700)))[:250])
    said = run.predict(table).column("prediction").take(rows).to_pylist()
    right = accuracy_score(table.column("bought").take(rows).to_pylist(), said)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right)
