"""The loop: killed and resumed is never killed; what is not finite stops it; the best step comes back."""

import contextlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from weft.errors import TrainingError
from weft.features.batching import Batch, shuffled
from weft.files import write_manifest
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.loop import Loop, Recipe
from weft.training.optimizers import Schedule, adamw, fit_ridge
from weft.training.parallel import ALONE, Alone
from weft.training.tracking import Tracker

RANDOM = np.random.default_rng(0)
X = torch.tensor(RANDOM.normal(size=(200, 6)), dtype=torch.float32)
Y = (X @ torch.tensor([1.0, -2, 0, 0, 1, 0]) + 0.1 * torch.tensor(RANDOM.normal(size=200)).float() > 0).long()
RECIPE = Recipe(
    epochs=6, batch_rows=16, learning_rate=0.02, weight_decay=0.01, patience=99, average=0.9, bfloat16=False, seed=5
)


class Net(nn.Module):
    """A net with dropout, so that a lost random state shows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def loss(self, batch):
        return nn.functional.cross_entropy(self.net(batch.columns["x"]["value"]), batch.target)


def fetch(rows, epoch=0):
    return Batch({"x": {"value": X[rows]}}, Y[rows], len(rows))


def validate(model, team=ALONE):
    return model.loss(fetch(np.arange(160, 200))).item()


def loop(folder, recipe=RECIPE, say=None, fetch=fetch, model=None):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(7)
    tracker = Tracker(folder)
    made = Loop(
        model or Net(), recipe, fetch, np.arange(160), None, validate, tracker,
        Checkpoints(folder / "checkpoints"), say or Silent(),
    )  # fmt: skip
    return made


class Killed(Exception):
    pass


def stop_at(made, step):
    """Save at ``step`` like the clock would, then die at the next one without a word."""
    plain = made._step

    def dying(batch):
        if made.progress.step == step:
            made._save()
        if made.progress.step == step + 2:
            raise Killed
        plain(batch)

    made._step = dying


@pytest.mark.parametrize("step", [1, 9, 10, 23, 57])
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, step):
    whole = loop(tmp_path / "whole")
    whole.run()
    first = loop(tmp_path / "killed")
    stop_at(first, step)
    with pytest.raises(Killed):
        first.run()
    torch.manual_seed(999)  # another process, another random state
    second = loop(tmp_path / "killed")
    done = second.run()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert done.best_step == whole.progress.best_step and done.best_loss == whole.progress.best_loss

    def records(name):
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    assert records("whole") == records("killed")


def test_killed_before_its_first_checkpoint_it_begins_anew_without_a_record_twice(tmp_path):
    whole = loop(tmp_path / "whole")
    whole.run()
    first = loop(tmp_path / "killed")
    plain = first._step

    def dying(parts):
        if first.progress.step == 3:
            raise Killed
        plain(parts)

    first._step = dying
    with pytest.raises(Killed):
        first.run()
    loop(tmp_path / "killed").run()
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "killed" / "metrics.jsonl").read_text()


def test_what_the_order_of_the_batches_draws_is_not_drawn_twice(tmp_path, monkeypatch):
    from weft.training import loop as module

    def drawing(*given):
        torch.rand(3)
        return shuffled(*given)

    monkeypatch.setattr(module, "shuffled", drawing)
    whole = loop(tmp_path / "whole")
    whole.run()
    first = loop(tmp_path / "killed")
    stop_at(first, 14)
    with pytest.raises(Killed):
        first.run()
    second = loop(tmp_path / "killed")
    second.run()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_whose_manifest_leaves_files_out_is_none(tmp_path):
    made = loop(tmp_path / "run")
    made._save()
    folder = tmp_path / "run" / "checkpoints" / "step-00000000"
    (folder / ".left.1.part").mkdir()
    write_manifest(folder, ["state.json"])
    heard = Heard()
    assert Checkpoints(folder.parent).newest(heard) is None
    assert "Got no 'extra.safetensors', 'model.safetensors'" in heard.said[0] and not folder.exists()


class Heard(Silent):
    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


def test_a_damaged_checkpoint_is_set_aside_aloud_and_the_one_before_is_used(tmp_path):
    whole = loop(tmp_path / "whole")
    whole.run()
    first = loop(tmp_path / "run")
    plain = first._step

    def step(batch):
        if first.progress.step in (10, 20):
            first._save()
        if first.progress.step == 25:
            raise Killed
        plain(batch)

    first._step = step
    with pytest.raises(Killed):
        first.run()
    newest = tmp_path / "run" / "checkpoints" / "step-00000020"
    weights = newest / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(bytes(data))
    heard = Heard()
    second = loop(tmp_path / "run", say=heard)
    second.run()
    assert "model.safetensors has changed" in heard.said[0] and "corrupt-1" in heard.said[0]
    assert (newest.parent / "step-00000020.corrupt-1").exists()
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_pickle_in_a_checkpoint(tmp_path):
    made = loop(tmp_path / "run")
    made.run()
    files = [p for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} == {".safetensors", ".json"}


def test_stops_before_the_weights_are_touched_when_the_loss_is_not_finite(tmp_path):
    def broken(rows, epoch):
        batch = fetch(rows)
        if made.progress.step == 7:
            batch.columns["x"]["value"] = batch.columns["x"]["value"] * torch.inf
        return batch

    made = loop(tmp_path / "run", fetch=broken)
    before = {}
    plain = made._step

    def step(batch):
        before.update({n: p.detach().clone() for n, p in made.model.named_parameters()})
        plain(batch)

    made._step = step
    with pytest.raises(TrainingError, match=r"step 8: the loss and its gradient must be finite.*learning_rate"):
        made.run()
    assert all(torch.equal(p, before[n]) for n, p in made.model.named_parameters())


def test_early_stopping_brings_the_best_step_back(tmp_path):
    losses = iter([9.0, 3.0, 1.0, 2.0, 3.0, 4.0])
    seen = []

    def validate(model, team):
        seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        return next(losses)

    made = loop(tmp_path / "run", Recipe(**{**RECIPE.__dict__, "patience": 3}))
    made.validate = validate
    done = made.run()
    assert done.best_step == 20 and done.best_loss == 1.0 and "3 epochs" in done.stopped
    assert all(torch.equal(p, seen[2][n]) for n, p in made.model.named_parameters())


def test_the_minutes_end_it(tmp_path):
    made = loop(tmp_path / "run", Recipe(**{**RECIPE.__dict__, "minutes": 1e-9}))
    assert "minutes were over" in made.run().stopped and made.progress.step == 1


def test_records_reach_tensorboard_and_jsonl(tmp_path):
    loop(tmp_path / "run").run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train_loss"] for x in lines if "train_loss" in x]
    assert len(losses) == 60 and len(list((tmp_path / "run").glob("events.out.*"))) == 1
    np.testing.assert_allclose([s.value for s in events.Scalars("copy0/train_loss")], losses, rtol=1e-6)


def test_a_checkpoint_folder_is_whole_or_absent(tmp_path):
    made = loop(tmp_path / "run")
    made._save()
    made.tracker.close()
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-00000000").rename(folder / ".step-00000009.99.part")  # died before the rename
    assert Checkpoints(folder).newest(Silent()) is None
    shutil.rmtree(folder)


class Other(Alone):
    """The second of two processes, whose first goes on from step 0."""

    number, count = 1, 2

    def first(self, *values):
        return [0.0] * len(values)


def test_of_several_processes_the_first_alone_tidies_the_checkpoints(tmp_path):
    made = loop(tmp_path / "run")
    for step in (0, 7):
        made.progress.step = step
        made._save()
    made.tracker.close()
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-00000007" / "state.json").write_text("{}")
    (folder / ".secret.key.99.part").write_text("the first is writing it")
    before = sorted(folder.rglob("*"))
    assert Checkpoints(folder).newest(Silent(), Other()) == folder / "step-00000000"
    assert sorted(folder.rglob("*")) == before
    assert Checkpoints(folder).newest(Silent()) == folder / "step-00000000"
    assert {path.name for path in folder.iterdir()} == {"step-00000000", "step-00000007.corrupt-1"}


def test_the_schedule_warms_up_and_decays():
    s = Schedule(total=110, warmup=10, floor=0.02)
    assert s(0) == 0.1 and s(9) == 1.0 and s(10) == 1.0
    assert s(60) == pytest.approx(0.51) and s(110) == pytest.approx(0.02)


def test_vectors_and_embeddings_are_not_decayed_and_a_module_may_ask_for_its_own_rate():
    model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Embedding(5, 3), "c": nn.LayerNorm(4), "d": nn.Linear(2, 2)})
    model["d"].rate_factor, model["d"].decayed = 5.0, False
    groups = {(g["weight_decay"], g["factor"]): g["params"] for g in adamw(model, 1e-3, 0.1).param_groups}
    assert [p.shape for p in groups[0.1, 1.0]] == [(4, 3)]
    assert len(groups[0.0, 1.0]) == 4 and len(groups[0.0, 5.0]) == 2


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    w, b = nn.Parameter(torch.zeros(6, 2)), nn.Parameter(torch.zeros(2))
    fit_ridge(lambda: X @ w + b, lambda out: nn.functional.cross_entropy(out, Y), [w], b, 1.0 / 200)
    oracle = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(X.numpy(), Y.numpy())
    # two columns of weights share what one column of the binary model holds
    ours = torch.softmax(X @ w + b, 1)[:, 1].detach().numpy()
    np.testing.assert_allclose(ours, oracle.predict_proba(X.numpy())[:, 1], atol=2e-3)


class Watched(Silent):
    """Remembers what the bar is told."""

    def __init__(self):
        self.total, self.done, self.notes = 0.0, 0.0, []

    @contextlib.contextmanager
    def bar(self, label, total):
        self.total = total
        yield self

    def advance(self, amount, note=""):
        assert amount >= 0
        self.done += amount
        self.notes.append(note)


@pytest.mark.parametrize(("minutes", "epochs"), [(None, 3), (0.005, 1_000_000)])
def test_the_bar_goes_by_steps_or_by_time_and_is_full_at_the_end(tmp_path, minutes, epochs):
    say = Watched()
    made = loop(tmp_path / "run", replace(RECIPE, epochs=epochs, minutes=minutes), say=say)
    made.pace = lambda p: f"{p.step} steps"
    made.run()
    assert say.total == 1 and say.done == pytest.approx(1, abs=1e-6)
    assert all(note.endswith("steps") for note in say.notes) and "validation loss" in say.notes[-1]
