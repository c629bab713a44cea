"""Texts that are written side by side: each is bit for bit what it is alone, and room is given back."""

import pytest
import torch
from tests.writers import byte_level, untrained

from weft.errors import CheckpointError
from weft.inference.generate import read_prompt, write
from weft.inference.letters import Line
from weft.inference.sampling import Sampling
from weft.server.memory import BLOCK, Keys
from weft.server.writer import Row, Writer

TOKENIZER = byte_level()
LONG = (
    "The cat sat on the mat, and the dog sat on the cat. She sells sea shells on the sea shore. Do not stop there! 花"
    * 2
)


class Asked:
    """One text that is asked for, and what was said of it."""

    def __init__(self, model, prompt, sampling, top=3):
        self.said, self.left = [], False
        read = read_prompt(model, TOKENIZER, prompt, sampling, False)
        line = Line(TOKENIZER, read.ids, model.config.end, sampling.stop, read.limit, read.limited_by)
        self.row = Row(read, sampling.seed, sampling, line, self.said.append, lambda: self.left, top)

    @property
    def answer(self):
        assert self.said[-1] is None
        assert "".join(self.said[:-1]) == self.row.line.text
        return self.row.line.ids, self.row.tokens


def several():
    settings = [{"temperature": 0.0}, {"temperature": 1.3, "top_k": 20}, {"temperature": 0.8, "top_p": 0.9},
                {"temperature": 0.0, "repetition_penalty": 1.3}, {"temperature": 1.0, "stop": ("e",)}]  # fmt: skip
    starts = ["The", "She sells sea", LONG, LONG + "Stop", "s", LONG[:60], "Stop here."]
    return [(p, Sampling(max_tokens=6 + i, seed=i, **settings[i % 5])) for i, p in enumerate(starts)]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("transformer", torch.float32), ("transformer", torch.bfloat16), ("gru", torch.float32)]
)
def test_a_text_is_the_same_bit_for_bit_alone_and_beside_others(kind, dtype):
    model = untrained(kind).to(dtype)
    alone = []
    for prompt, sampling in several():
        writer = Writer(model, rows=5)
        asked = Asked(model, prompt, sampling)
        writer.waiting.append(asked.row)
        while writer.busy:
            writer.step()
        alone.append(asked.answer)
    writer = Writer(model, rows=5)
    together = [Asked(model, *one) for one in several()]
    for asked in [*together, None]:  # they join one after the other, and leave when they are done
        if asked is not None:
            writer.waiting.append(asked.row)
        while writer.busy if asked is None else writer.waiting:
            writer.step()
    assert [t.answer for t in together] == alone
    assert max(len(t.answer[0]) for t in together) > 6
    if dtype == torch.float32:  # else nearly level tokens may change places
        assert [write(model, TOKENIZER, [p], s)[0].ids for p, s in several()] == [ids for ids, _ in alone]
    if kind == "transformer":
        assert together[3].row.shared == BLOCK, "the second long prompt must find the first one's blocks"


def test_room_is_given_back_and_what_nobody_uses_makes_way():
    model = untrained("transformer")
    writer = Writer(model, rows=2, budget=0)  # room for one text of full length
    memory = writer.memory
    assert isinstance(memory, Keys) and memory.most == 129
    for number in range(6):
        asked = Asked(model, f"{number}" + LONG, Sampling(max_tokens=3))
        writer.waiting.append(asked.row)
        while writer.busy:
            writer.step()
        assert asked.answer[0]
        assert memory.pool.free + BLOCK * len(memory._blocks(memory._first)) == memory.most
        assert len(memory._blocks(memory._first)) == 1


def test_a_text_that_nobody_waits_for_is_dropped_within_a_step():
    model = untrained("transformer", ends=())
    writer = Writer(model, rows=4)
    asked = [Asked(model, "The cat", Sampling(max_tokens=50)) for _ in range(6)]
    writer.waiting.extend(a.row for a in asked)
    writer.step()
    assert len(writer.writing) == 4
    for gone in (asked[0], asked[5]):
        gone.left = True
    writer.step()
    assert asked[0].row not in writer.writing and asked[5].row not in writer.waiting
    while writer.busy:
        writer.step()
    assert [len(a.row.line.ids) for a in asked[1:5]] == [50] * 4 and len(asked[0].row.line.ids) <= 2
    assert isinstance(writer.memory, Keys)
    assert writer.memory.pool.free == writer.memory.most


def test_an_error_of_the_model_ends_the_text_it_belongs_to():
    model = untrained("transformer")
    bad = TOKENIZER.encode("z").ids[0]
    with torch.no_grad():
        model.table.weight[bad] = torch.nan
    writer = Writer(model, rows=4)
    asked = [Asked(model, p, Sampling(max_tokens=5)) for p in ("The cat", "z", "She")]
    writer.waiting.extend(a.row for a in asked)
    while writer.busy:
        writer.step()
    assert isinstance(asked[1].said[-1], CheckpointError)
    assert asked[0].said[-1] is None and asked[2].said[-1] is None
    assert isinstance(writer.memory, Keys)
    assert writer.memory.pool.free == writer.memory.most


def test_what_belongs_to_no_text_ends_all_of_them():
    model = untrained("transformer", ends=())
    writer = Writer(model, rows=2)
    asked = [Asked(model, "The cat", Sampling(max_tokens=50)) for _ in range(3)]
    writer.waiting.extend(a.row for a in asked)
    writer.step()
    writer.abandon(MemoryError("the secret"))
    assert not writer.busy and all("secret" not in str(a.said[-1]) for a in asked)
    assert all(isinstance(a.said[-1], CheckpointError) for a in asked)
    assert isinstance(writer.memory, Keys)
    assert writer.memory.pool.free == writer.memory.most
