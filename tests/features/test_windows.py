"""Places in a text and tokens of windows lead to one another, in any script."""

import itertools

import numpy as np
import pytest
from tests.writers import TEXTS, byte_level

from weft.errors import SettingsError
from weft.features.documents import begin_with
from weft.features.pieces import IGNORED
from weft.features.tokenizer import END, WRITING, character_tokenizer, train_tokenizer
from weft.features.windows import STRIDE, Frame, cut_windows
from weft.models.tokenizer_files import load_tokenizer

LETTERS = [*list("abc é1，。 \n\t花海国🙂🇨🇳ﬁİé한"), "  ", "👩\u200d🚀", "sea "]


def of_weft(kind):
    made = character_tokenizer(TEXTS, 1) if kind == "characters" else train_tokenizer(TEXTS, 320, special=WRITING)
    begin_with(made, END)
    return made


def word_pieces(folder):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "b",
        "c",
        "##a",
        "##b",
        "##c",
        "sea",
        "花",
        "国",
        "1",
        "e",
    ]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return load_tokenizer(folder)


@pytest.fixture(params=["characters", "bytes", "word pieces"])
def tokenizer(request, tmp_path):
    return word_pieces(tmp_path) if request.param == "word pieces" else of_weft(request.param)


def test_frames(tmp_path):
    assert Frame.of(word_pieces(tmp_path)) == Frame((2,), (3,), (3,))
    made = of_weft("bytes")
    end, separator = made.token_to_id("<end>"), made.token_to_id("<sep>")
    assert Frame.of(made) == Frame((end,), (separator,), (end,))
    with pytest.raises(SettingsError, match="a token before a text"):
        Frame.of(byte_level())


def test_every_answer_comes_back_as_the_characters_it_was(tokenizer):
    """Of any span of any text: its tokens, turned back, are the least piece of whole tokens that holds it."""
    random, frame = np.random.default_rng(0), Frame.of(tokenizer)
    exact = 0
    for _ in range(300):
        context = "".join(random.choice(LETTERS, random.integers(1, 60)))
        start = int(random.integers(len(context)))
        end = int(random.integers(start, len(context))) + 1
        windows = cut_windows(["sea?"], [context], tokenizer, frame, 2_000)
        targets = windows.targets(np.array([start]), np.array([end]))
        begin, last = int(targets["begin"][0]), int(targets["end"][0])
        if begin == IGNORED:
            touched = (windows.offsets[0][:, 1] > start) & (windows.offsets[0][:, 0] < end)
            assert not touched.any()
            continue
        assert windows.context[0] <= begin <= last < windows.stop[0]
        a, b = windows.characters(0, begin, last)
        # all that lies outside the tokens was dropped by the tokenizer: spaces and marks, never a letter of the answer
        assert (a <= start or not context[start:a].strip(" \n\t\u0301")) and 0 <= a < b <= len(context)
        inner = [tuple(o) for o in windows.offsets[0] if o[0] >= start and o[1] <= end and o[1] > o[0]]
        if inner and inner[0][0] == start and inner[-1][1] == end:
            assert context[a:b] == context[start:end]
            exact += 1
    assert exact > 50


def test_windows_hold_every_token_and_overlap(tokenizer):
    frame = Frame.of(tokenizer)
    context = "the sea 花海国 abc 🙂 " * 40
    whole = cut_windows(["a b"], [context], tokenizer, frame, 10_000)
    ids = whole.tokens.values[whole.context[0] : whole.stop[0]].tolist()
    for longest in (16, 33, 100, 400):
        windows = cut_windows(["a b", "c"], [context, "sea"], tokenizer, frame, longest)
        assert windows.tokens.lengths().max() <= longest
        assert windows.row.tolist() == [0] * (len(windows.row) - 1) + [1]
        seen: dict[int, int] = {}
        stops = []
        for w in np.flatnonzero(windows.row == 0):
            row = windows.tokens.values[windows.tokens.offsets[w] : windows.tokens.offsets[w + 1]].tolist()
            assert (
                row[0] == frame.begin[0] and row[-1] == frame.end[0] and row[windows.context[w] - 1] == frame.middle[0]
            )
            piece = row[windows.context[w] : windows.stop[w]]
            seen |= {int(windows.first[w]) + place: token for place, token in enumerate(piece)}
            stops.append((int(windows.first[w]), int(windows.first[w]) + len(piece)))
        assert [seen[i] for i in range(len(ids))] == ids and len(seen) == len(ids)
        room = stops[0][1]
        for (_, stop), (first, _) in itertools.pairwise(stops):
            assert stop - first == min(STRIDE, room // 2)


def test_an_answer_that_a_window_does_not_hold_is_none_in_it(tokenizer):
    context = "sea " * 30 + "花" + " sea" * 30
    place = context.index("花")
    windows = cut_windows(["a"], [context], tokenizer, Frame.of(tokenizer), 24)
    targets = windows.targets(np.array([place]), np.array([place + 1]))
    holding = np.flatnonzero(targets["begin"])
    assert 0 < len(holding) < len(windows.row)
    for w in range(len(windows.row)):
        if w in holding:
            assert windows.characters(w, targets["begin"][w], targets["end"][w]) == (place, place + 1)
        else:
            assert targets["begin"][w] == targets["end"][w] == 0


def test_a_question_without_an_answer_and_one_that_is_too_long(tokenizer):
    windows = cut_windows(["a " * 100], ["sea"], tokenizer, Frame.of(tokenizer), 20)
    assert windows.cut == 1 and windows.tokens.lengths().max() <= 20
    targets = windows.targets(np.array([-1]), np.array([-1]))
    assert not targets["begin"].any() and not targets["end"].any()
