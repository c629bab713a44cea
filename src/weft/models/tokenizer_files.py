"""The tokenizer of a checkpoint's folder, and what the folder says of it: special tokens, the template of a chat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from weft.errors import CheckpointError, listing
from weft.features.tokenizer import is_own
from weft.models.families import Config
from weft.models.language import LanguageConfig

WORDS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
CHAT = "chat_template"


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there must be such a file. It is missing. Copy the whole checkpoint.") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: must be JSON. Got: {error}. Copy the file again.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: must hold a JSON object. Got {type(found).__name__}.")
    return found


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """``tokenizer.json`` (WordPiece, BPE, Unigram), or BERT's ``vocab.txt``; neither cuts texts nor fills them up."""
    file, words = folder / "tokenizer.json", folder / "vocab.txt"
    if file.exists():
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise CheckpointError(f"{file}: must be a tokenizer. Got: {error}. Copy the file again.") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = is_own(tokenizer)  # the file does not say so
        return tokenizer
    return _word_pieces(words) if words.exists() else None


def check_tokenizer(folder: Path, tokenizer: Tokenizer, rows: int) -> None:
    """Raises CheckpointError where a token has no row of a table with so many."""
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer must fit the {rows:,} rows of the token table. It has a token with id "
            f"{largest:,}. Take both from one checkpoint."
        )


def load_words(folder: Path) -> dict[str, str]:
    """What a checkpoint says of its tokenizer: the names of special tokens, and its chat template."""
    file, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    older = folder / "special_tokens_map.json"
    said = (read_json(older) if older.exists() else {}) | (read_json(file) if file.exists() else {})
    found = {}
    for name in WORDS:
        word = said.get(name)
        word = word.get("content") if isinstance(word, dict) else word
        if isinstance(word, str):
            found[name] = word
    chat = said.get(CHAT)
    if isinstance(chat, list):  # several, of which one is for dialogues
        chat = next((c.get("template") for c in chat if isinstance(c, dict) and c.get("name") == "default"), None)
    if template.exists():
        chat = template.read_text(encoding="utf-8")
    return found | ({CHAT: chat} if isinstance(chat, str) else {})


def words_of(config: Config, tokenizer: Tokenizer) -> dict[str, str]:
    """What ``transformers`` calls the ids that begin and end a text and fill a row, where a writer has them."""
    if not isinstance(config, LanguageConfig):
        return {}
    ids = {"bos_token": config.begin, "eos_token": next(iter(config.end), None), "pad_token": config.pad}
    return {n: word for n, i in ids.items() if i is not None and (word := tokenizer.id_to_token(i)) is not None}


def _word_pieces(file: Path) -> Tokenizer:
    """BERT's tokenizer from its list of pieces, one a line (Wu 2016)."""
    config = file.with_name("tokenizer_config.json")
    lower = read_json(config).get("do_lower_case", True) if config.exists() else True
    pieces = {piece: i for i, piece in enumerate(file.read_text(encoding="utf-8").rstrip("\n").split("\n"))}
    lacking = [piece for piece in ("[UNK]", "[CLS]", "[SEP]") if piece not in pieces]
    if lacking:
        raise CheckpointError(f"{file}: must list BERT's special pieces. Missing: {listing(lacking)}.")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.add_special_tokens([p for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if p in pieces])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, pieces[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, words: Mapping[str, str], folder: Path) -> None:
    """``tokenizer.json``, and beside it what ``transformers`` reads of special tokens and the chat template."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **words}
    text = json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
