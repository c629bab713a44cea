"""Tiny random models of ``transformers``, several shapes a family, to compare ours with."""

from __future__ import annotations

import torch
import transformers
from transformers.models.bert import BertConfig, BertForMaskedLM, BertModel
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel
from transformers.models.llama import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.mistral import MistralConfig, MistralForCausalLM
from transformers.models.qwen2 import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM
from transformers.models.vit import ViTConfig, ViTForImageClassification, ViTModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

V = 97
NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def _sizes(width, layers, heads, ffn, **more):
    return {
        "vocab_size": V, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": ffn, "initializer_range": 0.2, **more,
    }  # fmt: skip


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 5_000.0, "factor": 4.0}


def _gpt2(**more):
    return GPT2LMHeadModel, GPT2Config(vocab_size=V, **NO_IDS, **more)


def _writer(model, config, *sizes, **more):
    return model, config(**_sizes(*sizes, **NO_IDS, **more))


def _vit(model, image, patch, **more):
    sizes = _sizes(32, 2, 4, 64)
    del sizes["vocab_size"]
    return model, ViTConfig(image_size=image, patch_size=patch, **{**sizes, **more})


LLAMA, QWEN2 = (LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)
QWEN3, MISTRAL = (Qwen3ForCausalLM, Qwen3Config), (MistralForCausalLM, MistralConfig)
MILLION = {"rope_type": "default", "rope_theta": 1e6}

WRITERS = {
    "gpt2": _gpt2(n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2),
    "gpt2-wide": _gpt2(
        n_embd=48, n_layer=1, n_head=2, n_inner=80, n_positions=96, activation_function="gelu", initializer_range=0.3
    ),
    "llama": _writer(*LLAMA, 32, 2, 4, 88, num_key_value_heads=4),
    "llama-grouped": _writer(
        *LLAMA, 64, 3, 8, 96, num_key_value_heads=2, rope_parameters=LLAMA3, max_position_embeddings=256
    ),
    "llama-linear": _writer(
        *LLAMA, 48, 1, 4, 64, num_key_value_heads=1, head_dim=16, rope_parameters=LINEAR, tie_word_embeddings=True
    ),
    "qwen2": _writer(*QWEN2, 32, 2, 4, 64, num_key_value_heads=2),
    "qwen2-tied": _writer(
        *QWEN2, 48, 1, 6, 100, num_key_value_heads=6, tie_word_embeddings=True, rope_parameters=MILLION
    ),
    "qwen3": _writer(*QWEN3, 32, 2, 4, 64, num_key_value_heads=2, head_dim=16),
    "qwen3-tied": _writer(*QWEN3, 64, 1, 2, 40, num_key_value_heads=1, head_dim=32, tie_word_embeddings=True),
    "mistral": _writer(*MISTRAL, 32, 2, 4, 64, num_key_value_heads=2, sliding_window=8),
    "mistral-whole": _writer(*MISTRAL, 48, 1, 4, 64, num_key_value_heads=1, head_dim=8, sliding_window=None),
}
READERS = {
    "bert": (BertModel, BertConfig(**_sizes(32, 2, 4, 64, max_position_embeddings=64))),
    "bert-tanh": (
        BertModel,
        BertConfig(**_sizes(48, 3, 6, 40, max_position_embeddings=48, hidden_act="gelu_new", type_vocab_size=3)),
    ),
    "bert-masked": (BertForMaskedLM, BertConfig(**_sizes(32, 1, 2, 64, max_position_embeddings=64))),
}
SEERS = {
    "vit": _vit(ViTForImageClassification, 24, 8, num_labels=5),
    "vit-grey": _vit(ViTForImageClassification, 16, 4, num_channels=1, num_labels=2, hidden_size=48),
    "vit-states": _vit(ViTModel, 16, 8),
}
HEADLESS = (LlamaModel, LlamaConfig(**_sizes(32, 1, 4, 64, num_key_value_heads=2, **NO_IDS)))


def make(kind_and_config, seed: int = 0) -> torch.nn.Module:
    """A random model whose vectors (biases, norms) are random too, so that each of them matters."""
    kind, config = kind_and_config
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, V, (rows, tokens), generator=torch.Generator().manual_seed(seed))
