"""The checkpoints people already own: a family is a table of names and two small functions, not a class.

A table goes from the names in the files of Hugging Face ``transformers`` to ours; ``{}`` is the number of
a layer, None says known and not needed. ``.weight`` and ``.bias`` are understood. After ``:`` stands what
must be done:

    :q :k :v       its rows of the joined matrix of queries, keys and values
    :gate :up      its rows of the joined first matrix of a gated feed-forward
    :turned        stored the other way round (GPT-2)
    :one           stored with a first dimension of one (ViT)

A family's ``read`` makes our config of ``config.json`` and the names and shapes in the files; ``write``
goes back. Whatever our Transformer cannot do raises ``Unfit``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weft.models.language import ImageConfig, LanguageConfig
from weft.models.positions import RotaryScaling
from weft.models.transformer import TransformerConfig

Config = LanguageConfig | ImageConfig
Shapes = Mapping[str, tuple[int, ...]]
Names = dict[str, str | None]


class Unfit(ValueError):
    """What a config.json must hold, what it holds, what to do."""


@dataclass(frozen=True)
class Settings:
    """The object in a config.json."""

    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        found = self.values.get(key)
        return default if found is None else found

    def whole(self, key: str, default: int | None = None) -> int:
        found = self.get(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise Unfit(f"'{key}' must be a whole number above zero. Got {found!r}.")
        return found

    def number(self, key: str, default: float) -> float:
        found = self.get(key, default)
        if not isinstance(found, (int, float)) or isinstance(found, bool):
            raise Unfit(f"'{key}' must be a number. Got {found!r}.")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        found = self.get(key, default)
        if not isinstance(found, bool):
            raise Unfit(f"'{key}' must be true or false. Got {found!r}.")
        return found

    def table(self, key: str) -> Mapping[str, Any]:
        found = self.get(key, {})
        if not isinstance(found, dict):
            raise Unfit(f"'{key}' must be an object. Got {found!r}.")
        return found

    def only(self, key: str, allowed: Any) -> None:
        """The key is ``allowed`` or absent."""
        if self.get(key, allowed) != allowed:
            raise Unfit(f"'{key}' must be {allowed!r}; other values are not supported. Got {self.get(key)!r}.")

    def choice(self, key: str, default: str, known: Mapping[str, str]) -> str:
        found = self.get(key, default)
        if found not in known:
            raise Unfit(f"'{key}' must be one of {', '.join(known)}. Got {found!r}.")
        return known[found]

    def special(self) -> dict[str, Any]:
        """The ids that begin, end and fill a text."""
        end = self.get("eos_token_id", ())
        return {
            "begin": self.get("bos_token_id"), "pad": self.get("pad_token_id"),
            "end": tuple(end) if isinstance(end, (list, tuple)) else (end,),
        }  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How one family of checkpoints is read and written."""

    body: Names
    """Names that stand after ``prefix`` in a model with a head, and alone in one without."""
    head: Names
    prefix: str
    read: Callable[[Settings, Shapes], Config]
    write: Callable[[Any], dict[str, Any]]


GELUS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
GELU_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


def _special(c: LanguageConfig) -> dict[str, Any]:
    end: int | list[int] | None = list(c.end) if len(c.end) > 1 else c.end[0] if c.end else None
    return {"bos_token_id": c.begin, "eos_token_id": end, "pad_token_id": c.pad}


# ---- BERT, MiniLM

