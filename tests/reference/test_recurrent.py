"""The recurrent networks against torch.nn, and the promises every backbone keeps."""

from __future__ import annotations

import pytest
import torch
from tests.writers import greedy, greedy_anew
from torch import nn

from weft.models.language import Continuation, LanguageConfig, LanguageModel
from weft.models.recurrent import Recurrent, RecurrentConfig
from weft.models.tokens import Tokens

CELLS = ["rnn", "gru", "lstm"]
KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
LENGTHS = torch.tensor([7, 3, 1, 5])


def tokens(states, mask=None):
    zero = torch.zeros(states.shape[:2], dtype=torch.int64)
    return Tokens(states, mask, zero, zero)


def model(cell, attention, width=8, layers=2, **more):
    torch.manual_seed(0)
    return Recurrent(RecurrentConfig(width, layers, cell, attention, **more)).eval()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["reading", "writing"])
def test_equals_torch(cell, attention):
    ours = model(cell, attention, width=8, layers=3)
    both = attention == "reading"
    theirs = KINDS[cell](8, 8, num_layers=3, batch_first=True, bidirectional=both)
    for number, layer in enumerate(ours.layers):
        for name, parameter in layer.named_parameters():
            theirs.get_parameter(name.replace("_l0", f"_l{number}")).data.copy_(parameter)
    x = torch.randn(4, 7, 8)
    expected, _ = theirs(x)
    torch.testing.assert_close(ours(tokens(x)), ours.out(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["reading", "writing"])
@pytest.mark.parametrize("padding", ["left", "right", "anywhere"])
def test_padding_changes_nothing(cell, attention, padding):
    ours = model(cell, attention)
    x = torch.randn(4, 9, 8)
    mask = torch.zeros(4, 9, dtype=torch.bool)
    for row, length in enumerate(LENGTHS.tolist()):
        places = {"left": range(9 - length, 9), "right": range(length)}.get(
            padding, torch.randperm(9)[:length].tolist()
        )
        mask[row, list(places)] = True
    together = ours(tokens(x, mask))
    states: dict[str, torch.Tensor] = {}
    ours(tokens(x, mask), states=states)
    for row in range(4):
        alone: dict[str, torch.Tensor] = {}
        y = ours(tokens(x[row : row + 1, mask[row]]), states=alone)
        torch.testing.assert_close(together[row, mask[row]], y[0], rtol=1e-5, atol=1e-6)
        for name, state in alone.items():
            torch.testing.assert_close(states[name][row, mask[row]], state[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_the_first_token_of_a_reader_sees_the_whole_row_and_a_writer_only_the_past(cell):
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 4] += 1
    reader, writer = model(cell, "reading"), model(cell, "writing")
    assert (reader(tokens(x), first=1) - reader(tokens(changed), first=1)).abs().max() > 1e-4
    before, after = writer(tokens(x)), writer(tokens(changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-4
    torch.testing.assert_close(reader(tokens(x), first=2), reader(tokens(x))[:, :2])


@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_is_as_at_once(cell):
    ours = model(cell, "writing")
    x = torch.randn(3, 9, 8)
    mask = torch.ones(3, 9, dtype=torch.bool)
    mask[1, :3] = mask[2, 2:5] = False
    for given in (None, mask):
        whole = ours(tokens(x, given))
        cache = ours.new_cache()
        cuts = [slice(0, 2), slice(2, 3), slice(3, 7), slice(7, 9)]
        parts = [ours(tokens(x[:, c], None if given is None else given[:, c]), cache=cache) for c in cuts]
        steps = torch.cat(parts, dim=1)
        torch.testing.assert_close(steps[mask], whole[mask], rtol=1e-5, atol=1e-6)
        assert cache.length == 9


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_is_its_rows_one_by_one(cell):
    ours = model(cell, "reading")
    x = torch.randn(5, 6, 8)
    rows = torch.cat([ours(tokens(row[None])) for row in x])
    torch.testing.assert_close(ours(tokens(x)), rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_an_empty_row_gives_finite_states(cell):
    ours = model(cell, "reading")
    mask = torch.tensor([[True] * 4, [False] * 4])
    assert torch.isfinite(ours(tokens(torch.randn(2, 4, 8), mask))).all()


@pytest.mark.parametrize("cell", CELLS)
def test_writes_text_as_a_language_model(cell):
    torch.manual_seed(0)
    writer = LanguageModel(LanguageConfig(RecurrentConfig(24, 2, cell, "writing"), 31, tied=False)).eval()
    for parameter in writer.parameters():
        nn.init.normal_(parameter, std=0.8)
    text = torch.randint(0, 31, (3, 6))
    mask = torch.arange(6)[None, :] < torch.tensor([[6], [2], [4]])
    written = greedy(writer, text, 10, mask)
    assert written.unique().numel() > 4
    assert torch.equal(written, greedy_anew(writer, text, 10, mask))
    config = writer.config
    assert LanguageConfig.from_dict(config.to_dict()) == config


def test_learns_to_remember():
    """The last token must name the first, five steps before: an lstm finds it, which a broken one cannot."""
    torch.manual_seed(0)
    writer = LanguageModel(LanguageConfig(RecurrentConfig(32, 1, "lstm", "writing"), 8, tied=False))
    optimizer = torch.optim.AdamW(writer.parameters(), lr=0.01)
    for _ in range(150):
        text = torch.randint(0, 8, (64, 6))
        text[:, 5] = text[:, 0]
        targets = torch.full_like(text, -100)
        targets[:, 4] = text[:, 5]
        optimizer.zero_grad()
        loss = writer.loss(text, targets_BT=targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2  # guessing costs log 8 = 2.08


def test_dropout_stands_between_layers_and_before_the_output():
    x = tokens(torch.randn(2, 5, 8))
    ours = model("gru", "reading", dropout=0.5)
    assert torch.equal(ours(x), ours(x))
    ours.train()
    first, second = {}, {}
    ours(x, states=first), ours(x, states=second)
    assert torch.equal(first["layer00.output"], second["layer00.output"])
    assert not torch.equal(first["layer01.output"], second["layer01.output"])
    single = model("gru", "reading", dropout=0.5, layers=1).train()
    assert not torch.equal(single(x), single(x))


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match=r"cell must be one of rnn, gru, lstm. Got 'gro'"):
        RecurrentConfig(8, 1, "gro")
    with pytest.raises(ValueError, match="reading or writing"):
        RecurrentConfig(8, 1, "gru", "rewriting")
    reader = model("gru", "reading")
    with pytest.raises(ValueError, match="both ways"):
        reader(tokens(torch.randn(1, 2, 8)), cache=reader.new_cache())
    with pytest.raises(ValueError, match="second sequence"):
        reader(tokens(torch.randn(1, 2, 8)), source=tokens(torch.randn(1, 2, 8)))
    with pytest.raises(ValueError, match="cannot write"):
        Continuation(LanguageModel(LanguageConfig(RecurrentConfig(8, 1), 5)), torch.tensor([[1]]))
