"""What each token writes, in bytes.

Byte-level tokenizers (Radford 2019) spell a byte as a letter, tokenizers with byte fallback (Kudo 2018) as <0xE4>;
of others a token's piece is what decoding adds for it. A decoder that reads tokens together is refused, because
then no token has a piece of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from weft.errors import UsageError

_APART = {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_letters() -> dict[str, int]:
    """The letter that byte-level tokenizers write for each byte (Radford 2019): itself where it can be seen."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in seen]
    return {chr(b): b for b in seen} | {chr(256 + i): b for i, b in enumerate(others)}


BYTES = byte_letters()


def pieces_of(tokenizer: Tokenizer, vocabulary: int, first: bool = False) -> list[bytes]:
    """The bytes that every id below ``vocabulary`` adds to a text; none for special tokens and ids without a token.

    Args:
        first: at the beginning of a text, where some decoders leave out a space.

    Raises:
        UsageError: the decoder does not take tokens one by one (WordPiece).
    """
    steps = _steps(tokenizer)
    kinds = {step["type"] for step in steps}
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    unknown = getattr(tokenizer.model, "unk_token", None)
    names = [tokenizer.id_to_token(i) for i in range(vocabulary)]
    written = [n if n is not None and n != unknown and i not in special else None for i, n in enumerate(names)]
    if kinds == {"ByteLevel"}:
        return [b"" if name is None else _of_letters(name) for name in written]
    anchor = [] if first else [_anchor(tokenizer, written)]
    before = len(tokenizer.decode(anchor))
    pieces = []
    for i, name in enumerate(written):
        byte = _BYTE.fullmatch(name) if name is not None and "ByteFallback" in kinds else None
        if name is None:
            pieces.append(b"")
        elif byte and (not first or int(byte[1], 16) > 0x7F):  # of the first, a space may be left out
            pieces.append(bytes([int(byte[1], 16)]))
        else:
            pieces.append(tokenizer.decode([*anchor, i])[before:].encode("utf-8"))
    return pieces


def fewest(text: bytes, ids: Mapping[bytes, int], first: Mapping[bytes, int]) -> list[int] | None:
    """The fewest tokens that write ``text``, long ones early; None where no tokens do.

    Args:
        ids: the token of each piece; ``first``: of each piece at the beginning.
    """
    longest = max(map(len, [*ids, *first]), default=0)
    best: list[list[int] | None] = [None] * len(text) + [[]]
    for start in range(len(text) - 1, -1, -1):
        known = ids if start else first
        for end in range(min(len(text), start + longest), start, -1):
            rest, token = best[end], known.get(text[start:end])
            found = best[start]
            if rest is not None and token is not None and (found is None or 1 + len(rest) < len(found)):
                best[start] = [token, *rest]
    return best[0]


def _of_letters(name: str) -> bytes:
    if all(letter in BYTES for letter in name):
        return bytes(BYTES[letter] for letter in name)
    return name.encode("utf-8")


def _steps(tokenizer: Tokenizer) -> Sequence[dict[str, Any]]:
    if tokenizer.decoder is None:
        return []
    decoder = json.loads(tokenizer.decoder.__getstate__())
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    for step in steps:
        apart = step["type"] in _APART and not step.get("stop") and "Regex" not in step.get("pattern", {})
        if not apart or (step["type"] == "ByteLevel" and len(steps) > 1):
            raise UsageError(
                f"a constraint needs a tokenizer that decodes tokens one by one. Got the decoder {step['type']}. "
                "Use a checkpoint with byte-level BPE, byte fallback or letters."
            )
    return steps


def _anchor(tokenizer: Tokenizer, names: Sequence[str | None]) -> int:
    """A token that stands before another, so that the other is not first."""
    return next((i for i, n in enumerate(names) if n and tokenizer.decode([i]).isalnum()), 0)