BERT_BODY: Names = {
    "embeddings.word_embeddings": "table",
    "embeddings.position_embeddings": "backbone.positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "backbone.embedding_norm",
    "embeddings.position_ids": None,
    "encoder.layer.{}.attention.self.query": "backbone.blocks.{}.attention.qkv:q",
    "encoder.layer.{}.attention.self.key": "backbone.blocks.{}.attention.qkv:k",
    "encoder.layer.{}.attention.self.value": "backbone.blocks.{}.attention.qkv:v",
    "encoder.layer.{}.attention.output.dense": "backbone.blocks.{}.attention.out",
    "encoder.layer.{}.attention.output.LayerNorm": "backbone.blocks.{}.attention_norm",
    "encoder.layer.{}.intermediate.dense": "backbone.blocks.{}.feed_forward.up",
    "encoder.layer.{}.output.dense": "backbone.blocks.{}.feed_forward.down",
    "encoder.layer.{}.output.LayerNorm": "backbone.blocks.{}.feed_forward_norm",
    "pooler.dense": "pooler",
}
BERT_HEAD: Names = {
    "cls.predictions.transform.dense": "transform",
    "cls.predictions.transform.LayerNorm": "transform_norm",
    "cls.predictions.bias": "output_bias",
    "cls.predictions.decoder": "output",
    "cls.predictions.decoder.bias": None,  # the same numbers as cls.predictions.bias
    "cls.seq_relationship": None,  # which of two texts came first: not used here
    "qa_outputs": "span",
    "classifier": "classifier",
}


def _read_bert(s: Settings, shapes: Shapes) -> LanguageConfig:
    s.only("position_embedding_type", "absolute")
    s.only("is_decoder", False)
    s.only("add_cross_attention", False)
    backbone = TransformerConfig(
        width=s.whole("hidden_size"), layers=s.whole("num_hidden_layers"), heads=s.whole("num_attention_heads"),
        ffn_width=s.whole("intermediate_size"), norm="layer", norm_at="after",
        norm_eps=s.number("layer_norm_eps", 1e-12), positions="learned", embedding_norm=True, biases="all",
        max_positions=s.whole("max_position_embeddings", 512), feed_forward=s.choice("hidden_act", "gelu", GELUS),  # type: ignore[arg-type]
        dropout=s.number("hidden_dropout_prob", 0.1), attention_dropout=s.number("attention_probs_dropout_prob", 0.1),
    )  # fmt: skip
    # a classifier of whole texts has the same name, and reads the pooler
    tags = "classifier.weight" in shapes and s.get("architectures") == ["BertForTokenClassification"]
    return LanguageConfig(
        backbone, s.whole("vocab_size"), types=s.whole("type_vocab_size", 2),
        output="transform" if any(n.startswith("cls.predictions.") for n in shapes) else "none",
        tied=s.flag("tie_word_embeddings", True), pooler="pooler.dense.weight" in shapes, family="bert",
        span="qa_outputs.weight" in shapes, labels=_labels(s) if tags else (), **s.special(),
    )  # fmt: skip


def _write_bert(c: LanguageConfig) -> dict[str, Any]:
    b = c.backbone
    assert isinstance(b, TransformerConfig)
    name = "BertForQuestionAnswering" if c.span else "BertModel" if c.output == "none" else "BertForMaskedLM"
    name = "BertForTokenClassification" if c.labels else name
    return {
        "architectures": [name], "model_type": "bert",
        "vocab_size": c.vocabulary, "type_vocab_size": c.types, "tie_word_embeddings": c.tied,
        "hidden_size": b.width, "num_hidden_layers": b.layers, "num_attention_heads": b.heads,
        "intermediate_size": b.hidden_width, "hidden_act": GELU_NAMES.get(b.feed_forward),
        "layer_norm_eps": b.norm_eps, "max_position_embeddings": b.max_positions,
        "hidden_dropout_prob": b.dropout, "attention_probs_dropout_prob": b.attention_dropout, **_special(c),
        **_named(c.labels),
    }  # fmt: skip


def _labels(s: Settings) -> tuple[str, ...]:
    """The names of classes."""
    labels = s.table("id2label")
    return tuple(labels[key] for key in sorted(labels, key=int))


def _named(labels: Sequence[str]) -> dict[str, Any]:
    """The names of classes as ``transformers`` keeps them."""
    if not labels:
        return {}
    return {"id2label": {str(i): n for i, n in enumerate(labels)}, "label2id": {n: i for i, n in enumerate(labels)}}


# ---- GPT-2

