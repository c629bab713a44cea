"""A table's model from a checkpoint: the texts are read as the checkpoint reads them, and it goes back whole."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from tests.tables import mixed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.modules.module import register_module_forward_hook

import weft
from weft import config, defaults
from weft.cli import call
from weft.errors import CheckpointError, RunError, SettingsError, UsageError
from weft.exchange import export_hf, import_checkpoint
from weft.features.batching import collate
from weft.models.checkpoints import save_hf
from weft.models.families import FAMILIES, Settings
from weft.models.heads import ClassHead
from weft.models.language import LanguageModel
from weft.models.pretrained import extract, fill, find, layerwise, load_text_model
from weft.models.recurrent import Recurrent
from weft.models.row import RowConfig, RowModel
from weft.models.transformer import Transformer
from weft.preprocess.clean import CleanBatch
from weft.training.fit import reads_once, start
from weft.training.optimizers import adamw

SHAPES = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
             "max_position_embeddings": 40, "vocab_size": 300},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "intermediate_size": 64, "vocab_size": 300, "tie_word_embeddings": True},
}  # fmt: skip


def tokenizer(family):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [t for t in mixed(300)["review"].to_pylist() if t]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if family == "bert":
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return made


@pytest.fixture(scope="module", params=list(SHAPES))
def checkpoint(request, tmp_path_factory):
    family = request.param
    names = {} if family == "bert" else {"lm_head.weight": ()}
    config = FAMILIES[family].read(Settings({"model_type": family, **SHAPES[family]}), names)
    torch.manual_seed(0)
    model = LanguageModel(config)
    folder = tmp_path_factory.mktemp("checkpoint") / family
    save_hf(model, folder, tokenizer(family))
    return folder


SETTINGS = {
    "training": {"epochs": 4, "batch_rows": 32, "learning_rate": 0.01},
    "results": {"baselines": False, "explain": "off"},
}


def row_model(source, table):
    """An untrained RowModel that reads ``table`` from the checkpoint, and the codes of its rows."""
    from weft.data_settings import FeatureSettings
    from weft.features.columns import Columns
    from weft.features.fit import CODECS
    from weft.features.targets import ClassTarget
    from weft.preprocess.clean import Cleaner

    codec = CODECS["text"]("review", FeatureSettings(type="text", max_tokens=30))
    target = ClassTarget("y", ["a", "b"])
    target.counts = [1, 1]
    columns = Columns(Cleaner({}), [codec], target, source.tokenizer)
    codec.observe(np.arange(len(table)), table)
    codec.count(table)
    codec.finish()
    shape = RowConfig(source.backbone, 16, 0.0, linear=(), pretrained=source.config)
    model = RowModel(columns.codecs, target, shape).eval()
    fill(model, source.model)
    return model, columns.encode(CleanBatch(np.arange(len(table)), {"review": table}, []))


def test_a_text_is_read_as_the_checkpoint_reads_it(checkpoint):
    source = load_text_model(checkpoint)
    texts = ["lovely soft fabric", "returned it at once, size 9 was huge", "x"]
    model, codes = row_model(source, pa.array(texts))
    with torch.no_grad():
        tokens = model.embedding(collate(codes, 3).columns)
        states, read = model.backbone(tokens), model.read(tokens)
    for row, text in enumerate(texts):
        ids = torch.tensor([source.tokenizer.encode(text, add_special_tokens=True).ids])
        with torch.no_grad():
            expected = source.model.hidden(ids)[0]
        filled = (
            torch.ones_like(tokens.columns_BT[row], dtype=torch.bool) if tokens.mask_BT is None else tokens.mask_BT[row]
        )
        ours = states[row][filled]
        if source.family == "bert":  # [CLS], the text, [SEP], and their mean as sentence embeddings take it
            torch.testing.assert_close(read[row], expected.mean(0), atol=1e-5, rtol=1e-4)
        else:  # a writer's reading token comes last and disturbs nothing before it
            ours = ours[:-1]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_a_run_starts_from_it_answers_alone_and_goes_back(checkpoint, tmp_path):
    pytest.importorskip("transformers")
    from transformers import AutoModel

    table = mixed(200)
    run = weft.train(table, "bought", tmp_path / "run", quiet=True, model={"from": str(checkpoint)}, **SETTINGS)
    assert "from a checkpoint" in run.figures["model"]["shape"]
    answers = run.predict(table)
    again = weft.load(run.path)
    assert again.predict(table).equals(answers)  # the checkpoint is not needed any more: its weights are in the run
    inside = run.model.each()[0]
    before = load_text_model(checkpoint).model.backbone.state_dict()
    moved = [n for n, p in inside.backbone.state_dict().items() if not torch.equal(p, before[n])]
    assert moved
    told = export_hf(run.path, tmp_path / "hf")
    assert told["family"] == checkpoint.name
    theirs = AutoModel.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(5, 300, (2, 12))
    with torch.no_grad():
        expected = theirs(input_ids=ids).last_hidden_state
        ours = extract(inside).hidden(ids)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_lora_trains_little_and_is_merged(checkpoint, tmp_path):
    model = {"from": str(checkpoint), "adapter": "lora", "rank": 4}
    run = weft.train(mixed(200), "bought", tmp_path / "run", quiet=True, model=model, **SETTINGS)
    assert run.figures["model"]["trained"] < run.figures["model"]["parameters"]
    assert not any("lora" in n for n in run.model.state_dict())  # merged
    before = load_text_model(checkpoint).model
    inside = run.model.each()[0]
    assert torch.equal(inside.embedding.by_type["text"].table.weight, before.table.weight)
    name = "blocks.0.attention.qkv.weight"
    difference = inside.backbone.state_dict()[name] - before.backbone.state_dict()[name]
    assert 0 < torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4


def test_a_frozen_checkpoint_reads_each_row_once_and_stays(checkpoint, tmp_path):
    table, read = mixed(200).select(["review", "bought"]), []

    def count(module, args, out):
        if isinstance(module, (Transformer, Recurrent)):
            read.append(args[0].states_BTD.shape[0])

    hook = register_module_forward_hook(count)
    model = {"from": str(checkpoint), "adapter": "head"}
    run = weft.train(table, "bought", tmp_path / "run", quiet=True, model=model, **SETTINGS)
    hook.remove()
    assert sum(read) == 200  # those learnt from, those watched and those judged, whatever the epochs
    before, inside = load_text_model(checkpoint).model, run.model.each()[0]
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(inside.backbone.state_dict()[name], value), name
    learnt = [*inside.head.parameters(), *inside.linear.parameters()]
    assert run.figures["model"]["trained"] == sum(p.numel() for p in learnt)


def test_what_a_frozen_checkpoint_read_answers_as_reading_does(checkpoint):
    source = load_text_model(checkpoint)
    model, codes = row_model(source, pa.array(["lovely soft", "soft lovely", None]))
    batch = collate(codes, 3)
    start(model.eval(), source.model, lora=None, frozen=True)
    assert reads_once(model)
    wanted = model(batch)
    batch.reads = model.read(model.embedding(batch.columns))
    torch.testing.assert_close(model(batch), wanted)
    torch.testing.assert_close(model(batch.row(torch.tensor([1]))), wanted[1:2])


def test_a_frozen_checkpoint_is_told_of_other_columns_and_learns_privately(checkpoint, tmp_path):
    settings = {**SETTINGS, "training": {"privacy": {"epsilon": 40}, "epochs": 2}}
    model = {"from": str(checkpoint), "adapter": "head"}
    run = weft.train(mixed(400), "bought", tmp_path / "run", quiet=True, model=model, **settings)
    inside, before = run.model.each()[0], load_text_model(checkpoint).model
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(inside.backbone.state_dict()[name], value), name
    numbers = sum(p.numel() for kind, e in inside.embedding.by_type.items() if kind != "text" for p in e.parameters())
    assert run.figures["model"]["trained"] > numbers and run.figures["privacy"]["spent"] <= 40
    with pytest.raises(SettingsError, match="head is for a target column of a row"):
        config.from_mapping({"target": {"next_token": "review"}, "model": model})


def test_rates_fall_from_the_head_to_the_tokens(checkpoint):
    model, _ = row_model(load_text_model(checkpoint), pa.array(["lovely soft", "soft lovely"]))
    layerwise(model, top=0.5, decay=0.8)
    found = rates(model)
    assert found["head.read.weight"] == 1.0 and found["backbone.blocks.1.attention.out.weight"] == 0.5
    assert found["backbone.blocks.0.attention.out.weight"] == pytest.approx(0.4)


def rates(model):
    """Name of a trained parameter -> its share of the learning rate."""
    own = {id(p): group["factor"] for group in adamw(model, 1.0, 0.1).param_groups for p in group["params"]}
    return {name: own[id(p)] for name, p in model.named_parameters() if id(p) in own}


def test_a_checkpoint_learns_more_slowly_than_the_head_and_the_lower_the_slower(checkpoint):
    source = load_text_model(checkpoint)
    model, _ = row_model(source, pa.array(["lovely soft", "soft lovely"]))
    start(model, source.model, lora=None)
    found = rates(model)
    blocks = [{f for n, f in found.items() if n.startswith(f"backbone.blocks.{i}.")} for i in (0, 1)]
    assert blocks == [{0.3 * 0.85}, {0.3}]
    assert {f for n, f in found.items() if n.startswith("head.")} == {1.0}
    assert not any(n.startswith("embedding.by_type.text") for n in found)  # the table of tokens stays


def test_adapters_learn_faster_than_the_head(checkpoint):
    source = load_text_model(checkpoint)
    model, _ = row_model(source, pa.array(["lovely soft", "soft lovely"]))
    start(model, source.model, lora=4)
    found = rates(model)
    assert {f for n, f in found.items() if "lora_" in n} == {3.0} and found["head.read.weight"] == 1.0
    assert all("lora_" in n for n in found if n.startswith("backbone."))


def test_answers_of_a_fine_tuning_are_smoothed(checkpoint):
    source = load_text_model(checkpoint)
    settings = config.from_mapping({"target": "y", "model": {"from": str(checkpoint)}})
    shape = defaults.row_config(settings, defaults.Facts(rows=100, text=True, classes=2, source=source))
    head = ClassHead(4, 4, [1, 1], 0.0, smoothing=shape.smoothing)
    out, truth = torch.tensor([[3.0, -1.0]]), torch.tensor([0])
    p = np.exp([3.0, -1.0]) / np.exp([3.0, -1.0]).sum()
    assert head.train().loss(out, truth).item() == pytest.approx(-0.975 * np.log(p[0]) - 0.025 * np.log(p[1]), rel=1e-4)
    assert head.eval().loss(out, truth).item() == pytest.approx(-np.log(p[0]), rel=1e-4)  # not what is watched


def test_the_best_step_of_a_fine_tuning_is_that_of_the_best_calibrated_answers(checkpoint, tmp_path):
    """Smoothed answers are too modest; raw, an early step would look better than a later one that knows more."""
    table = mixed(300).append_column("part", pa.array(["train"] * 180 + ["valid"] * 100 + ["test"] * 20))
    settings = SETTINGS | {"training": SETTINGS["training"] | {"precision": "float32"}}
    run = weft.train(table, "bought", tmp_path / "run", quiet=True, model={"from": str(checkpoint)},
                     data={"split": {"column": "part"}}, **settings)  # fmt: skip
    watched = table.slice(180, 100)
    p = np.stack([run.predict(watched)[f"probability of {c}"].to_numpy() for c in ("no", "yes")], axis=1)
    truth = (watched["bought"].to_numpy() == "yes").astype(int)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    best = min(line["valid_loss"] for line in lines if "valid_loss" in line)
    assert abs(run.figures["model"]["temperature"] - 1) > 0.02
    assert best == pytest.approx(-np.log(p[np.arange(100), truth]).mean(), abs=1e-4)


def test_import_tells_what_it_found_and_export_gives_it_back(checkpoint, tmp_path, capsys):
    assert call(["import", str(checkpoint), "-o", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == checkpoint.name and found["layers"] == 2 and found["width"] == 32
    assert call(["export", str(tmp_path / "run"), "--to", "hf", "-o", str(tmp_path / "hf")]) == 0
    a, b = (load_file(p / "model.safetensors") for p in (checkpoint, tmp_path / "hf"))
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    with pytest.raises(RunError, match="imported checkpoint"):
        weft.load(tmp_path / "run")
    run = weft.train(
        mixed(150), "bought", tmp_path / "t", quiet=True, model={"from": str(tmp_path / "run")}, **SETTINGS
    )
    assert run.figures["model"]["from"] == str(tmp_path / "run")


def test_few_texts_from_scratch_are_learnt_in_steps_enough():
    plain = config.from_mapping({"target": "y"})
    steps = {
        (rows, text): -(-rows // r.batch_rows) * r.epochs
        for rows in (500, 20_000) for text in (True, False)
        if (r := defaults.recipe(plain, defaults.Facts(rows, text, 2), "cpu"))
    }  # fmt: skip
    assert steps[500, True] >= 600 and steps[20_000, True] == 3 * 625
    assert steps[500, False] == 30 * 8 and steps[20_000, False] == 6 * 79  # numbers and categories as before


class TestBadInput:
    def test_no_text_column(self, checkpoint, tmp_path):
        table = mixed(100).drop_columns("review")
        with pytest.raises(SettingsError, match=r"model.from.*text columns"):
            weft.train(table, "bought", tmp_path / "run", quiet=True, model={"from": str(checkpoint)})
        assert not (tmp_path / "run").exists()

    def test_no_such_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match="must be a folder"):
            weft.train(
                mixed(100), "bought", tmp_path / "run", quiet=True, model={"from": str(tmp_path / "no" / "no" / "no")}
            )
        assert not (tmp_path / "run").exists()

    def test_a_slip_of_the_finger_is_named_and_never_asked_for_at_the_hub(self, tmp_path, monkeypatch):
        (tmp_path / "models" / "bert").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=r"no such folder\. Did you mean 'bert'.*hf://OWNER/NAME"):
            find("models/berrt")
        (tmp_path / "models" / "file").write_text("")
        with pytest.raises(CheckpointError, match="It is a file"):
            find("models/file")

    def test_more_tokens_than_the_checkpoint_has_positions_for(self, tmp_path):
        made = FAMILIES["bert"].read(Settings({"model_type": "bert", **SHAPES["bert"]}), {})
        save_hf(LanguageModel(made), tmp_path / "bert", tokenizer("bert"))
        long = {"type": "text", "max_tokens": 64}
        table = mixed(60)
        for target, features in (
            ("bought", {"review": long}),
            ({"column": "review", "type": "embedding"}, {"colour": long}),
        ):
            with pytest.raises(SettingsError, match=r"max_tokens: the checkpoint reads at most .*Got 64"):
                weft.train(
                    table, target, tmp_path / "run", quiet=True, features=features,
                    model={"from": str(tmp_path / "bert")},
                )  # fmt: skip

    def test_a_damaged_checkpoint_writes_nothing(self, checkpoint, tmp_path):
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(checkpoint, copy)
        (copy / "manifest.json").unlink()
        data = (copy / "model.safetensors").read_bytes()
        (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
        with pytest.raises(CheckpointError, match="cut short or damaged"):
            import_checkpoint(str(copy), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_run_of_a_shape_of_its_own_has_no_hugging_face_form(self, tmp_path):
        run = weft.train(mixed(100), "bought", tmp_path / "run", quiet=True, **SETTINGS)
        with pytest.raises(UsageError, match="trained from one"):
            export_hf(run.path, tmp_path / "hf")

    @pytest.mark.parametrize(
        ("model", "word"),
        [
            ({"from": "x", "width": 32}, "the checkpoint says 'width' itself"),
            ({"adapter": "lora"}, "beside a checkpoint"),
            ({"from": "x", "rank": 4}, "rank is for an adapter"),
            ({"cell": "gru"}, "backbone: rnn"),
        ],
    )
    def test_settings_that_do_not_belong_together(self, model, word):
        with pytest.raises(SettingsError, match=word):
            weft.Pipeline({"target": "y", "model": model})


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_every_column_type_is_read_by_a_recurrent_network(cell, tmp_path):
    table = mixed(300)
    settings = {"training": {"epochs": 6, "batch_rows": 32}, "results": {"baselines": False, "explain": "off"}}
    model = {"backbone": "rnn", "cell": cell, "width": 24, "layers": 2}
    run = weft.train(table, "bought", tmp_path / "run", quiet=True, model=model, **settings)
    answers = run.predict(table)
    alone = pa.concat_tables([run.predict(table.slice(i, 1)) for i in range(12)])
    np.testing.assert_allclose(answers["probability"][:12], alone["probability"], atol=1e-5)
    assert weft.load(run.path).predict(table).equals(answers)
    p = answers["probability of yes"].to_numpy()
    assert np.mean((p > 0.5) == (table["bought"].to_numpy() == "yes")) > 0.7
