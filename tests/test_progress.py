"""What a person sees: lines in a file, and one line that is written anew in a notebook."""

import io

import pytest

from weft import progress
from weft.progress import Spoken


class OutStream(io.StringIO):
    """What Jupyter's kernel has for stderr is told by its module."""

    __module__ = "ipykernel.iostream"


@pytest.mark.parametrize(("stream", "lines"), [
    (io.StringIO(), ["            training: 25%, about ", "            training: 75%, about "]),
    (OutStream(), ["\r            training: 25%, about "]),
])  # fmt: skip
def test_a_bar_where_there_is_no_terminal(monkeypatch, stream, lines):
    monkeypatch.setattr(progress._LineBar, "seconds", 0.0)
    monkeypatch.setattr(progress._AnewBar, "seconds", 0.0)
    with Spoken(stream).bar("training", 4) as bar:
        for _ in range(4):
            bar.advance(1, "loss 0.5")
    said = stream.getvalue()
    assert all(line in said for line in lines) and "loss 0.5" in said
    assert said.count("\n") == (4 if "\r" not in lines[0] else 0)
    if isinstance(stream, OutStream):
        assert said.count("\r") == 6 and said.rsplit("\r", 2)[1].isspace()  # wiped at the end


def test_one_minute_is_no_plural():
    assert [progress.minutes_in_words(n) for n in (0.5, 1.0, 10.0)] == ["0.5 minutes", "1 minute", "10 minutes"]
    assert [progress.over_in_words(n) for n in (1.0, 2.0)] == ["the 1 minute was over", "the 2 minutes were over"]
