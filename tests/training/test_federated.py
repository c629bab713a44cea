"""Federated averaging: one owner is central training; several are the equation; no owner outweighs its clip."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import FAST, numeric
from tests.training.test_loop import RECIPE, Net, fetch, validate

import weft
from weft.data.table import Table
from weft.errors import SettingsError
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.federated import FederatedLoop
from weft.training.loop import Federated, Loop
from weft.training.tracking import Tracker


def loop(folder, owners, steps, clip=1.0):
    torch.manual_seed(7)
    recipe = replace(RECIPE, clip=clip, federated=Federated(steps, 0.1))
    return FederatedLoop(owners, Net(), recipe, fetch, np.arange(160), None, validate, Tracker(folder),
                         Checkpoints(folder / "checkpoints"), Silent())  # fmt: skip


def test_one_owner_is_central_training_to_the_bit(tmp_path):
    central, one = tmp_path / "central", tmp_path / "one"
    central.mkdir(), one.mkdir()
    torch.manual_seed(7)
    plain = Loop(Net(), RECIPE, fetch, np.arange(160), None, validate, Tracker(central),
                 Checkpoints(central / "checkpoints"), Silent())  # fmt: skip
    plain.run()
    made = loop(one, np.zeros(160, int), 1)
    made.run()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, made.model.state_dict()[name]), name


def test_several_owners_are_the_equation(tmp_path):
    owners, rows, steps, clip = np.arange(160) % 3, np.arange(40), 2, 0.3
    made = loop(tmp_path, owners, steps, clip)
    made.model.eval()
    before = [p.detach().clone() for p in made.model.parameters()]
    made._descend(rows, 0, 0.0)
    found = [p.grad.clone() for p in made.model.parameters()]
    wanted = [torch.zeros_like(p) for p in before]
    for owner in range(3):
        net = Net().eval()
        net.load_state_dict(made.model.state_dict())
        descent = torch.optim.SGD(net.parameters(), lr=0.1)
        for some in np.array_split(rows[owners[rows] == owner], steps):
            descent.zero_grad()
            net.loss(fetch(some)).backward()
            descent.step()
        update = [(b - p.detach()) / 0.1 for b, p in zip(before, net.parameters(), strict=True)]
        length = torch.cat([u.flatten() for u in update]).norm()
        for total, u in zip(wanted, update, strict=True):
            total += u * min(1.0, clip / length) * (owners[rows] == owner).mean()
    assert torch.cat([w.flatten() for w in wanted]).norm() <= clip
    for a, b, c, d in zip(found, wanted, before, made.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert torch.equal(c, d)


def test_files_and_folders_are_owners(tmp_path):
    table = numeric(300)
    (tmp_path / "north").mkdir()
    for name, part in (("north/a", table[:80]), ("north/b", table[80:150]), ("south", table[150:])):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    source = [str(tmp_path / "north"), str(tmp_path / "south.parquet")]
    opened = Table.open(source)
    rows = np.concatenate([raw.rows for raw in opened.batches(["a"])])
    assert opened.owners(rows).tolist() == [0] * 150 + [1] * 150
    settings = {"data": {"source": source}, "target": "label", **FAST,
                "training": {**FAST["training"], "federated": {"steps": 3}},
                "results": {"explain": "off", "baselines": False}}  # fmt: skip
    run = weft.Pipeline({**settings, "training": {**settings["training"], "epochs": 12}}).run(out=tmp_path / "run")
    assert run.figures["models"][0]["metrics"]["accuracy"]["value"] > 0.7


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"training": {"privacy": {"epsilon": 3}}}, "training.privacy"),
        ({"model": {"copies": 3}}, "model.copies"),
        ({"target": {"next_token": "y"}}, "not next_token"),
    ],
)
def test_what_needs_all_rows_is_refused(more, said):
    with pytest.raises(SettingsError, match=said):
        weft.Pipeline({"target": "y", **more, "training": {**more.get("training", {}), "federated": {}}})
