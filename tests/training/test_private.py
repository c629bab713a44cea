"""Private steps: the account is right, noise and draws are as they should be, killed and resumed is never killed."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from scipy import stats
from tests.tables import numeric
from tests.texts import sentences
from tests.training.test_loop import Killed, Net, fetch, stop_at, validate

import weft
from weft.config import from_mapping
from weft.errors import CheckpointError, SettingsError
from weft.estimates.rows import estimate
from weft.estimates.tasks import estimate_task
from weft.progress import Silent
from weft.training.accountant import noise_for, spent
from weft.training.checkpoint import Checkpoints
from weft.training.loop import Privacy, Recipe
from weft.training.pace import step_cost
from weft.training.private import KEY_FILE, PrivateLoop, gaussians
from weft.training.tracking import Tracker

RECIPE = Recipe(
    epochs=6, batch_rows=1, learning_rate=0.02, weight_decay=0.01, patience=1 << 30, average=0.9, bfloat16=False,
    seed=5, privacy=Privacy(3.0, None, 1.0, 32),
)  # fmt: skip


def loop(folder, recipe=RECIPE, key=b"k" * 32):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if key:
        (folder / "checkpoints" / KEY_FILE).write_bytes(key)
    torch.manual_seed(7)
    return PrivateLoop(
        Net(), recipe, fetch, np.arange(160), None, validate, Tracker(folder), Checkpoints(folder / "checkpoints"),
        Silent(),
    )  # fmt: skip


class TestAccount:
    def test_published_figures(self):
        # the moments accountant's example (TensorFlow Privacy's tutorial): RDP 2.60, by exact numbers 2.39
        assert spent(1.1, 256 / 60_000, 60 * 235, 1e-5) == pytest.approx(2.392, rel=0.01)
        # one Gaussian step of noise 1 over all rows, by its closed form (Balle & Wang 2018, theorem 8)
        epsilon = spent(1.0, 1.0, 1, 1e-5)
        mass = stats.norm.cdf(0.5 - epsilon) - np.exp(epsilon) * stats.norm.cdf(-0.5 - epsilon)
        assert mass == pytest.approx(1e-5, rel=0.01)

    def test_is_below_the_bound_of_another_account(self):
        step = dp_event.PoissonSampledDpEvent(0.05, dp_event.GaussianDpEvent(2.0))
        bound = RdpAccountant().compose(dp_event.SelfComposedDpEvent(step, 200)).get_epsilon(1e-6)
        assert 0.7 * bound < spent(2.0, 0.05, 200, 1e-6) < bound

    @pytest.mark.parametrize("epsilon", [0.5, 3.0])
    def test_noise_is_the_least_that_keeps_within(self, epsilon):
        noise = noise_for(epsilon, 0.1, 50, 1e-5)
        assert 0.99 * epsilon < spent(noise, 0.1, 50, 1e-5) <= epsilon
        assert spent(noise / 1.01, 0.1, 50, 1e-5) > epsilon

    def test_nothing_done_is_nothing_spent(self):
        assert spent(1.0, 0.1, 0, 1e-5) == 0


def test_noise_is_normal_and_its_key_s_alone():
    found = gaussians(b"one", 200_001)
    assert stats.kstest(found, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.01
    np.testing.assert_array_equal(found, gaussians(b"one", 200_001))
    assert not np.isclose(found[:1_000], gaussians(b"two", 1_000)).any()


def test_each_row_is_drawn_with_its_chance_whatever_the_others_are(tmp_path):
    made = loop(tmp_path / "run")
    made._resume()
    made.tracker.close()
    drawn = np.zeros((600, 160), bool)
    for step, rows in zip(range(600), (r for e in range(120) for r in made._batches(e, 0)), strict=True):
        assert len(set(rows.tolist())) == len(rows)
        drawn[step, rows] = True
    assert np.abs(drawn.mean(axis=0) - 0.2).max() < 0.07
    # of 160 rows with a chance of 0.2: a spread as that of independent draws
    assert drawn.sum(axis=1).var() == pytest.approx(160 * 0.2 * 0.8, rel=0.25)


def test_a_step_is_the_clipped_sum_with_its_noise(tmp_path):
    """Of a model whose gradients are known by hand: sum_i clip(x_i), over what is expected to be drawn."""
    made = loop(tmp_path / "run", replace(RECIPE, privacy=Privacy(1.0, None, 0.5, 32)))
    made._resume()
    made.tracker.close()
    made.model.eval()
    account = made.progress.privacy
    rows = np.arange(40)
    differences, total = [], None
    for step in range(60):
        made.progress.step = step
        made._descend(rows, 0, 0.0)
        found = torch.cat([p.grad.flatten() for p in made.model.parameters()])
        if total is None:
            total = torch.zeros_like(found)
            for i in rows:
                made.model.zero_grad()
                made.model.loss(fetch(rows[i : i + 1])).backward()
                own = torch.cat([p.grad.flatten() for p in made.model.parameters()])
                total += own * min(1.0, 0.5 / own.norm().item())
        differences.append(found * 32 - total)
    differences = torch.stack(differences).numpy() / (account["noise"] * 0.5)
    assert abs(differences.mean()) < 0.03 and differences.std() == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("step", [1, 9])
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, step):
    whole = loop(tmp_path / "whole")
    whole.run()
    first = loop(tmp_path / "killed")
    stop_at(first, step)
    with pytest.raises(Killed):
        first.run()
    again = loop(tmp_path / "killed", key=None)
    done = again.run()
    assert done.privacy == whole.progress.privacy and done.privacy["spent"] <= 3
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_another_key_is_another_model_and_a_lost_one_an_error(tmp_path):
    first, second = (loop(tmp_path / name, key=None) for name in ("a", "b"))
    first.run(), second.run()
    assert not torch.equal(first.model.net[0].weight, second.model.net[0].weight)
    (tmp_path / "a" / "checkpoints" / KEY_FILE).unlink()
    with pytest.raises(CheckpointError, match="must lie beside the checkpoints"):
        loop(tmp_path / "a", key=None).run()


def test_what_cannot_be_reached_says_what_can(tmp_path):
    with pytest.raises(SettingsError, match=r"with 160 rows must be at least 0?\.?\d+.*Got 0\.01") as error:
        loop(tmp_path / "run", replace(RECIPE, privacy=Privacy(0.01, None, 1.0, 32)))
    least = float(str(error.value).split("at least ")[1].split(",")[0])
    loop(tmp_path / "enough", replace(RECIPE, privacy=Privacy(least, None, 1.0, 32)))
    with pytest.raises(SettingsError, match=r"delta: must be below 1 / rows"):
        loop(tmp_path / "sure", replace(RECIPE, privacy=Privacy(1.0, 0.1, 1.0, 32)))


class TestRuns:
    """What a run leaves: nothing of a training row beside the noisy weights."""

    def test_of_a_table(self, tmp_path):
        settings = {"target": "label", "model": {"width": 16, "layers": 1}, "results": {"explain": "off"},
                    "training": {"privacy": {"epsilon": 8}, "epochs": 6}}  # fmt: skip
        run = weft.Pipeline(settings).run(numeric(2_000), tmp_path / "run", quiet=True)
        said = run.figures["privacy"]
        assert said["spent"] <= 8 and said["delta"] == pytest.approx(1 / (10 * said["rows"]))
        assert [m["key"] for m in run.figures["models"]] == ["weft"]  # simple models are not private
        assert run.figures["models"][0]["metrics"]["accuracy"]["value"] > 0.7
        text = (run.path / "metrics.jsonl").read_text()
        assert "valid_loss" in text and "train_loss" not in text and "train_gradient" not in text
        assert not list(run.path.rglob(KEY_FILE))
        assert "epsilon" in (run.path / "README.md").read_text()

    def test_of_texts_the_unit_is_a_text(self, tmp_path):
        table = {"text": [" ".join(sentences(5, seed=i)) for i in range(60)]}
        settings = {"target": {"next_token": "text"}, "model": {"width": 16, "layers": 1},
                    "features": {"text": {"type": "text", "max_tokens": 16, "vocabulary": "characters"}},
                    "training": {"privacy": {"epsilon": 8}, "epochs": 2}}  # fmt: skip
        import pandas

        run = weft.Pipeline(settings).run(pandas.DataFrame(table), tmp_path / "run", quiet=True)
        assert run.figures["privacy"]["rows"] == run.figures["data"]["split"]["train"]


class TestForetold:
    """What ``weft check`` says of a private training is what the training then does."""

    def test_of_a_table(self, tmp_path):
        pq.write_table(numeric(2_000), tmp_path / "t.parquet")
        settings = {"data": {"source": str(tmp_path / "t.parquet")}, "target": "label", "results": {"explain": "off"},
                    "model": {"width": 16, "layers": 1},
                    "training": {"privacy": {"epsilon": 8}, "epochs": 2}}  # fmt: skip
        found = estimate(from_mapping(settings))
        account = weft.Pipeline(settings).run(out=tmp_path / "run", quiet=True).figures["privacy"]
        made = sum(
            "train_rate" in json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        )
        assert found["steps"] == made and found["recipe"]["batch_rows"] == round(account["rate"] * account["rows"])
        assert "all of them are made" in found["words"]["time"]
        settings["training"]["privacy"]["epsilon"] = 1e-3
        with pytest.raises(SettingsError, match="must be at least"):
            estimate(from_mapping(settings))

    def test_of_texts(self, tmp_path):
        texts = [" ".join(sentences(20, seed=i)) for i in range(80)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet")
        settings = {"data": {"source": str(tmp_path / "t.parquet")}, "target": {"next_token": "text"},
                    "features": {"text": {"type": "text", "max_tokens": 16, "vocabulary": "characters"}},
                    "model": {"width": 16, "layers": 1},
                    "training": {"privacy": {"epsilon": 8}, "epochs": 3}}  # fmt: skip
        assert estimate_task(from_mapping(settings))["steps"] == 3 * 4  # of 60 texts 16 a step, not of pieces

    def test_gradients_of_rows_are_held_each_by_itself(self):
        def cost(recipe):
            return step_cost(Net(), recipe, lambda batch: net.loss(batch), lambda rows: fetch(rows), np.arange(100))[1]

        net = Net()
        numbers = sum(p.numel() for p in net.parameters())
        recipe = replace(RECIPE, batch_rows=32)
        assert cost(recipe) - cost(replace(recipe, privacy=None)) >= 32 * numbers * 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"training": {"mixup": 0.2}}, "mixes rows"),
        ({"training": {"class_weight": "balanced"}}, "counted from the rows"),
        ({"training": {"patience": 3}}, "makes all its steps"),
        ({"training": {"precision": "bfloat16"}}, "float32"),
        ({"training": {"accumulate": 2}}, "in parts anyway"),
        ({"preprocess": {"duplicates": "near"}}, "decide on others"),
        ({"training": {"fairness": {"how": "penalty", "by": "a"}}}, "looks at other rows"),
        ({"model": {"copies": 3}}, "spend epsilon anew"),
        ({"target": {"column": "y", "type": "embedding"}}, "compares each text with those of other rows"),
    ],
)
def test_what_breaks_the_promise_is_refused(more, said):
    settings = {"target": "y", **more, "training": {**more.get("training", {}), "privacy": {"epsilon": 3}}}
    with pytest.raises(SettingsError, match=said):
        weft.Pipeline(settings)
