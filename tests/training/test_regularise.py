"""Mixup, consistency and dropout schedules against NumPy and torch; each changes training and resumes to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.killed import killed
from tests.tables import FAST, mixed, numeric, pictured
from tokenizers import Tokenizer, models

import weft
from weft import config
from weft.config import loads
from weft.data.plan import look
from weft.data.table import Table
from weft.errors import SettingsError
from weft.features.augment import augment_problem
from weft.features.batching import Batch
from weft.features.codecs import NumberCodec
from weft.features.images import ImageCodec
from weft.features.targets import ClassTarget, NumberTarget
from weft.models.heads import ClassHead
from weft.models.recurrent import RecurrentConfig
from weft.models.row import RowConfig, RowModel
from weft.models.transformer import TransformerConfig
from weft.training.loop import Recipe
from weft.training.parallel import ALL
from weft.training.regularise import Objective, cut_loss, distance, dropout_factor, mixed_loss

RECIPE = Recipe(
    epochs=1, batch_rows=8, learning_rate=0.01, weight_decay=0.0, patience=9, average=0.9, bfloat16=False, seed=0
)
X = torch.randn(8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def row_model(dropout=0.0, kind="class", backbone=None):
    codec = NumberCodec("x")
    codec.edges = np.linspace(-2, 2, 9)
    target = NumberTarget("y") if kind == "number" else ClassTarget("y", ["a", "b", "c"])
    if isinstance(target, ClassTarget):
        target.counts = [3, 3, 2]
    backbone = backbone or TransformerConfig(width=16, layers=2, heads=2, dropout=dropout, attention_dropout=dropout)
    torch.manual_seed(0)
    model = RowModel([codec], target, RowConfig(backbone, 16, dropout, linear=("number",)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def batch(target=Y):
    return Batch({"x": {"value": X, "spike": torch.zeros(8, dtype=torch.int32)}}, target, 8)


def drawing(seed):
    """All rows of a batch, with draws of a seed."""
    return replace(ALL, random=np.random.default_rng(seed))


def test_without_settings_the_loss_is_the_models_own():
    model = row_model()
    assert torch.equal(Objective(model, RECIPE)(batch(), 0.5), model.loss(batch()))


def test_the_distance_is_the_symmetric_kullback_leibler_divergence():
    model = row_model()
    out = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    p, q = out.softmax(-1).chunk(2)
    expected = (F.kl_div(q.log(), p, reduction="batchmean") + F.kl_div(p.log(), q, reduction="batchmean")) / 2
    torch.testing.assert_close(distance(model, out), expected)
    assert isinstance(model.head, ClassHead)
    number = row_model(kind="number")
    torch.testing.assert_close(distance(number, torch.tensor([[1.0], [2.0], [4.0], [2.0]])), torch.tensor(4.5))


def test_consistency_weighs_the_distance_of_two_passes():
    still = row_model()  # nothing drops out: the passes are equal and nothing is added
    torch.testing.assert_close(Objective(still, replace(RECIPE, consistency=5.0))(batch(), 0.5), still.loss(batch()))
    model = row_model(dropout=0.3)
    losses = []
    for weight in (1.0, 3.0):
        torch.manual_seed(3)
        losses.append(Objective(model, replace(RECIPE, consistency=weight))(batch(), 0.5))
    torch.manual_seed(3)
    twice = Batch({"x": {n: torch.cat([t, t]) for n, t in batch().columns["x"].items()}}, torch.cat([Y, Y]), 16)
    out = model(twice)
    apart = distance(model, out)
    assert apart > 0.01
    torch.testing.assert_close(losses[0], F.cross_entropy(out, torch.cat([Y, Y])) + apart)
    torch.testing.assert_close(losses[1] - losses[0], 2 * apart)


@pytest.mark.parametrize("kind", ["class", "number"])
def test_mixup_mixes_what_is_read_and_the_answers_by_one_share(kind):
    model, target = row_model(kind=kind), Y if kind == "class" else X * 2
    got = mixed_loss(model, batch(target), 0.4, drawing(5))
    random = np.random.default_rng(5)
    share = random.beta(0.4, 0.4)
    other = torch.from_numpy(random.permutation(8))
    assert 0 < share < 1 and not torch.equal(other, torch.arange(8))
    read, linear = model.read(model.embedding(batch().columns)), model.linear(batch().columns)
    out = model.head(share * read + (1 - share) * read[other]) + share * linear + (1 - share) * linear[other]
    if kind == "class":  # the cross-entropy with a mixed answer
        truth = share * F.one_hot(Y, 3) + (1 - share) * F.one_hot(Y, 3)[other]
        expected = -(truth * out.log_softmax(-1)).sum(-1).mean()
    else:
        expected = (share * (out[:, 0] - target) ** 2 + (1 - share) * (out[:, 0] - target[other]) ** 2).mean()
    torch.testing.assert_close(got, expected)
    assert torch.equal(Objective(model, replace(RECIPE, mixup=0.4))(batch(target), 0.5, drawing(5)), got)


def test_dropout_factors():
    assert [dropout_factor("early", d) for d in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 0, 0]
    assert [dropout_factor("late", d) for d in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 1, 1]
    assert [dropout_factor("rising", d) for d in (0.0, 0.25, 1.0)] == [0, 0.25, 1]


@pytest.mark.parametrize("backbone", [None, RecurrentConfig(16, 2, "gru", dropout=0.4)])
def test_a_schedule_scales_every_dropout_of_the_model(backbone):
    model = row_model(0.4, backbone=backbone)
    objective = Objective(model, replace(RECIPE, dropout_schedule="late"))

    def spread(done):
        return torch.stack([objective(batch(), done).detach() for _ in range(6)]).std()

    assert spread(0.1) < 1e-5 and spread(0.9) > 0.01 and spread(0.2) < 1e-5
    Objective(model, replace(RECIPE, dropout_schedule="rising"))  # of the shares as built, not as left at zero
    rising = Objective(row_model(0.4, backbone=backbone), replace(RECIPE, dropout_schedule="rising"))
    rising(batch(), 0.5)
    inner = [m.config for m in rising.model.modules() if hasattr(m, "config")]
    assert inner and {c.dropout for c in inner} == {0.2} and rising.model.head.read.dropout == 0.2


SETTINGS = {
    "augment": {"delete": 0.2, "swap": 0.1, "typo": 0.1, "mask": 0.1},
    "mixup": 0.3,
    "consistency": 1.0,
    "dropout_schedule": "rising",
    "column_dropout": 0.3,
}


def trained(out, training, **other):
    training = {**FAST["training"], "seed": 1, **training}
    settings = {
        "model": {**FAST["model"], "dropout": 0.2},
        "training": training,
        "results": {"baselines": False, "explain": "off"},
    }
    return weft.train(mixed(200), "bought", out, quiet=True, **{**settings, **other})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain") / "run", {}).predict(mixed(60))


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_setting_has_an_effect_and_repeats_to_the_bit(name, plain, tmp_path):
    one, two = (trained(tmp_path / n, {name: SETTINGS[name]}).predict(mixed(60)) for n in "ab")
    assert one.equals(two) and not one.equals(plain)


@pytest.mark.parametrize(
    "names", [("augment", "mixup"), ("augment", "consistency", "dropout_schedule", "column_dropout")]
)
def test_killed_and_resumed_ends_with_the_same_bits(names, tmp_path):
    training = {**FAST["training"], "seed": 1, **{n: SETTINGS[n] for n in names}}
    settings = {"target": "bought", "model": {**FAST["model"], "dropout": 0.2}, "training": training,
                "results": {"baselines": False, "explain": "off"}}  # fmt: skip
    whole = weft.Pipeline(settings).run(mixed(200), tmp_path / "whole")
    with killed(at=7):
        weft.Pipeline(settings).run(mixed(200), tmp_path / "killed")
    resumed = weft.Pipeline(settings).run(mixed(200), tmp_path / "killed", resume=True)
    assert resumed.predict(mixed(60)).equals(whole.predict(mixed(60)))


class TestBadInput:
    def test_augment_without_a_text(self, tmp_path):
        with pytest.raises(SettingsError, match=r"training.augment: 'delete' changes text columns. The table has none"):
            weft.train(numeric(60), "label", tmp_path / "run", quiet=True, training={"augment": {"delete": 0.1}})
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("training", "words"),
        [
            ("{augment: {}}", "must change something"),
            ("{augment: {delte: 0.1}}", "Did you mean 'delete'"),
            ("{augment: {delete: 1}}", "less than 1"),
            ("{mixup: 0.2, consistency: 1}", "exclude each other"),
            ("{mixup: -1}", "greater than or equal to 0"),
            ("{dropout_schedule: later}", "Did you mean 'late'"),
        ],
    )
    def test_settings_that_cannot_be(self, training, words):
        with pytest.raises(SettingsError, match=words):
            loads(f"data: {{source: a.csv}}\ntarget: y\ntraining: {training}\n", "weft.yaml")

    @pytest.mark.parametrize("name", list(SETTINGS))
    def test_a_language_task_has_none_of_them(self, name):
        with pytest.raises(
            SettingsError, match=rf"'training.{name}' is for a target column of a row, not next_token. Remove it"
        ):
            weft.Pipeline({"target": {"next_token": "text"}, "training": {name: SETTINGS[name]}})

    def test_a_checkpoint_that_cannot_hide_tokens(self, tmp_path):
        made = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
        settings = config.from_mapping({"target": "bought", "training": {"augment": {"mask": 0.1}}})
        plan = look(settings, Table.of(mixed(50)))
        with pytest.raises(SettingsError, match=r"augment.mask: needs a token that hides others.*say delete"):
            augment_problem(settings, plan, made)
        made.add_special_tokens(["[MASK]"])
        augment_problem(settings, plan, made)


class TestCutMix:
    def model(self):
        codec = ImageCodec("p")
        codec.fix(8, [0.0], [1.0])
        target = ClassTarget("y", ["a", "b", "c"])
        target.counts = [3, 3, 2]
        backbone = TransformerConfig(width=16, layers=1, heads=2)
        torch.manual_seed(0)
        return RowModel([codec], target, RowConfig(backbone, 16, 0.0, linear=())).eval()

    def batch(self, present=None):
        pixels = torch.arange(1, 9, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 8, 8) * 20
        here = torch.ones(8, dtype=torch.uint8) if present is None else present
        return Batch({"p": {"pixels": pixels.clone(), "present": here}}, Y, 8)

    def cut(self, monkeypatch, batch, seed):
        """The pixels that the model saw, the loss, and the outputs."""
        model, seen = self.model(), []
        plain = model.forward
        monkeypatch.setattr(model, "forward", lambda b: seen.append(b) or plain(b))
        loss = cut_loss(model, batch, 1.0, drawing(seed))
        (inner,) = seen
        return inner.columns["p"]["pixels"][:, 0], loss, plain(inner)

    def test_the_loss_is_weighed_by_the_area_that_is_kept(self, monkeypatch):
        batch, kept = self.batch(), []
        for seed in range(20):
            pixels, loss, out = self.cut(monkeypatch, batch, seed)
            own = batch.columns["p"]["pixels"][:, 0]
            foreign = pixels != own
            other = torch.tensor(
                [int((p[f][0] if f.any() else p[0, 0]) // 20 - 1) for p, f in zip(pixels, foreign, strict=True)]
            )
            shares = 1 - foreign.float().mean(dim=(1, 2))
            share = float(shares[shares < 1].mean()) if (shares < 1).any() else 1.0
            assert ((shares == 1) | (shares - share).abs().lt(1e-6)).all()  # one rectangle for the batch
            for place in foreign.flatten(1).any(1).nonzero()[:, 0]:
                f = foreign[place]
                assert f.sum() == f.any(0).sum() * f.any(1).sum() and pixels[place][f].unique().numel() == 1
            weights = torch.full((8,), share)
            expected = F.cross_entropy(out, Y, reduction="none") * weights + (1 - weights) * F.cross_entropy(
                out, Y[other], reduction="none"
            )
            torch.testing.assert_close(loss, expected.mean(), atol=1e-5, rtol=1e-5)
            kept.append(share)
        assert 0.3 < np.mean(kept) < 0.9 and np.std(kept) > 0.1
        assert sorted(batch.columns["p"]["pixels"].unique().tolist()) == [20 * i for i in range(1, 9)]

    def test_a_row_without_its_picture_stays_as_it_is(self, monkeypatch):
        present = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.uint8)
        for seed in range(5):
            pixels, *_ = self.cut(monkeypatch, self.batch(present), seed)
            assert (pixels[2] == 60).all() and (pixels[4] == 100).all()
            assert not torch.isin(pixels, torch.tensor([60, 100], dtype=torch.uint8))[present.bool()].any()

    def test_it_is_for_pictures_alone(self):
        settings = config.from_mapping({"target": "side", "training": {"cutmix": 1.0}})
        with pytest.raises(SettingsError, match="the row must hold nothing else"):
            augment_problem(settings, look(settings, Table.of(pictured(40))), None)
        alone = Table.of(pictured(40).select(["photo", "side"]))
        augment_problem(settings, look(settings, alone), None)
        changed = config.from_mapping({"target": "bought", "training": {"augment": {"flip": True}}})
        with pytest.raises(SettingsError, match=r"'flip' changes image columns. The table has none"):
            augment_problem(changed, look(changed, Table.of(mixed(40))), None)
