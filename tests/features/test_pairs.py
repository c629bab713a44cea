"""A source and what is written from it, as tokens: beside rows made by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from weft.data.split import TRAIN
from weft.errors import SettingsError
from weft.features.documents import Marks
from weft.features.examples import ExampleCorpus, Examples, write_examples
from weft.features.pairs import PairCounts, Pairing, examples_of, fit_pairing, separator_of
from weft.features.pieces import IGNORED
from weft.features.tokenizer import WRITING, begin_with, train_tokenizer
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.transformer import TransformerConfig
from weft.preprocess.clean import CleanBatch
from weft.training.language import TokenObjective


@pytest.fixture(scope="module")
def tokenizer():
    """A token a letter: no two letters were seen twice together."""
    made = train_tokenizer(["abcdefg"], 300, special=WRITING)
    begin_with(made, "<end>")
    return made


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def pairing(tokenizer, sources=("a",), source_room=20, target_room=10):
    end, sep = tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<sep>")
    return Pairing(sources, "t", end, (sep,), end, source_room, target_room)


def made(tokenizer, columns, **rooms):
    sources = tuple(n for n in columns if n != "t")
    counts = PairCounts()
    table = {n: pa.array(v, pa.string()) for n, v in columns.items()}
    return list(examples_of(table, pairing(tokenizer, sources, **rooms), tokenizer, counts)), counts


def test_a_source_a_separator_a_target_and_an_end(tokenizer):
    end, sep = tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<sep>")
    (one, two), counts = made(tokenizer, {"a": ["ab", None], "t": ["cde", "<sep>"]})
    assert one.ids == [end, *ids(tokenizer, "ab"), sep, *ids(tokenizer, "cde"), end]
    assert one.asked == [False] * 4 + [True] * 4 and one.prefix == 4 and one.said == "cde"
    # a missing source is an empty one; a separator that a person wrote is letters
    assert two.ids == [end, sep, *ids(tokenizer, "<sep>"), end] and two.ids.count(sep) == 1 and len(two.ids) == 8
    assert (counts.sources, counts.targets) == (0, 0)


def test_several_sources_each_have_a_separator(tokenizer):
    end, sep = tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<sep>")
    (one,), _ = made(tokenizer, {"a": ["ab"], "b": ["c"], "t": ["d"]})
    assert one.ids == [end, *ids(tokenizer, "ab"), sep, *ids(tokenizer, "c"), sep, *ids(tokenizer, "d"), end]


def test_what_is_too_long_loses_its_end_the_longest_first(tokenizer):
    end, sep = tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<sep>")
    (one,), counts = made(
        tokenizer, {"a": ["abcdefg"], "b": ["ab"], "t": ["gfedcba"]}, source_room=8, target_room=4
    )  # 8 - begin - 2 separators leave 5: two of the short one, three of the long one
    assert one.ids == [end, *ids(tokenizer, "abc"), sep, *ids(tokenizer, "ab"), sep, *ids(tokenizer, "gfed")]
    assert one.ids[-1] != end and (counts.sources, counts.targets) == (1, 1)  # not taught to end there


def test_the_model_reads_all_but_the_last_and_is_asked_for_the_target_only(tokenizer):
    end, sep = tokenizer.token_to_id("<end>"), tokenizer.token_to_id("<sep>")
    examples, _ = made(tokenizer, {"a": ["ab", "c"], "t": ["de", "f"]})
    corpus = ExampleCorpus(Examples.held(examples), Marks(end, end, None), 32, 0, prefixed=True, pack=True)
    batch = corpus.batch(corpus.cuts(np.arange(2)), np.arange(2), 0)  # packed, the longest first
    (a, b), c, (d, e), f = ids(tokenizer, "ab"), *ids(tokenizer, "c"), ids(tokenizer, "de"), *ids(tokenizer, "f")
    assert batch.ids_BT.tolist() == [[end, a, b, sep, d, e, end, c, sep, f]]
    assert batch.targets_BT.tolist() == [[IGNORED] * 3 + [d, e, end] + [IGNORED] * 2 + [f, end]]
    assert batch.prefix_BT.tolist() == [[True] * 4 + [False] * 2 + [True] * 3 + [False]]
    assert batch.segments_BT.tolist() == [[1] * 6 + [2] * 4]
    plain = ExampleCorpus(Examples.held(examples), Marks(end, end, None), 32, 0, prefixed=False, pack=True)
    assert plain.batch(plain.cuts(np.arange(2)), np.arange(2), 0).prefix_BT is None


def test_examples_on_disk_are_those_in_memory(tokenizer, tmp_path):
    examples, _ = made(tokenizer, {"a": ["ab", "", "cc"], "t": ["d", "ee", "f"]})
    stored, held = write_examples(iter(examples), tmp_path / "store"), Examples.held(examples)
    for name in ("letters", "bytes", "prefix", "row"):
        assert np.array_equal(getattr(stored, name), getattr(held, name)), name
    for name in ("tokens", "asked"):
        assert np.array_equal(getattr(stored, name).values, getattr(held, name).values)
        assert np.array_equal(getattr(stored, name).offsets, getattr(held, name).offsets)


def test_the_loss_is_that_of_each_text_alone_by_hand(tokenizer):
    """Packed rows, a prefix that all may read, label smoothing: beside one row at a time and a mask by hand."""
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    model = LanguageModel(LanguageConfig(TransformerConfig(32, 2, 2, attention="rewriting"), size))
    examples, _ = made(tokenizer, {"a": ["ab", "c", "gfedcba"], "t": ["de", "f", "ab"]})
    end = tokenizer.token_to_id("<end>")
    corpus = ExampleCorpus(Examples.held(examples), Marks(end, end, None), 32, 0, prefixed=True, pack=True)
    found = TokenObjective(model, 0.1).loss(corpus.batch(corpus.cuts(np.arange(3)), np.arange(3), 0))
    logs, targets = [], []
    for example in examples:
        read = torch.tensor([example.ids[:-1]])
        prefix = torch.arange(read.shape[1])[None] < example.prefix
        p = model(read, prefix_BT=prefix)[0].log_softmax(-1)
        for place in range(example.prefix - 1, read.shape[1]):
            logs.append(p[place])
            targets.append(example.ids[place + 1])
    logs = torch.stack(logs)
    by_hand = -(0.9 * logs[torch.arange(len(targets)), targets] + 0.1 * logs.mean(dim=1)).mean()
    torch.testing.assert_close(found, by_hand, rtol=1e-5, atol=1e-5)
    causal = -F.nll_loss(logs, torch.tensor(targets))
    assert not torch.isclose(found, causal)


def test_every_token_of_the_source_is_read_both_ways():
    """Changing the source's last token changes the state of its first; changing the target's does not."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(TransformerConfig(32, 2, 2, attention="rewriting"), 20)).eval()
    text = torch.tensor([[1, 2, 3, 4, 5, 6]])
    prefix = torch.tensor([[True, True, True, False, False, False]])
    other_source, other_target = text.clone(), text.clone()
    other_source[0, 2], other_target[0, 4] = 9, 9
    states = [model.hidden(x, prefix_BT=prefix)[0] for x in (text, other_source, other_target)]
    assert not torch.allclose(states[0][0], states[1][0])
    assert torch.allclose(states[0][:4], states[2][:4], atol=1e-6) and not torch.allclose(states[0][4], states[2][4])


