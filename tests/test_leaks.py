"""What a run remembers, from training to ``weft audit``: less as epsilon falls."""

import numpy as np
import pandas as pd
import pytest
from tests.texts import sentences

import weft
from weft.data.table import Table
from weft.errors import DataError, SettingsError, UsageError
from weft.features.canaries import Canary, canaries
from weft.shadows import train_shadows


def noisy(rows, seed=0):
    """A third of the answers are chance, and every row has a name: a model can know them by heart at no cost."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    y = np.where(random.random(rows) < 0.67, x > 0, random.random(rows) < 0.5)
    return pd.DataFrame({"x": x, "who": [f"n{i}" for i in range(rows)], "y": np.where(y, "yes", "no")})


def settings_of(**training):
    return {
        "target": "y", "model": {"width": 32, "layers": 1, "copies": 1, "dropout": 0.0},
        "data": {"split": {"test": 0.4, "valid": 0.1}}, "features": {"who": "category"},
        "results": {"explain": "off", "baselines": False},
        "training": {"seed": 1, "batch_rows": 32, **training},
    }  # fmt: skip


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return weft.Pipeline(settings_of(epochs=60, patience=1_000, learning_rate=1e-2)).run(
        noisy(500), folder / "run", quiet=True
    )


def members(run, shadows=()):
    return run.audit(noisy(500), shadows=shadows)["sections"]["members"]["attacks"]


class TestMembers:
    def test_what_is_known_by_heart_is_recognised(self, remembering):
        assert members(remembering)["loss"]["auc"]["value"] > 0.6

    def test_a_private_run_is_not(self, tmp_path, remembering):
        run = weft.Pipeline(settings_of(epochs=10, privacy={"epsilon": 1.0})).run(
            noisy(500), tmp_path / "r", quiet=True
        )
        found = run.audit(noisy(500))["sections"]["members"]
        auc = found["attacks"]["loss"]["auc"]
        # its noise is another each time: more than four standard errors, of 75 rows beside 425
        assert abs(auc["value"] - 0.5) < 0.16 and auc["value"] < members(remembering)["loss"]["auc"]["value"]
        assert found["bound"] == pytest.approx(0.0272, abs=1e-3)
        assert "whatever the attack" in str(found["said"])

    def test_shadows_are_of_both_halves_and_tell_more(self, tmp_path):
        run = weft.Pipeline(settings_of(epochs=6, patience=1_000, learning_rate=5e-3)).run(
            noisy(500), tmp_path / "run", quiet=True
        )
        shadows = train_shadows(run, Table.of(noisy(500)), 2, tmp_path)
        learnt = np.stack([s.learnt for s in shadows])
        pool = np.load(run.path / "split.npy") != 1
        assert (learnt.sum(axis=0) == pool).all() and 0.4 < learnt[0][pool].mean() < 0.6
        found = members(run, shadows)
        assert found["ratio"]["auc"]["value"] > found["loss"]["auc"]["value"]
        with pytest.raises(UsageError, match="must be even"):
            train_shadows(run, Table.of(noisy(500)), 3, tmp_path)
        with pytest.raises(UsageError, match="very data of the training"):
            train_shadows(run, Table.of(noisy(400)), 2, tmp_path)

    def test_other_rows_have_no_such_section(self, remembering):
        assert "members" not in remembering.audit(noisy(100, seed=1))["sections"]


TEXTS = pd.DataFrame({"text": sentences(150)})


def writer(folder, **training):
    settings = {
        "target": {"next_token": "text"}, "model": {"width": 32, "layers": 1, "dropout": 0.0},
        "features": {"text": {"type": "text", "max_tokens": 48, "vocabulary": "characters"}},
        "training": {"canaries": 3, **training}, "results": {"baselines": False},
    }  # fmt: skip
    return weft.Pipeline(settings).run(TEXTS, folder, quiet=True)


class TestCanaries:
    @pytest.mark.slow
    def test_exposure_falls_with_how_often_and_with_epsilon(self, tmp_path):
        plain = writer(tmp_path / "plain", epochs=60, batch_rows=8, learning_rate=3e-3)
        private = writer(tmp_path / "private", epochs=4, privacy={"epsilon": 3.0})
        groups, other = (r.audit(TEXTS)["sections"]["canaries"]["groups"] for r in (plain, private))
        assert [g["times"] for g in groups] == [1, 4, 16]
        assert groups[2]["value"] > 8 and groups[2]["found"] == 1
        assert other[2]["value"] < groups[2]["value"] - 3

    def test_one_that_is_in_the_data_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"must not be in the data.*12345"):
            table = pd.DataFrame({"text": [*TEXTS["text"], "call me at 12345 now"]})
            weft.Pipeline({"target": {"next_token": "text"}, "training": {"canaries": ["at 12345 now"]}}).run(
                table, tmp_path / "run", quiet=True
            )
        with pytest.raises(SettingsError, match="one number of four digits"):
            weft.Pipeline({"target": {"next_token": "text"}, "training": {"canaries": ["no number"]}})
        with pytest.raises(SettingsError, match=r"is for target\.next_token"):
            weft.Pipeline({"target": "y", "training": {"canaries": 3}})

    def test_others_are_the_same_text_with_any_other_number(self):
        found = canaries(3, seed=0)
        assert [c.times for c in found] == [1, 4, 16] and found == canaries(3, seed=0) != canaries(3, seed=1)
        others = {Canary("my code is 0000, all 3 of it", 1).other(np.random.default_rng(i)).text for i in range(200)}
        assert len(others) > 150 and all(len(t) == 28 and t.endswith("all 3 of it") for t in others)
