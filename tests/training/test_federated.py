"""Federated averaging: one owner is central training; several are the equation; no owner outweighs its clip, and
private rounds say nothing of any one."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.tables import FAST, mixed, numeric
from tests.training.test_loop import RECIPE, Killed, Net, fetch, stop_at, validate

import weft
from weft.data.table import Table
from weft.errors import SettingsError
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.federated import FederatedLoop, PrivateFederatedLoop
from weft.training.loop import Federated, Loop, Privacy
from weft.training.private import KEY_FILE
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


OWNERS = np.arange(160) % 40


def private(folder, privacy=Privacy(8.0, None, 0.5), steps=2, key=b"k" * 32):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if key:
        (folder / "checkpoints" / KEY_FILE).write_bytes(key)
    torch.manual_seed(7)
    recipe = replace(RECIPE, epochs=20, privacy=privacy, federated=Federated(steps, 0.1, 2))
    return PrivateFederatedLoop(OWNERS, Net(), recipe, fetch, np.arange(160), None, validate, Tracker(folder),
                                Checkpoints(folder / "checkpoints"), Silent())  # fmt: skip


def test_a_private_round_is_the_clipped_sum_of_the_owners_drawn_with_its_noise(tmp_path):
    made = private(tmp_path)
    made._resume(), made.tracker.close(), made.model.eval()
    account, some = made.progress.privacy, np.array([3, 11, 30])
    assert (account["rows"], account["rate"]) == (40, 16 / 40) and made.total == 20 * 3
    before = [p.detach().clone() for p in made.model.parameters()]
    for owner in some:  # four rows each, all drawn, halves in an order that is the key's
        updates = []
        for order in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2], [1, 2, 0, 3], [1, 3, 0, 2], [2, 3, 0, 1]):
            net = Net().eval()
            net.load_state_dict(made.model.state_dict())
            descent = torch.optim.SGD(net.parameters(), lr=0.1)
            for half in np.split(np.flatnonzero(owner == OWNERS)[order], 2):
                descent.zero_grad()
                net.loss(fetch(half)).backward()
                descent.step()
            moved = zip(before, net.parameters(), strict=True)
            update = torch.cat([((b - p.detach()) / 0.1).flatten() for b, p in moved])
            updates.append(update * min(1.0, 0.5 / update.norm().item()))
        found = torch.cat([g.flatten() for g in next(made._clipped(np.array([owner]), 0.5, 0.0)).values()])
        assert min((found - u).abs().max().item() for u in updates) < 1e-5
    noises = []
    for step in range(40):
        made.progress.step = step
        given = [torch.cat([g.flatten() for g in f.values()]) for f in made._clipped(some, 0.5, 0.0)]
        made._descend(some, 0, 0.0)
        noises.append(torch.cat([p.grad.flatten() for p in made.model.parameters()]) * 16 - sum(given))
    noise = torch.stack(noises) / (account["noise"] * 0.5)
    assert abs(noise.mean()) < 0.03 and noise.std().item() == pytest.approx(1.0, rel=0.03)
    for a, b in zip(before, made.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_private_rounds_killed_and_resumed_end_with_the_same_bits(tmp_path):
    whole = private(tmp_path / "whole")
    whole.run()
    first = private(tmp_path / "killed")
    stop_at(first, 17)
    with pytest.raises(Killed):
        first.run()
    again = private(tmp_path / "killed", key=None)
    assert again.run().privacy == whole.progress.privacy
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_too_few_owners_are_told_which_epsilon_can_be_reached(tmp_path):
    with pytest.raises(SettingsError, match=r"federated.privacy.epsilon: with 40 owners must be at least") as error:
        private(tmp_path / "run", Privacy(0.5, None, 1.0))
    least = float(str(error.value).split("at least ")[1].split(",")[0])
    private(tmp_path / "enough", Privacy(least, None, 1.0))


def test_files_and_folders_are_owners(tmp_path):
    table = numeric(300)
    (tmp_path / "north").mkdir()
    for name, part in (("north/a", table[:80]), ("north/b", table[80:150]), ("south", table[150:])):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    source = [str(tmp_path / "north"), str(tmp_path / "south.parquet")]
    opened = Table.open(source)
    rows = np.concatenate([raw.rows for raw in opened.batches(["a"])])
    assert opened.owners(rows).tolist() == [0] * 150 + [1] * 150
    files = Table.open(str(tmp_path / "north"))  # of a single address each file
    assert files.owners(np.concatenate([raw.rows for raw in files.batches(["a"])])).tolist() == [0] * 80 + [1] * 70
    settings = {"data": {"source": source}, "target": "label", **FAST,
                "training": {**FAST["training"], "federated": {"steps": 3}},
                "results": {"explain": "off", "baselines": False}}  # fmt: skip
    run = weft.Pipeline({**settings, "training": {**settings["training"], "epochs": 12}}).run(out=tmp_path / "run")
    assert run.figures["models"][0]["metrics"]["accuracy"]["value"] > 0.7


def test_of_one_owner_the_whole_run_is_central(tmp_path):
    settings = {"target": "bought", **FAST, "results": {"explain": "off", "baselines": False}}
    runs = [weft.Pipeline({**settings, "training": {**FAST["training"], **more}}).run(mixed(), tmp_path / name)
            for name, more in (("central", {}), ("one", {"federated": {}}))]  # fmt: skip
    for file in ("columns.json", "tokenizer.json", "model.safetensors"):
        assert (runs[0].path / file).read_bytes() == (runs[1].path / file).read_bytes(), file


def test_a_private_run_says_what_it_promises_to_owners(tmp_path):
    table = numeric(1_200)
    for owner in range(60):
        pq.write_table(table[20 * owner : 20 * owner + 20], tmp_path / f"{owner}.parquet")
    settings = {"data": {"source": [str(tmp_path / f"{owner}.parquet") for owner in range(60)]}, "target": "label",
                "results": {"explain": "off"}, "model": {"width": 16, "layers": 1},
                "training": {"federated": {"steps": 2, "privacy": {"epsilon": 30}}, "epochs": 20}}  # fmt: skip
    run = weft.Pipeline(settings).run(out=tmp_path / "run", quiet=True)
    said = run.figures["privacy"]
    assert said["spent"] <= 30 and (said["rows"], said["unit"], said["clip"]) == (60, "owners", 1.0)
    assert "60 owners" in (run.path / "README.md").read_text()
    assert "train_loss" not in (run.path / "metrics.jsonl").read_text()


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
