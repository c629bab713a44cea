"""Dialogues as examples of which the answers are asked for.

One that is longer than the context is cut into several before a user's turn, each with the system message at its
head; an answer that alone is too long loses its end, and one whose question alone is too long is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress

from weft import engine
from weft.data.dialogues import Message
from weft.errors import DataError
from weft.features.chat import Chat, Refused
from weft.features.examples import Example, joined
from weft.preprocess.clean import CleanBatch
from weft.preprocess.ingest import CleanRows


@dataclass
class DialogueCounts:
    """What became of the dialogues."""

    dialogues: int = 0
    cut: int = 0
    """Dialogues that were cut into several."""
    shortened: int = 0
    """Pieces that were still too long and lost their end."""
    left_out: int = 0
    """Pieces whose question alone is too long."""
    refused: int = 0
    """Dialogues that the chat template does not take."""
    why_refused: str = ""

    def in_words(self, context: int) -> list[str]:
        """What was cut and left out, of dialogues of at most ``context`` tokens."""
        found = (
            (self.cut, f"cut: {self.cut:,} dialogues are longer than {context:,} tokens and became several"),
            (self.shortened, f"cut: {self.shortened:,} answers were still too long and lost their end"),
            (self.left_out, f"left out: {self.left_out:,} answers whose question alone is too long"),
            (self.refused, f"left out: {self.refused:,} dialogues; {self.why_refused}"),
        )
        return [text for count, text in found if count]


def contents(cells: Iterator[str]) -> Iterator[str]:
    """The texts of all messages, for a tokenizer to learn from."""
    for cell in cells:
        yield from (message["content"] for message in json.loads(cell))


def dialogue_examples(clean: CleanRows, name: str, chat: Chat, context: int, counts: DialogueCounts
                      ) -> Iterator[Example]:  # fmt: skip
    """The examples of every dialogue, in order; ``counts`` grows.

    Raises:
        DataError: the chat template refuses every dialogue.
    """
    yield from joined(engine.over(partial(_examples, name, chat, context), clean.batches(names=[name])), counts)
    if counts.refused == counts.dialogues:
        raise DataError(f"the column '{name}' must hold dialogues that the model's chat template takes. Got none; "
                        f"{counts.why_refused}.")  # fmt: skip


def _examples(
    name: str, chat: Chat, context: int, batch: CleanBatch
) -> tuple[int, list[Example], DialogueCounts]:  # fmt: skip
    counts = DialogueCounts()
    return len(batch.rows), list(examples_of(batch.columns[name].to_pylist(), chat, context, counts)), counts


def examples_of(cells: Sequence[str], chat: Chat, context: int, counts: DialogueCounts) -> Iterator[Example]:
    """The examples of some cells, whose rows count from 0."""
    for number, cell in enumerate(cells):
        counts.dialogues += 1
        try:
            yield from _pieces(number, json.loads(cell), chat, context, counts)
        except Refused as error:
            counts.refused += 1
            counts.why_refused = counts.why_refused or str(error)


def fitting(messages: Sequence[Message], chat: Chat, context: int) -> list[list[Message]]:
    """A dialogue in as few pieces as fit ``context``, each beginning with a user's turn after the system message."""
    head = list(messages[:1]) if messages and messages[0]["role"] == "system" else []
    turns: list[list[Message]] = []
    for message in messages[len(head) :]:
        if not turns or (message["role"] == "user" and turns[-1][-1]["role"] == "assistant"):
            turns.append([])
        turns[-1].append(message)
    pieces: list[list[Message]] = []
    for turn in turns:
        if pieces and len(chat.ids([*pieces[-1], *turn])) <= context:
            pieces[-1] += turn
        else:
            pieces.append([*head, *turn])
    return pieces


def _pieces(row: int, messages: list[Message], chat: Chat, context: int, counts: DialogueCounts) -> Iterator[Example]:
    found = chat.examples(messages)
    if any(len(ids) > context for ids, _ in found):
        cut = fitting(messages, chat, context)
        counts.cut += len(cut) > 1
        found = [e for piece in cut if piece[-1]["role"] == "assistant" for e in chat.examples(piece)]
    for ids, asked in found:
        long = len(ids) > context
        ids, asked = ids[: context + 1], asked[: context + 1]
        if not any(asked):
            counts.left_out += 1
            continue
        counts.shortened += long
        said = chat.tokenizer.decode(list(compress(ids, asked)), skip_special_tokens=True)
        yield Example(row, ids, asked, 0, said)
