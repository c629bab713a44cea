"""The tokenizer of a run: byte-level BPE (Sennrich 2016; Radford 2019), trained on the training texts only.

Every string of any language has tokens, none is unknown. One tokenizer serves all text columns and is
saved as ``tokenizer.json``, the file that Hugging Face tokenizers reads.
"""

from __future__ import annotations

import copyreg
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from weft.data.split import uniform
from weft.preprocess.clean import CleanBatch

PAD, MASK, END = "<pad>", "<mask>", "<end>"
SEPARATOR, SYSTEM, USER, ASSISTANT = "<sep>", "<system>", "<user>", "<assistant>"
SPECIAL = [PAD, MASK, END]
WRITING = [*SPECIAL, SEPARATOR, SYSTEM, USER, ASSISTANT]
"""A tokenizer for writing has the tokens of every task, so that one pretrained model can learn any of them."""

VOCABULARY = 8_192
"""Tokens of a tokenizer for reading, at most."""
SLICE = 1 << 16
"""Letters encoded at once: a line of any length costs no more memory than these."""
MOST_WORDS = 1 << 19
"""That are counted at once; of more, those that came once are forgotten."""


def _again(stored: str, as_text: bool) -> Tokenizer:
    found = Tokenizer.from_str(stored)
    found.encode_special_tokens = as_text
    return found


# to another process: by itself it would forget that the names of special tokens in a text are text
copyreg.pickle(Tokenizer, lambda tokenizer: (_again, (tokenizer.to_str(), tokenizer.encode_special_tokens)))


def texts_of(batches: Iterable[CleanBatch], names: Sequence[str], share: float = 1.0, seed: int = 0) -> Iterator[str]:
    """The texts of some columns, or a ``share`` of the rows drawn by their numbers."""
    for batch in batches:
        for name in names:
            column = batch.columns[name]
            if share < 1:
                column = column.filter(pa.array(uniform(seed, batch.rows) < share))
            yield from (text.as_py() for text in column.drop_null())


def mask_token(tokenizer: Tokenizer) -> int | None:
    """The token that stands for hidden ones, by its name here and in RoBERTa, or in BERT; None: there is none."""
    return next((i for name in (MASK, "[MASK]") if (i := tokenizer.token_to_id(name)) is not None), None)


def train_tokenizer(
    texts: Iterable[str], vocabulary: int = VOCABULARY, lowercase: bool = False, special: list[str] = SPECIAL
) -> Tokenizer:
    """A byte-level BPE of at most ``vocabulary`` tokens. ``texts`` is streamed once.

    ``lowercase``: for reading only, where a word means the same at the start of a sentence.
    """
    tokenizer = _byte_level(lowercase)
    _train(tokenizer, texts, vocabulary, special)
    return tokenizer


def words_of(texts: Iterable[str], lowercase: bool) -> dict[str, int]:
    """Of the words that a tokenizer would cut some texts into those that at least two of the texts hold, and how often
    they came."""
    tokenizer = _byte_level(lowercase)
    cut, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    assert cut is not None
    counts: Counter[str] = Counter()
    holding: Counter[str] = Counter()
    for text in texts:
        letters = normalizer.normalize_str(text) if normalizer else text
        words = [word for piece in slices(letters) for word, _ in cut.pre_tokenize_str(piece)]
        counts.update(words)
        holding.update(set(words))
        if len(counts) > MOST_WORDS:
            holding = Counter({word: n for word, n in holding.items() if n > 1})
            counts = Counter({word: counts[word] for word in holding})
    return {word: count for word, count in counts.items() if holding[word] > 1}


def tokenizer_of_words(counts: Mapping[str, int], vocabulary: int = VOCABULARY, lowercase: bool = False) -> Tokenizer:
    """That which :func:`train_tokenizer` learns from texts with these words (:func:`words_of`)."""
    tokenizer = _byte_level(lowercase)
    normalizer, cut = tokenizer.normalizer, tokenizer.pre_tokenizer
    # the words are in the alphabet of bytes already, in which nothing is a space
    tokenizer.normalizer, tokenizer.pre_tokenizer = None, pre_tokenizers.WhitespaceSplit()
    _train(tokenizer, (" ".join([word] * count) for word, count in counts.items()), vocabulary, SPECIAL)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cut
    return tokenizer


def _byte_level(lowercase: bool) -> Tokenizer:
    """One that has learnt nothing."""
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=lowercase)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True  # "<pad>" in a text is five letters, never the token
    return tokenizer


def _train(tokenizer: Tokenizer, texts: Iterable[str], vocabulary: int, special: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def character_tokenizer(texts: Iterable[str], least: int = 2) -> Tokenizer:
    """A token a character that occurs at least ``least`` times; rarer ones are spelt in their UTF-8 bytes."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    letters = sorted(letter for letter, count in counts.items() if count >= least)
    names = [*WRITING, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], byte_fallback=True, fuse_unk=False))
    tokenizer.add_special_tokens(WRITING)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.encode_special_tokens = True
    return tokenizer


def is_own(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer was learnt by Weft; "<pad>" in a text is then five letters, never the token."""
    return [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))


def begin_with(tokenizer: Tokenizer, token: str) -> None:
    """Put ``token`` before every text, when special tokens are asked for."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def slices(text: str) -> Iterator[str]:
    """A long text in slices that end after a line or a word if they can; joined they are the text."""
    start = 0
    while len(text) - start > SLICE:
        half, stop = start + SLICE // 2, start + SLICE
        cut = text.rfind("\n", half, stop) + 1 or max(text.rfind(" ", half, stop), 0) or stop
        yield text[start:cut]
        start = cut
    yield text[start:]
