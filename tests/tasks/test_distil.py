"""Learning from a trained run: the loss is Hinton's, the teacher is what is learnt from, and it must fit."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax
from tests.killed import killed
from tests.models.test_pretrained import SHAPES, tokenizer
from tests.tables import mixed
from tests.texts import sentences

import weft
from weft.cli import call
from weft.data.split import VALID
from weft.data.table import Table
from weft.errors import SettingsError, WeftError
from weft.features.batching import Batch
from weft.features.pieces import IGNORED, TextBatch
from weft.models.checkpoints import save_hf
from weft.models.families import FAMILIES, Settings
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.pretrained import extract, load_text_model, smaller
from weft.models.transformer import TransformerConfig
from weft.runs.judged import split_of
from weft.training.language import TokenObjective
from weft.training.loop import Distil
from weft.training.regularise import taught_loss
from weft.training_settings import DistilSettings

QUICK = {"epochs": 12, "learning_rate": 0.01, "batch_rows": 64, "patience": 12}
OFF = {"baselines": False, "explain": "off"}


def table(rows=500, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 2))
    kinds = np.array(["low", "middle", "high"])[np.digitize(x[:, 0] + x[:, 1], [-0.7, 0.7])]
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "kind": kinds, "sum": x[:, 0] + 2 * x[:, 1]})


def train(data, target, out, **training):
    others = {n: "off" for n in ("kind", "sum") if n != target}
    split = {"split": {"column": "part"}} if "part" in data else {}
    return weft.train(
        data, target, out, quiet=True, features=others, training={**QUICK, **training}, model={"copies": 1},
        results=OFF, data=split,
    )  # fmt: skip


def gone(teacher):
    """All may be lost beside the teacher."""
    return {"from": str(teacher.path), "max_loss": 1e6}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {target: train(table(), target, folder / target) for target in ("kind", "sum")}


def test_the_loss_is_that_of_the_paper(teachers):
    model = teachers["kind"].model.each()[0]
    columns = teachers["kind"].columns
    rng = np.random.default_rng(1)
    logits, taught, target = (
        rng.normal(size=(5, 3)),
        np.log(softmax(rng.normal(size=(5, 3)), 1)),
        rng.integers(3, size=5),
    )
    assert columns.target.type == "class"
    model.forward = lambda batch: torch.tensor(logits)
    batch = Batch({}, torch.tensor(target), 5, taught=torch.tensor(taught))
    p, q = softmax(taught / 3, 1), log_softmax(logits / 3, 1)
    kl = (p * (np.log(p) - q)).sum(1).mean()
    labels = -log_softmax(logits, 1)[np.arange(5), target].mean()
    found = taught_loss(model, batch, Distil(3.0, 0.7)).item()
    assert found == pytest.approx(0.3 * labels + 0.7 * 9 * kl, rel=1e-5)
    del model.forward


def test_what_is_learnt_is_what_the_teacher_says(teachers, tmp_path):
    wrong, right = table(seed=2), table(seed=3)
    wrong["part"] = np.repeat(["train", "valid", "test"], [400, 50, 50])
    wrong.loc[:399, ["kind", "sum"]] = wrong.loc[np.random.default_rng(0).permutation(400), ["kind", "sum"]].to_numpy()
    for target in ("kind", "sum"):
        run = train(wrong, target, tmp_path / target, distil={**gone(teachers[target]), "weight": 1.0})
        found = run.predict(right)["prediction"].to_numpy()
        if target == "kind":
            assert (found == right["kind"]).mean() > 0.7  # by chance 0.4
        else:
            assert np.corrcoef(found, right["sum"])[0, 1] > 0.8


def test_rows_without_a_label_have_the_answer_of_the_teacher(teachers, tmp_path):
    few = table(600, seed=5)
    few["part"] = np.repeat(["train", "valid", "test"], [500, 50, 50])
    few.loc[20:499, ["kind", "sum"]] = None  # 20 labels in the wrong places are left
    few.loc[:19, ["kind", "sum"]] = few.loc[19::-1, ["kind", "sum"]].to_numpy()
    few.loc[[520, 570], ["kind", "sum"]] = None  # of what is watched and judged
    right = table(seed=6)
    for target in ("kind", "sum"):
        run = train(few, target, tmp_path / target, distil={**gone(teachers[target]), "weight": 0.99})
        found = run.predict(right)["prediction"].to_numpy()
        if target == "kind":
            assert (found == right["kind"]).mean() > 0.8
        else:
            assert np.corrcoef(found, right["sum"])[0, 1] > 0.9
        said = run.figures["data"]
        assert (said["rows"], said["used"], said["rejected"], said["unlabelled"]) == (600, 598, 2, 480)
        assert said["split"] == {"train": 20, "valid": 49, "test": 49}
        aside = pd.read_parquet(run.path / "rejected.parquet")
        assert aside["row"].tolist() == [520, 570] and set(aside["reason"]) == {"the target is missing"}


def test_a_teacher_tuned_from_the_same_checkpoint_is_the_start(tmp_path):
    torch.manual_seed(0)
    config = FAMILIES["bert"].read(Settings({"model_type": "bert", **SHAPES["bert"]}), {})
    folder, data = tmp_path / "bert", mixed(150).select(["review", "bought"])
    save_hf(LanguageModel(config), folder, tokenizer("bert"))

    def tuned(out, model, **training):
        return weft.train(data, "bought", tmp_path / out, quiet=True, model=model, results=OFF,
                          training={"epochs": 1, "learning_rate": 1e-9, **training})  # fmt: skip

    def backbone(model):
        return model.backbone.state_dict()

    part = {"from": str(folder), "layers": 1, "ffn_width": 24}
    teacher = tuned("teacher", {"from": str(folder)}, epochs=2, learning_rate=0.01)
    other = tuned("other", {"width": 16, "layers": 1, "heads": 2})  # which no checkpoint began
    for run, began in ((teacher, extract(teacher.model.each()[0])), (other, load_text_model(folder).model)):
        student = tuned(f"of-{run.path.name}", part, distil=gone(run))
        found, wanted = (backbone(m) for m in (student.model.each()[0], smaller(began, 1, 24)))
        assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in wanted.items())
    same = tuned("same", {"from": str(folder), "layers": 2}, distil=gone(teacher))  # all of it: blocks, head, n-grams
    said = [run.predict(data)["probability of yes"].to_numpy() for run in (teacher, same)]
    np.testing.assert_allclose(*said, atol=1e-4)
    assert np.ptp(said[0]) > 0.2


def writer(out, **model):
    """A run that writes the sentences of ``tests.texts``."""
    training = {"epochs": model.pop("epochs", 1), "batch_rows": 16, **model.pop("training", {})}
    feature = {"type": "text", "max_tokens": 24, **model.pop("feature", {"vocabulary": 300})}
    settings = {"target": {"next_token": "text"}, "features": {"text": feature}, "training": training,
                "model": {"width": 32, "layers": 1, "heads": 2, **model}, "results": {"baselines": False}}  # fmt: skip
    return settings, weft.Pipeline(settings).run(texts(), out, quiet=True)


def texts():
    return pd.DataFrame({"text": sentences(300)})


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    return writer(tmp_path_factory.mktemp("writer") / "big", epochs=6, width=64, layers=2)[1]


def test_the_loss_of_next_tokens_is_that_of_the_paper(big):
    torch.manual_seed(0)
    teacher = big.loaded[0].eval()
    config = LanguageConfig(TransformerConfig(16, 1, 2, attention="writing"), teacher.config.vocabulary)
    model = LanguageModel(config)
    ids = torch.randint(teacher.config.vocabulary, (3, 9))
    targets = torch.cat([ids[:, 1:], torch.full((3, 1), IGNORED)], dim=1)
    targets[1, 4:] = IGNORED
    with torch.no_grad():
        q, p = model(ids).double().numpy(), teacher(ids).double().numpy()
    asked = targets.numpy() != IGNORED
    labels = -log_softmax(q, -1)[asked][np.arange(asked.sum()), targets.numpy()[asked]].mean()
    soft = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.from_numpy(log_softmax(q[asked] / 3, -1)), torch.from_numpy(softmax(p[asked] / 3, -1))
    )
    objective = TokenObjective(model, teacher=teacher, distil=Distil(3.0, 0.7)).train()
    found = objective.loss(TextBatch(ids, targets))
    assert found.item() == pytest.approx(0.3 * labels + 0.7 * 9 * soft.item(), rel=1e-4)
    found.backward()
    assert all(w.grad is None for w in teacher.parameters()) and all(w.grad is not None for w in model.parameters())
    assert objective.eval().loss(TextBatch(ids, targets)).item() == pytest.approx(labels, rel=1e-4)


def test_a_writer_learns_from_its_teacher_and_resumes_with_the_same_bits(big, tmp_path):
    distil = {"from": str(big.path), "weight": 1.0, "temperature": 1.0, "max_loss": 1e6}
    settings, whole = writer(tmp_path / "whole", epochs=2, training={"distil": distil}, feature={}, dropout=0.2)
    assert whole.loaded[1].to_str() == big.loaded[1].to_str()
    with killed(at=20):
        weft.Pipeline(settings).run(texts(), tmp_path / "killed", quiet=True)
    resumed = weft.Pipeline(settings).run(texts(), tmp_path / "killed", quiet=True, resume=True)
    alone = writer(tmp_path / "alone", epochs=2, feature={"vocabulary": 300}, dropout=0.2)[1]
    files = [load_file(run.path / "model.safetensors") for run in (whole, resumed, alone)]
    assert all(torch.equal(files[1][name], value) for name, value in files[0].items())
    assert not all(torch.equal(files[2][name], value) for name, value in files[0].items())
    points = whole.figures["distilled"]["points"]
    assert [p["kind"] for p in points] == ["teacher", "student"] and points[1]["megabytes"] < points[0]["megabytes"]
    assert points[1]["quality"] < 100  # it hesitated between 300 tokens


def test_a_teacher_that_does_not_write_or_reads_less_is_refused(big, teachers, tmp_path):
    for distil, feature, words in (
        (str(teachers["kind"].path), {}, "must be a model that writes"),
        (str(big.path), {"max_tokens": 100}, "reads at most 24 tokens. Got 100"),
        (str(big.path), {"vocabulary": 300}, "the checkpoint has its own tokens"),
    ):
        with pytest.raises(WeftError, match=words):
            writer(tmp_path / "run", training={"distil": {"from": distil}}, feature=feature)
    with pytest.raises(WeftError, match="is for a target column of a row or next_token, not masked_token"):
        weft.Pipeline({"target": {"masked_token": "text"}, "training": {"distil": {"from": "x"}}})


def test_killed_and_resumed_ends_with_the_same_bits(teachers, tmp_path):
    data = table(200)
    data.loc[::5, ["kind", "sum"]] = None  # which the teacher answers
    for target, few in (("kind", 4), ("sum", 9)):
        plain = train(data, target, tmp_path / "plain" / target)
        settings = plain.settings.model_copy(
            update={"training": plain.settings.training.model_copy(
                update={"distil": DistilSettings.model_validate(gone(teachers[target]))}
            )}
        )  # fmt: skip
        whole = weft.pipeline.run(settings, Table.of(data), tmp_path / "whole" / target)
        with killed(at=few):
            weft.pipeline.run(settings, Table.of(data), tmp_path / "killed" / target)
        resumed = weft.pipeline.run(settings, Table.of(data), tmp_path / "killed" / target, resume=True)
        files = [load_file(run.path / "model.safetensors") for run in (plain, whole, resumed)]
        assert all(torch.equal(files[2][name], value) for name, value in files[1].items())
        assert not all(torch.equal(files[0][name], value) for name, value in files[1].items())


def test_a_student_that_loses_too_much_is_refused_and_goes_on_where_that_is_allowed(tmp_path, capsys):
    data, out = table(), tmp_path / "run"
    data["kind"] = np.where(data["a"] * data["b"] > 0, "same", "other")  # which nothing linear can say
    data.to_csv(tmp_path / "t.csv", index=False)
    teacher = train(data, "kind", tmp_path / "teacher", epochs=20)
    (tmp_path / "weft.yaml").write_text(json.dumps({
        "version": 1, "data": {"source": str(tmp_path / "t.csv")}, "target": "kind", "model": {"copies": 1},
        "features": {"sum": "off"}, "results": OFF,
        "training": {"epochs": 1, "learning_rate": 1e-6, "distil": {"from": str(teacher.path)}},
    }))  # fmt: skip
    assert call(["check", str(tmp_path / "weft.yaml")]) == 0
    asked = ["run", str(tmp_path / "weft.yaml"), "-o", str(out)]
    assert call(asked) == 1
    assert "must lose at most 0.5 points of Accuracy beside its teacher" in capsys.readouterr().err
    assert not (out / "report.json").exists()
    curve, weights = (out / "metrics.jsonl").read_text(), (out / "model.safetensors").read_bytes()
    assert call([*asked, "--resume", "--set", "training.distil.max_loss=100"]) == 0
    assert (out / "metrics.jsonl").read_text() == curve and (out / "model.safetensors").read_bytes() == weights
    run = weft.load(out)
    found, valid = run.figures["distilled"], data[split_of(out) == VALID]
    assert run.settings.training.distil.max_loss == 100 and found["rows"] == len(valid) == 50
    for point, model in zip(found["points"], (teacher, run), strict=True):
        right = (model.predict(valid)["prediction"].to_numpy() == valid["kind"]).mean()
        assert point["quality"] == pytest.approx(right)
        assert point["loss"] == pytest.approx(100 * (found["points"][0]["quality"] - right))
        size = (model.path / "model.safetensors").stat().st_size
        assert point["megabytes"] == pytest.approx(size / 1e6, rel=0.1)
    assert "Beside its teacher" in (out / "report.html").read_text(encoding="utf-8")


def test_a_teacher_of_something_else_is_refused(teachers, tmp_path):
    with pytest.raises(SettingsError, match="must predict the class or the number 'kind'"):
        train(table(), "kind", tmp_path / "a", distil={"from": str(teachers["sum"].path)})
    other = table()
    other.loc[other["kind"] == "low", "kind"] = "tiny"
    with pytest.raises(SettingsError, match="lacks 'tiny'"):
        train(other, "kind", tmp_path / "b", distil={"from": str(teachers["kind"].path)})
    with pytest.raises(SettingsError, match=r"must read columns that the model reads too.*'b \(number\)'"):
        train(table().drop(columns="b"), "kind", tmp_path / "c", distil={"from": str(teachers["kind"].path)})
    with pytest.raises(WeftError, match="distil and mixup exclude each other"):
        train(table(), "kind", tmp_path / "d", mixup=0.2, distil={"from": "x"})


@pytest.mark.parametrize("feed_forward", ["gelu", "gated_silu"])
def test_a_smaller_checkpoint_is_the_larger_one_where_what_is_left_out_says_nothing(feed_forward):
    torch.manual_seed(0)
    config = TransformerConfig(32, 6, 4, ffn_width=24, feed_forward=feed_forward, biases="all")
    whole = LanguageModel(LanguageConfig(config, 40)).eval()
    ids, kept = torch.randint(40, (2, 7)), (1, 3, 5)
    with torch.no_grad():
        for place, block in enumerate(whole.backbone.blocks):
            if place not in kept:  # adds nothing to what comes in
                for part in (block.attention.out, block.feed_forward.down):
                    part.weight.zero_(), part.bias.zero_()
            block.feed_forward.down.weight[:, 5:20] = 0
        small = smaller(whole, 3, 9)
        assert small.config.backbone.layers == 3 and small.config.backbone.hidden_width == 9
        torch.testing.assert_close(small(ids), whole(ids), atol=1e-5, rtol=1e-5)
    with pytest.raises(WeftError, match=r"model.layers: must be at most that of the checkpoint, 6. Got 7"):
        smaller(whole, 7, None)