GPT2_BODY: Names = {
    "wte": "table",
    "wpe": "backbone.positions",
    "h.{}.ln_1": "backbone.blocks.{}.attention_norm",
    "h.{}.attn.c_attn": "backbone.blocks.{}.attention.qkv:turned",
    "h.{}.attn.c_proj": "backbone.blocks.{}.attention.out:turned",
    "h.{}.ln_2": "backbone.blocks.{}.feed_forward_norm",
    "h.{}.mlp.c_fc": "backbone.blocks.{}.feed_forward.up:turned",
    "h.{}.mlp.c_proj": "backbone.blocks.{}.feed_forward.down:turned",
    "h.{}.attn.bias": None,  # the causal mask, stored as if it were a weight
    "h.{}.attn.masked_bias": None,
    "ln_f": "backbone.norm",
}
GPT2_HEAD: Names = {"lm_head": "output"}


def _read_gpt2(s: Settings, shapes: Shapes) -> LanguageConfig:
    for key, value in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False),
                       ("add_cross_attention", False)):  # fmt: skip
        s.only(key, value)
    width = s.whole("n_embd")
    backbone = TransformerConfig(
        width=width, layers=s.whole("n_layer"), heads=s.whole("n_head"), ffn_width=s.whole("n_inner", 4 * width),
        attention="writing", norm="layer", norm_eps=s.number("layer_norm_epsilon", 1e-5), positions="learned",
        max_positions=s.whole("n_positions", 1024), biases="all",
        feed_forward=s.choice("activation_function", "gelu_new", GELUS),  # type: ignore[arg-type]
        dropout=s.number("resid_pdrop", 0.1), attention_dropout=s.number("attn_pdrop", 0.1),
    )  # fmt: skip
    tied = s.flag("tie_word_embeddings", True)
    return LanguageConfig(backbone, s.whole("vocab_size"), tied=tied, family="gpt2", **s.special())


def _write_gpt2(c: LanguageConfig) -> dict[str, Any]:
    b = c.backbone
    assert isinstance(b, TransformerConfig)
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": c.vocabulary,
        "tie_word_embeddings": c.tied, "n_embd": b.width, "n_layer": b.layers, "n_head": b.heads,
        "n_inner": b.hidden_width, "n_positions": b.max_positions, "layer_norm_epsilon": b.norm_eps,
        "activation_function": GELU_NAMES.get(b.feed_forward), "resid_pdrop": b.dropout, "embd_pdrop": b.dropout,
        "attn_pdrop": b.attention_dropout, **_special(c),
    }  # fmt: skip


# ---- Llama, Qwen2, Qwen3, Mistral

LLAMA_BODY: Names = {
    "embed_tokens": "table",
    "layers.{}.input_layernorm": "backbone.blocks.{}.attention_norm",
    "layers.{}.self_attn.q_proj": "backbone.blocks.{}.attention.qkv:q",
    "layers.{}.self_attn.k_proj": "backbone.blocks.{}.attention.qkv:k",
    "layers.{}.self_attn.v_proj": "backbone.blocks.{}.attention.qkv:v",
    "layers.{}.self_attn.q_norm": "backbone.blocks.{}.attention.q_norm",
    "layers.{}.self_attn.k_norm": "backbone.blocks.{}.attention.k_norm",
    "layers.{}.self_attn.o_proj": "backbone.blocks.{}.attention.out",
    "layers.{}.self_attn.rotary_emb.inv_freq": None,  # follows from the config
    "layers.{}.post_attention_layernorm": "backbone.blocks.{}.feed_forward_norm",
    "layers.{}.mlp.gate_proj": "backbone.blocks.{}.feed_forward.up:gate",
    "layers.{}.mlp.up_proj": "backbone.blocks.{}.feed_forward.up:up",
    "layers.{}.mlp.down_proj": "backbone.blocks.{}.feed_forward.down",
    "norm": "backbone.norm",
}
LLAMA_HEAD: Names = {"lm_head": "output"}


