"""Tiny language models with tokenizers, for tests that write."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel
from transformers.models.llama import LlamaConfig, LlamaForCausalLM

from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.recurrent import RecurrentConfig
from weft.models.transformer import TransformerConfig

TEXTS = [
    "The cat sat on the mat, and the dog sat on the cat.",
    "She sells sea shells on the sea shore.",
    "我喜欢春天的花。今天天气很好，我们去公园看花。",
    "Stop here. Do not stop there!",
]
BEGIN, END = 0, 1
VOCABULARY = 300


def byte_level(begin: bool = False) -> Tokenizer:
    """Byte-level BPE as of GPT-2; ``begin``: it puts <s> before a text, as Llama 3's does."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 4, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    # no Chinese: each of its letters is three tokens
    made.train_from_iterator([t for t in TEXTS if t.isascii()], trainer)
    if begin:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", BEGIN)])
    return made


def byte_fallback() -> Tokenizer:
    """Pieces with ▁ for a space and <0xE4> for bytes that are in no piece, as of Llama 2."""
    words = ["<s>", "</s>", "<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "▁b", "花"]
    made = Tokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [("▁", "a"), ("▁", "b")], byte_fallback=True, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=None, special_tokens=[("<s>", BEGIN), ("</s>", END)]
    )
    return made


def original(family: str, seed: int = 0) -> torch.nn.Module:
    """A random model of ``transformers`` whose distributions are neither flat nor sharp."""
    torch.manual_seed(seed)
    ids = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": None}
    if family == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, initializer_range=0.25, **sizes, **ids)).eval()
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.25, **sizes, **ids)).eval()


def untrained(kind: str, ends: tuple[int, ...] = (END,), dropout: float = 0.0) -> LanguageModel:
    """A random model of any backbone, whose distributions are neither flat nor sharp."""
    torch.manual_seed(0)
    config: TransformerConfig | RecurrentConfig = TransformerConfig(
        24, 2, 4, attention="writing", max_positions=128, dropout=dropout
    )
    if kind != "transformer":
        config = RecurrentConfig(24, 2, kind, "writing")  # type: ignore[arg-type]
    model = LanguageModel(LanguageConfig(config, VOCABULARY, tied=False, begin=BEGIN, end=ends)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6 if kind != "transformer" else 0.35)
    return model


def memorised(texts: list[str], tokenizer: Tokenizer) -> LanguageModel:
    """A model that has learnt the texts by heart: the most probable token after their beginnings is theirs."""
    torch.manual_seed(0)
    config = TransformerConfig(48, 2, 4, attention="writing", max_positions=128)
    model = LanguageModel(LanguageConfig(config, VOCABULARY, tied=False, begin=BEGIN, end=(END,)))
    rows = [[BEGIN, *tokenizer.encode(t, add_special_tokens=False).ids, END] for t in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [END] * (longest - len(row)) for row in rows])
    mask = torch.arange(longest)[None, :] < torch.tensor([[len(row)] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(250):
        optimizer.zero_grad()
        model.loss(ids, mask).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def greedy(
    model: LanguageModel, ids: torch.Tensor, count: int, mask: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """The most probable next token, again and again [B, count]."""
    reading, written = Continuation(model, ids, mask, prefix), []
    for _ in range(count):
        written.append(reading.logits_BV.argmax(dim=-1))
        if len(written) < count:
            reading.step(written[-1])
    return torch.stack(written, dim=1)


@torch.no_grad()
def greedy_anew(
    model: LanguageModel, ids: torch.Tensor, count: int, mask: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """The same, each row alone and read anew at every step, without a cache."""
    rows = []
    for row, text in enumerate(ids):
        here = torch.ones_like(text, dtype=torch.bool) if mask is None else mask[row]
        text, source = text[here][None], None if prefix is None else prefix[row, here][None]
        for _ in range(count):
            following = model(text, prefix_BT=source)[:, -1].argmax(dim=-1, keepdim=True)
            text = torch.cat([text, following], dim=1)
            source = None if source is None else torch.cat([source, torch.zeros_like(source[:, :1])], dim=1)
        rows.append(text[0, -count:])
    return torch.stack(rows)


def letters(alphabet: str) -> Tokenizer:
    """A token a letter, as of models that write letter by letter; no token for any other."""
    words = ["<s>", "</s>", "<unk>", *dict.fromkeys(alphabet)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(["<s>", "</s>"])
    return made
