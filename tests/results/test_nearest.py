"""The nearest training rows: a copy of a row is found, cosines are those of the states, and who disagrees is said."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.results.test_explain import planted

import weft
from weft.cli import call
from weft.data.split import TRAIN
from weft.errors import DataError, UsageError
from weft.features.batching import collate
from weft.results.explain import nearest as module
from weft.results.explain.nearest import Nearest, Neighbour
from weft.results.explain.words import sentences
from weft.runs.run import Run

TABLE = planted(400, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("nearest")
    pq.write_table(TABLE, folder / "table.parquet")
    return trained(str(folder / "table.parquet"), folder / "run", 3)


def trained(table, folder: Path, epochs: int) -> Run:
    return weft.train(
        table, "answer", folder, quiet=True, features={"text": "text"}, training={"epochs": epochs},
        model={"width": 16, "layers": 1, "copies": 2}, results={"baselines": False, "explain": "off"},
    )  # fmt: skip


def test_they_are_those_of_the_largest_cosine_and_a_copy_is_the_first(run: Run) -> None:
    parts = np.load(run.path / "split.npy")
    train = np.flatnonzero(parts == TRAIN)
    asked = train[[3, 50]]
    found = run.explain(TABLE.take(asked), "gradient", nearest=4)
    codes = run.columns.encode(run.columns.cleaner(next(iter(weft.data.table.Table.of(TABLE).batches()))))
    batch = collate(codes, len(TABLE))
    likeness = np.zeros((len(TABLE), len(TABLE)))
    with torch.no_grad():
        for copy in run.model.eval().each():
            read = copy.read(copy.embedding(batch.columns)).double().numpy()
            read /= np.linalg.norm(read, axis=1, keepdims=True)
            likeness += read @ read.T / 2
    for row, why in zip(asked, found, strict=True):
        assert why.nearest is not None and why.nearest.seen == why.nearest.of == len(train)
        best = train[np.argsort(-likeness[row, train], kind="stable")[:4]]
        near = why.nearest.neighbours
        assert [n.row for n in near] == best.tolist() and near[0].row == row
        assert np.allclose([n.likeness for n in near], likeness[row, best], atol=1e-4)
        assert [n.truth for n in near] == TABLE["answer"].take(best).to_pylist()
        assert near[0].cells["text"] == TABLE["text"][row].as_py()


def test_only_so_many_training_rows_are_looked_at(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 60)
    near = run.explain(TABLE.slice(0, 1), "gradient", nearest=2)[0].nearest
    assert near is not None and 30 < near.seen < 90 < near.of


def test_neighbours_that_disagree_are_said(run: Run) -> None:
    why = run.explain(pa.table({"text": ["the splendid box"], "colour": ["red"], "price": [50.0]}), "gradient")[0]
    near = [Neighbour(i, 0.9, truth, {}) for i, truth in enumerate(["no", "no", "yes"])]
    why.nearest = Nearest(near, 3, 3)
    assert why.nearest.disagrees("yes") and not why.nearest.disagrees("no")
    assert sentences(why)[-1].startswith("Of the 3 training rows most like this one only 1 have the answer 'yes'")
    assert "并不支持" in sentences(why, "zh")[-1]
    labels = Nearest([Neighbour(0, 1.0, ["a", "yes"], {}), Neighbour(1, 1.0, ["yes"], {})], 2, 2)
    assert labels.agreeing("yes") == 2 and labels.agreeing("a") == 1
    numbers = Nearest([Neighbour(0, 1.0, 2.0, {}), Neighbour(1, 1.0, 3.0, {})], 2, 2)
    assert numbers.disagrees(3.5) and not numbers.disagrees(2.5)


def test_the_command_shows_them_and_says_where_the_training_rows_must_be(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = str(run.path.parent / "table.parquet"), tmp_path / "why.html"
    asked = ["explain", str(run.path), table, "--method", "gradient", "--nearest", "3"]
    assert call([*asked, "--html", str(page)]) == 0
    told = capsys.readouterr().out
    of = (np.load(run.path / "split.npy") == TRAIN).sum()
    assert f"most like it, of {of} of {of} training rows" in told
    assert "Of the 3 training rows most like this one" in told
    assert "The training rows most like it" in page.read_text()
    assert call([*asked, "--training", table, "--json"]) == 0
    near = json.loads(capsys.readouterr().out)["explanations"][0]["nearest"]
    assert len(near["neighbours"]) == 3 and near["disagrees"] is (2 * near["agreeing"] < 3)
    small, few = trained(TABLE.slice(0, 100), tmp_path / "small", 1), TABLE.slice(0, 1)
    with pytest.raises(UsageError, match="trained on a table in memory"):
        small.explain(few, nearest=1)
    near = small.explain(few, "gradient", nearest=1, training=TABLE.slice(0, 100))[0].nearest
    assert near is not None and near.seen == near.of > 50
    with pytest.raises(DataError, match=r"must be the table that .* was trained on"):
        run.explain(TABLE.slice(0, 1), nearest=1, training=TABLE.slice(1))
    with pytest.raises(DataError, match="Say where they are"):
        run.explain(TABLE.slice(0, 1), nearest=1, training=str(tmp_path / "gone.csv"))
