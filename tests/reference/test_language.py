"""What LanguageModel and ImageModel add to the backbone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from weft.errors import CheckpointError, UsageError
from weft.models.checkpoints import load_hf, save_hf
from weft.models.families import FAMILIES, Settings, Unfit
from weft.models.language import Continuation, ImageConfig, ImageModel, LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig

READER = TransformerConfig(16, 1, 2)
WRITER = replace(READER, attention="writing")
TEXT = torch.randint(0, 20, (3, 6), generator=torch.Generator().manual_seed(0))
MASKS = {
    "right": torch.arange(6)[None, :] < torch.tensor([[6], [2], [4]]),
    "left": torch.arange(6)[None, :] >= torch.tensor([[0], [4], [2]]),
}


def model(config: LanguageConfig) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(config).eval()


@pytest.mark.parametrize("how", ["mean", "first", "last"])
@pytest.mark.parametrize("padding", MASKS)
def test_a_pooled_vector_is_that_of_the_text_alone(how, padding):
    reader, mask = model(LanguageConfig(READER, 20, output="none")), MASKS[padding]
    together = reader.pooled(TEXT, mask, how=how)
    for row in range(3):
        own = TEXT[row : row + 1, mask[row]]
        torch.testing.assert_close(together[row : row + 1], reader.pooled(own, how=how), rtol=1e-5, atol=1e-6)
        states = reader.hidden(own)[0]
        expected = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[how]
        torch.testing.assert_close(together[row], expected, rtol=1e-5, atol=1e-6)


def test_vectors_are_scaled_where_asked():
    """Embeddings times sqrt(D) (Vaswani 2017, 3.4); the output matrix is not scaled."""
    plain, scaled = (model(LanguageConfig(WRITER, 20, scaled=s)) for s in (False, True))
    torch.testing.assert_close(scaled.tokens(TEXT).states_BTD, plain.tokens(TEXT).states_BTD * math.sqrt(16))
    assert torch.equal(scaled.logits(torch.ones(1, 1, 16)), plain.logits(torch.ones(1, 1, 16)))


def test_special_ids_go_to_the_files_and_come_back(tmp_path):
    for number, end in enumerate([(), (3,), (3, 5)]):
        config = LanguageConfig(WRITER, 20, begin=1, end=end, pad=0)
        save_hf(model(config), tmp_path / str(number))
        back = load_hf(tmp_path / str(number)).model.config
        assert (back.begin, back.end, back.pad, back.family) == (1, end, 0, "llama")


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("llama", "mlp_bias", True), ("qwen2", "use_sliding_window", True), ("qwen3", "use_sliding_window", True),
        ("qwen3", "attention_bias", True), ("bert", "position_embedding_type", "relative_key"),
        ("bert", "is_decoder", True), ("bert", "hidden_act", "swish"), ("gpt2", "scale_attn_weights", False),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True), ("vit", "qkv_bias", False),
    ],
)  # fmt: skip
def test_what_a_family_may_say_and_ours_cannot_do_is_refused(family, key, value):
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 20,
        "n_embd": 16, "n_layer": 1, "n_head": 2, "num_key_value_heads": 2,
    }  # fmt: skip
    FAMILIES[family].read(Settings(sizes), {})
    with pytest.raises(Unfit, match=f"'{key}' must be"):
        FAMILIES[family].read(Settings({**sizes, key: value}), {})


def test_defaults_are_those_of_transformers():
    """A key that config.json leaves out has the value that ``transformers`` gives it."""
    from transformers import AutoConfig

    for name, sizes in {
        "bert": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 5},
        "gpt2": {"n_embd": 24, "n_head": 2, "n_layer": 1},
        "mistral": {"hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1,
                    "intermediate_size": 5},
        "vit": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 5},
    }.items():  # fmt: skip
        whole = AutoConfig.for_model(name, **sizes).to_dict()
        size = {} if name == "vit" else {"vocab_size": whole["vocab_size"]}
        ours = FAMILIES[name].read(Settings({**sizes, **size}), {})
        theirs = FAMILIES[name].read(Settings(whole), {})
        assert ours.backbone == (
            replace(theirs.backbone, max_positions=2_048) if name == "mistral" else theirs.backbone
        ), name


def test_wrong_use_is_refused():
    reader, writer = model(LanguageConfig(READER, 20)), model(LanguageConfig(WRITER, 20))
    for wrong, words in [
        (lambda: Continuation(reader, TEXT), "cannot write"),
        (lambda: reader.loss(TEXT), "needs targets_BT"),
        (lambda: writer.pooled(TEXT, how="pooler"), "no pooler"),
        (lambda: model(LanguageConfig(READER, 20, output="none"))(TEXT), "output matrix"),
    ]:
        with pytest.raises(UsageError, match=words):
            wrong()


def test_pictures_of_another_size_are_refused():
    shape = TransformerConfig(16, 1, 2, positions="learned", max_positions=5)
    seer = ImageModel(ImageConfig(shape, 8, 4, classes=3)).eval()
    assert seer(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    for wrong in ((2, 3, 16, 8), (2, 1, 8, 8)):
        with pytest.raises(UsageError, match="Resize them"):
            seer(torch.zeros(wrong))
    with pytest.raises(ValueError, match="multiple of patch"):
        ImageConfig(shape, 9, 4)
    with pytest.raises(UsageError, match="no classes"):
        ImageModel(ImageConfig(shape, 8, 4))(torch.zeros(1, 3, 8, 8))


def test_a_recurrent_model_is_no_hugging_face_checkpoint(tmp_path):
    from weft.models.recurrent import RecurrentConfig

    with pytest.raises(CheckpointError):
        save_hf(model(LanguageConfig(RecurrentConfig(16, 1, "rnn", "writing"), 20)), tmp_path / "out")
