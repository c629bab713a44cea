"""Dialogues cut to the context."""

import json
from itertools import compress

import pytest

from weft.features.chat import OWN, TEMPLATE, Chat
from weft.features.dialogues import DialogueCounts, examples_of
from weft.features.tokenizer import WRITING, train_tokenizer


@pytest.fixture(scope="module")
def chat():
    """A token a letter, and one for each mark: a message costs its letters and 2."""
    return Chat(
        train_tokenizer(["x"], 300, special=WRITING), {"bos_token": "<end>", "eos_token": "<end>", TEMPLATE: OWN}
    )


def talk(*turns, system="s"):
    first = [{"role": "system", "content": system}] if system else []
    return json.dumps(first + [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)])


def cut(chat, cell, context):
    counts = DialogueCounts()
    found = list(examples_of([cell], chat, context, counts))
    shown = [chat.tokenizer.decode(e.ids, skip_special_tokens=False) for e in found]
    return (
        shown,
        [chat.tokenizer.decode(list(compress(e.ids, e.asked)), skip_special_tokens=False) for e in found],
        counts,
    )


def test_one_that_fits_is_whole(chat):
    shown, asked, counts = cut(chat, talk("a", "b", "c", "d"), 100)
    assert shown == ["<end><system>s<end><user>a<end><assistant>b<end><user>c<end><assistant>d<end>"]
    assert asked == ["b<end>d<end>"] and counts == DialogueCounts(dialogues=1)


def test_a_long_one_is_cut_before_users_turns_and_keeps_the_system_message(chat):
    # begin, the system message and two turns: 1 + 3 + 3 + 3 tokens
    for context in (10, 12):
        shown, asked, counts = cut(chat, talk("a", "b", "c", "d"), context)
        assert shown == [
            "<end><system>s<end><user>a<end><assistant>b<end>", "<end><system>s<end><user>c<end><assistant>d<end>",
        ]  # fmt: skip
        assert asked == ["b<end>", "d<end>"] and (counts.cut, counts.shortened, counts.left_out) == (1, 0, 0)
    shown, _, counts = cut(chat, talk("a", "b", "c", "d", "e", "f", system=""), 13)
    assert shown == [
        "<end><user>a<end><assistant>b<end><user>c<end><assistant>d<end>", "<end><user>e<end><assistant>f<end>",
    ]  # fmt: skip


def test_an_answer_that_alone_is_too_long_loses_its_end_and_a_question_its_turn(chat):
    shown, asked, counts = cut(chat, talk("a", "b" * 20, system=""), 10)
    assert shown == ["<end><user>a<end><assistant>" + "b" * 6] and asked == ["b" * 6]  # the last is not read, only said
    assert (counts.cut, counts.shortened, counts.left_out) == (0, 1, 0)
    shown, _, counts = cut(chat, talk("a" * 20, "b", "c", "d", system=""), 10)
    assert shown == ["<end><user>c<end><assistant>d<end>"] and counts.left_out == 1


def test_a_dialogue_that_the_template_refuses_is_counted():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + OWN
    made = Chat(train_tokenizer(["x"], 300, special=WRITING), {"eos_token": "<end>", TEMPLATE: template})
    counts = DialogueCounts()
    found = list(examples_of([talk("a", "b"), talk("a", "b", system="")], made, 50, counts))
    assert [e.row for e in found] == [1] and counts.refused == 1 and "no system" in counts.why_refused
