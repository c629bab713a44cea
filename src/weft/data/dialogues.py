"""Dialogues in a cell: a list of messages with role and content, as JSON text or as Arrow's lists of structs."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from weft.data.plain import is_list
from weft.errors import did_you_mean, listing

Message = dict[str, str]
ROLES = ("system", "user", "assistant")


def parse_dialogue(cell: Any) -> list[Message]:
    """The messages of a cell, in order. Raises ValueError with the reason, for a person."""
    if isinstance(cell, (str, bytes)):
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise ValueError(f"must be a JSON list of messages, {error}") from None
    if not isinstance(cell, list) or not all(isinstance(m, dict) for m in cell):
        raise ValueError('must be a list of messages such as {"role": "user", "content": "..."}')
    messages = [_message(number, found) for number, found in enumerate(cell, start=1)]
    if "assistant" not in [m["role"] for m in messages]:
        raise ValueError("must hold an answer (a message whose role is assistant)")
    if "system" in [m["role"] for m in messages[1:]]:
        raise ValueError("a system message must be the first")
    return messages


def is_dialogue(kind: pa.DataType) -> bool:
    """Whether values of this Arrow type are lists of messages."""
    return is_list(kind) and pa.types.is_struct(kind.value_type)


def _message(number: int, found: dict[str, Any]) -> Message:
    over = sorted(key for key, value in found.items() if key not in ("role", "content") and value is not None)
    if over or not {"role", "content"} <= found.keys():
        raise ValueError(f"message {number} must have role and content and nothing else, has {listing(sorted(found))}")
    role, content = found["role"], found["content"]
    if role not in ROLES:
        near = did_you_mean(str(role), ROLES)
        raise ValueError(f"message {number}: role must be {listing(ROLES)}, is {role!r}.{near}")
    if not isinstance(content, str):
        raise ValueError(f"message {number}: content must be a text, is {content!r:.60}")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"message {number}: holds half a surrogate pair, which is no letter") from None
    return {"role": role, "content": content}


def dump_dialogue(messages: list[Message]) -> str:
    """The messages as JSON text."""
    return json.dumps(messages, ensure_ascii=False)