def _rotary(s: Settings) -> tuple[float, RotaryScaling | None]:
    """The base and the scaling, as ``transformers`` 5 writes them (rope_parameters) or as 4 did."""
    values = {"rope_theta": s.get("rope_theta", 10_000.0), **s.table("rope_scaling"), **s.table("rope_parameters")}
    rope = Settings({"partial_rotary_factor": s.get("partial_rotary_factor"), **values})
    rope.only("partial_rotary_factor", 1.0)
    base = rope.number("rope_theta", 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return base, None
    if kind == "linear":
        return base, RotaryScaling("linear", rope.number("factor", 1.0))
    if kind == "llama3":
        return base, RotaryScaling(
            "llama3", rope.number("factor", 8.0), rope.number("low_freq_factor", 1.0),
            rope.number("high_freq_factor", 4.0), rope.whole("original_max_position_embeddings", 8_192),
        )  # fmt: skip
    raise Unfit(f"'rope_type' must be default, linear or llama3. Got {kind!r}.")


def _read_llama(family: Literal["llama", "qwen2", "qwen3", "mistral"]) -> Callable[[Settings, Shapes], LanguageConfig]:
    def read(s: Settings, shapes: Shapes) -> LanguageConfig:
        s.only("hidden_act", "silu")
        s.only("mlp_bias", False)
        if family != "qwen2":  # whose queries, keys and values have biases, always
            s.only("attention_bias", False)
        if family.startswith("qwen"):
            s.only("use_sliding_window", False)
        heads = s.whole("num_attention_heads")
        # what transformers takes where a config does not say: mistral has a window unless it is null
        window = s.whole("sliding_window", 4_096) if s.values.get("sliding_window", 0) is not None else None
        width = s.whole("hidden_size")
        head_width = s.whole("head_dim", 128 if family == "qwen3" else max(1, width // heads))
        base, scaling = _rotary(s)
        backbone = TransformerConfig(
            width=width, layers=s.whole("num_hidden_layers"), heads=heads,
            groups=s.whole("num_key_value_heads", heads), head_width=head_width,
            ffn_width=s.whole("intermediate_size"), attention="writing", norm="rms",
            norm_eps=s.number("rms_norm_eps", 1e-6), positions="rotary", rotary_base=base, rotary_scaling=scaling,
            max_positions=s.whole("max_position_embeddings", 2_048), biases="qkv" if family == "qwen2" else "none",
            qk_norm=family == "qwen3", window=window if family == "mistral" else None,
            attention_dropout=s.number("attention_dropout", 0.0),
        )  # fmt: skip
        tied = s.flag("tie_word_embeddings", False)
        headless = not tied and not any(n.startswith(("model.", "lm_head.")) for n in shapes)
        return LanguageConfig(
            backbone, s.whole("vocab_size"), output="none" if headless else "linear", tied=tied, family=family,
            **s.special(),
        )  # fmt: skip

    return read


def _write_llama(family: Literal["llama", "qwen2", "qwen3", "mistral"]) -> Callable[[LanguageConfig], dict[str, Any]]:
    name = family.capitalize()

    def write(c: LanguageConfig) -> dict[str, Any]:
        b = c.backbone
        assert isinstance(b, TransformerConfig)
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": b.rotary_base}
        if b.rotary_scaling is not None:
            scaling = b.rotary_scaling
            rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
            if scaling.kind == "llama3":
                rope |= {
                    "low_freq_factor": scaling.low, "high_freq_factor": scaling.high,
                    "original_max_position_embeddings": scaling.original,
                }  # fmt: skip
        return {
            "architectures": [f"{name}Model" if c.output == "none" else f"{name}ForCausalLM"], "model_type": family,
            "vocab_size": c.vocabulary, "tie_word_embeddings": c.tied, "hidden_size": b.width,
            "num_hidden_layers": b.layers, "num_attention_heads": b.heads, "num_key_value_heads": b.key_groups,
            "head_dim": b.key_width, "intermediate_size": b.hidden_width, "hidden_act": "silu",
            "rms_norm_eps": b.norm_eps, "max_position_embeddings": b.max_positions or 2_048,
            "rope_theta": b.rotary_base, "rope_parameters": rope, "attention_dropout": b.attention_dropout,
            **({"sliding_window": b.window} if family == "mistral" else {}), **_special(c),
        }  # fmt: skip

    return write


# ---- ViT

VIT_BODY: Names = {
    "embeddings.cls_token": "reader",
    "embeddings.patch_embeddings.projection": "cut",
    "embeddings.position_embeddings": "backbone.positions.weight:one",
    "encoder.layer.{}.layernorm_before": "backbone.blocks.{}.attention_norm",
    "encoder.layer.{}.attention.attention.query": "backbone.blocks.{}.attention.qkv:q",
    "encoder.layer.{}.attention.attention.key": "backbone.blocks.{}.attention.qkv:k",
    "encoder.layer.{}.attention.attention.value": "backbone.blocks.{}.attention.qkv:v",
    "encoder.layer.{}.attention.output.dense": "backbone.blocks.{}.attention.out",
    "encoder.layer.{}.layernorm_after": "backbone.blocks.{}.feed_forward_norm",
    "encoder.layer.{}.intermediate.dense": "backbone.blocks.{}.feed_forward.up",
    "encoder.layer.{}.output.dense": "backbone.blocks.{}.feed_forward.down",
    "layernorm": "backbone.norm",
    "pooler.dense": None,  # a layer on the first token that classifiers do without
}
VIT_HEAD: Names = {"classifier": "output"}


def _read_vit(s: Settings, shapes: Shapes) -> ImageConfig:
    s.only("qkv_bias", True)
    image, patch = s.whole("image_size", 224), s.whole("patch_size", 16)
    backbone = TransformerConfig(
        width=s.whole("hidden_size"), layers=s.whole("num_hidden_layers"), heads=s.whole("num_attention_heads"),
        ffn_width=s.whole("intermediate_size"), norm="layer", norm_eps=s.number("layer_norm_eps", 1e-12),
        positions="learned", max_positions=1 + (image // patch) ** 2, biases="all",
        feed_forward=s.choice("hidden_act", "gelu", GELUS),  # type: ignore[arg-type]
        dropout=s.number("hidden_dropout_prob", 0.0), attention_dropout=s.number("attention_probs_dropout_prob", 0.0),
    )  # fmt: skip
    labels = _labels(s)
    classes = shapes["classifier.weight"][0] if "classifier.weight" in shapes else 0
    if classes:
        classes = len(labels) or classes
    return ImageConfig(backbone, image, patch, s.whole("num_channels", 3), classes, labels if classes else (), "vit")


def _write_vit(c: ImageConfig) -> dict[str, Any]:
    b = c.backbone
    return {
        "architectures": ["ViTForImageClassification" if c.classes else "ViTModel"], "model_type": "vit",
        "hidden_size": b.width, "num_hidden_layers": b.layers, "num_attention_heads": b.heads,
        "intermediate_size": b.hidden_width, "hidden_act": GELU_NAMES.get(b.feed_forward),
        "layer_norm_eps": b.norm_eps, "image_size": c.image, "patch_size": c.patch, "num_channels": c.channels,
        "hidden_dropout_prob": b.dropout, "attention_probs_dropout_prob": b.attention_dropout, "qkv_bias": True,
        **_named(c.labels or [str(i) for i in range(c.classes)]),
    }  # fmt: skip


FAMILIES: dict[str, Family] = {
    "llama": Family(LLAMA_BODY, LLAMA_HEAD, "model.", _read_llama("llama"), _write_llama("llama")),
    "qwen2": Family(LLAMA_BODY, LLAMA_HEAD, "model.", _read_llama("qwen2"), _write_llama("qwen2")),
    "qwen3": Family(LLAMA_BODY, LLAMA_HEAD, "model.", _read_llama("qwen3"), _write_llama("qwen3")),
    "mistral": Family(LLAMA_BODY, LLAMA_HEAD, "model.", _read_llama("mistral"), _write_llama("mistral")),
    "bert": Family(BERT_BODY, BERT_HEAD, "bert.", _read_bert, _write_bert),
    "gpt2": Family(GPT2_BODY, GPT2_HEAD, "transformer.", _read_gpt2, _write_gpt2),
    "vit": Family(VIT_BODY, VIT_HEAD, "vit.", _read_vit, _write_vit),
}