class Rows:
    """Cleaned rows in memory."""

    def __init__(self, columns, parts):
        self.columns, self.parts = {n: pa.array(v, pa.string()) for n, v in columns.items()}, np.array(parts)

    def batches(self, part=None, names=None):
        found = CleanBatch(np.arange(len(self.parts)), self.columns, [])
        yield found if part is None else found.chosen(self.parts == part)


def test_rooms_follow_the_training_rows(tokenizer):
    marks = Marks.of(tokenizer)
    rows = Rows({"a": ["abc", "a" * 60, "b"], "t": ["abcd", "b" * 50, "c"]}, [TRAIN, TRAIN + 1, TRAIN])
    fit = (rows, ["a"], "t", tokenizer, marks, marks.end)
    found, context = fit_pairing(*fit, None, None, None)
    # the longest source has 5 tokens with what is around it, the longest target 5 with its end; the rest is shared
    assert context == 64 and found.target_room == 5 + (64 - 5 - 5) // 2 and found.source_room == 64 - found.target_room
    found, context = fit_pairing(*fit, 32, 24, 10)
    assert (context, found.target_room, found.source_room) == (24, 10, 14)
    with pytest.raises(SettingsError, match=r"target.max_tokens: must leave room"):
        fit_pairing(*fit, 16, None, 15)


def test_a_tokenizer_without_a_separator_takes_a_line_end():
    made = train_tokenizer(["a\nb"], 300)
    assert separator_of(made) == tuple(made.encode("\n").ids) and len(separator_of(made)) == 1
