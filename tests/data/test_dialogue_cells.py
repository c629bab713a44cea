"""Dialogues in cells."""

import json

import pyarrow as pa
import pytest

from weft.data.dialogues import is_dialogue, parse_dialogue

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_messages_are_read_from_json_and_from_lists():
    assert parse_dialogue(json.dumps(TALK)) == TALK == parse_dialogue(TALK)
    assert parse_dialogue([{**m, "name": None} for m in TALK]) == TALK  # Arrow fills a struct's keys up
    assert (
        is_dialogue(pa.array([TALK]).type) and not is_dialogue(pa.list_(pa.string())) and not is_dialogue(pa.string())
    )


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("hello", "must be a JSON list"),
        ('{"role": "user"}', "must be a list of messages"),
        ([{"role": "user", "content": "a"}], "must hold an answer"),
        ([{"from": "human", "value": "a"}], "role and content and nothing else, has 'from', 'value'"),
        ([{"role": "assistent", "content": "a"}], "Did you mean 'assistant'"),
        ([{"role": "user", "content": 3}], "content must be a text, is 3"),
        ([*TALK, {"role": "system", "content": "s"}], "must be the first"),
        ('[{"role": "assistant", "content": "\\ud800"}]', "half a surrogate pair"),
        ([*TALK, {"role": "assistant", "content": "b", "tool_calls": []}], "tool_calls"),
    ],
)
def test_what_is_no_dialogue_says_why(cell, reason):
    with pytest.raises(ValueError, match=reason):
        parse_dialogue(cell)
