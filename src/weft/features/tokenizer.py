"""The tokenizer of a run: byte-level BPE (Sennrich 2016; Radford 2019), trained on the training texts only.

Every string of any language has tokens, none is unknown. One tokenizer serves all text columns and is
saved as ``tokenizer.json``, the file that Hugging Face tokenizers reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, MASK, END = "<pad>", "<mask>", "<end>"
SPECIAL = [PAD, MASK, END]


def mask_token(tokenizer: Tokenizer) -> int | None:
    """The token that stands for hidden ones, by its name here, in BERT and in RoBERTa; else that of unknown words."""
    names = (MASK, "[MASK]", "[UNK]")
    return next((number for name in names if (number := tokenizer.token_to_id(name)) is not None), None)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 8_192, lowercase: bool = False) -> Tokenizer:
    """A byte-level BPE of at most ``vocabulary`` tokens. ``texts`` is streamed once.

    ``lowercase``: for reading only, where a word means the same at the start of a sentence.
    """
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=lowercase)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # "<pad>" in a text is five letters, never the token
    return tokenizer
