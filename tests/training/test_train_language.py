"""Training on texts: packing changes nothing, nothing leaks, the loss is torch's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.texts import documents

from weft.features.documents import Marks
from weft.features.pieces import IGNORED, Corpus, Piece, packed, padded
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.recurrent import RecurrentConfig
from weft.models.transformer import TransformerConfig
from weft.training.language import TokenObjective, document_nats

SIZE = 50
TRANSFORMER = TransformerConfig(24, 2, 4, attention="writing", max_positions=16)
SHAPES = {
    "writing": TRANSFORMER,
    "reading": replace(TRANSFORMER, attention="reading"),
    "rewriting": replace(TRANSFORMER, attention="rewriting"),
    "window": replace(TRANSFORMER, window=4),
    "learned": replace(TRANSFORMER, positions="learned"),
    "sinusoidal": replace(TRANSFORMER, positions="sinusoidal"),
    "bert": replace(TRANSFORMER, attention="reading", norm="layer", norm_at="after", positions="learned",
                    embedding_norm=True, biases="all", feed_forward="gelu"),
    "grouped": replace(TRANSFORMER, groups=2, qk_norm=True),
}  # fmt: skip
RECURRENT = {cell: RecurrentConfig(24, 2, cell, "writing") for cell in ("rnn", "gru", "lstm")}
BOTH = {**SHAPES, **RECURRENT, "both ways": RecurrentConfig(24, 2, "gru", "reading")}


def make(backbone):
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(backbone, SIZE, tied=False)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return TokenObjective(model)


def pieces(prefix=False, seed=0):
    random = np.random.default_rng(seed)
    found = []
    for length in (1, 5, 11, 3, 16, 2, 7):
        ids, targets = random.integers(0, SIZE, (2, length))
        targets[random.random(length) < 0.3] = IGNORED
        found.append(Piece(ids, targets, length // 2 if prefix else 0))
    return found


def alone(objective, piece):
    """Logits of a text that is by itself, by the model's plain call without any segments."""
    prefix = torch.arange(len(piece.ids))[None] < piece.prefix if piece.prefix else None
    return objective.model(torch.from_numpy(piece.ids)[None], prefix_BT=prefix)[0]


def logits_of(objective, batch):
    tokens = objective.model.tokens(batch.ids_BT, prefix_BT=batch.prefix_BT, segments_BT=batch.segments_BT)
    return objective.model.logits(objective.model.backbone(tokens))


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_is_padded_is_alone(shape):
    objective, texts = make(SHAPES[shape]), pieces(prefix=shape == "rewriting")
    packs, pads = packed(texts, 16), padded(texts)
    assert len(packs.ids_BT) < len(texts) and int(packs.segments_BT.max()) > 1
    in_pack, in_pad = logits_of(objective, packs), logits_of(objective, pads)
    rest = {tuple(p.ids): p for p in texts}
    for row, ids in enumerate(packs.ids_BT):
        for number in range(1, int(packs.segments_BT[row].max()) + 1):
            mine = packs.segments_BT[row] == number
            piece = rest.pop(tuple(ids[mine].tolist()))
            expected = alone(objective, piece)
            torch.testing.assert_close(in_pack[row, mine], expected, rtol=1e-4, atol=1e-5)
            place = next(i for i, p in enumerate(texts) if p is piece)
            torch.testing.assert_close(in_pad[place, : len(piece.ids)], expected, rtol=1e-4, atol=1e-5)
    assert not rest
    torch.testing.assert_close(objective.loss(packs), objective.loss(pads), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", BOTH)
def test_the_loss_is_cross_entropy_over_the_places_that_are_asked_for(shape):
    objective, texts = make(BOTH[shape]), pieces()
    batch = padded(texts)
    logits = torch.cat([alone(objective, p) for p in texts])
    targets = torch.from_numpy(np.concatenate([p.targets for p in texts]))
    torch.testing.assert_close(objective.loss(batch), F.cross_entropy(logits, targets, ignore_index=IGNORED))
    nats, asked = objective.nats(batch)
    for row, piece in enumerate(texts):
        expected = F.cross_entropy(
            alone(objective, piece), torch.from_numpy(piece.targets), ignore_index=IGNORED, reduction="sum"
        )
        assert nats[row].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
        assert asked[row] == (piece.targets != IGNORED).sum()
    smooth = TokenObjective(objective.model, smoothing=0.1).train()
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED, label_smoothing=0.1)
    torch.testing.assert_close(smooth.loss(batch), expected)
    torch.testing.assert_close(smooth.eval().loss(batch), objective.loss(batch))


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_leaks_from_text_to_text(shape):
    """What one text is changes no number of another in the same row; the gradient across is exactly 0."""
    objective, texts = make(SHAPES[shape]), pieces(prefix=shape == "rewriting")[1:4]
    batch = packed(texts, 32)
    assert len(batch.ids_BT) == 1
    first = batch.segments_BT[0] == 1
    before = logits_of(objective, batch)[0]
    batch.ids_BT[0, ~first] = (batch.ids_BT[0, ~first] + 7) % SIZE
    after = logits_of(objective, batch)[0]
    assert torch.equal(before[first], after[first]) and not torch.allclose(before[~first], after[~first])
    tokens = objective.model.tokens(batch.ids_BT, prefix_BT=batch.prefix_BT, segments_BT=batch.segments_BT)
    tokens.states_BTD = tokens.states_BTD.detach().requires_grad_()
    objective.model.backbone(tokens)[0, first].square().sum().backward()
    gradient = tokens.states_BTD.grad[0]
    assert (gradient[~first] == 0).all() and (gradient[first].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("cell", [*RECURRENT, "both ways"])
def test_a_recurrent_network_refuses_texts_that_share_a_row(cell):
    with pytest.raises(ValueError, match="one text a row"):
        make(BOTH[cell]).loss(packed(pieces(), 32))


@pytest.mark.parametrize("shape", ["writing", "reading", "gru"])
def test_a_batch_that_asks_for_nothing_costs_nothing(shape):
    """The first piece of a document that is cut can be empty; a batch of it alone must not stop the training."""
    objective = make(BOTH[shape]).train()
    loss = objective.loss(packed([], 8))
    loss.backward()
    assert loss.item() == 0
    nats, asked = objective.nats(padded([Piece(np.zeros(0, np.int64), np.zeros(0, np.int64)), *pieces()]))
    assert nats[0] == 0 and asked[0] == 0 and torch.isfinite(nats).all()


def test_the_nats_of_pieces_do_not_depend_on_their_batch(monkeypatch):
    objective = make(TRANSFORMER)
    corpus = Corpus(documents([np.arange(3, 3 + n) % SIZE for n in (1, 40, 9, 16, 0, 25)]), Marks(2, 2, 1), 16)
    cuts = corpus.cuts(np.arange(6))
    nats, asked = document_nats(objective, corpus, cuts, np.arange(len(cuts)))
    assert asked.sum() == 91
    monkeypatch.setattr("weft.training.language.CHECK_TOKENS", 16)
    few, same = document_nats(objective, corpus, cuts, np.arange(len(cuts)))
    np.testing.assert_allclose(nats, few, rtol=1e-5)
    assert (asked == same).all()


def test_of_a_large_vocabulary_the_logits_of_a_few_tokens_are_held_at_once(monkeypatch):
    objective = make(TRANSFORMER)
    batch = padded(pieces())
    whole, _ = objective.nats(batch)
    held, logits = [], objective.model.logits
    monkeypatch.setattr(objective.model, "logits", lambda states: held.append(len(states)) or logits(states))
    monkeypatch.setattr("weft.training.language.CHECK_LOGITS", 3 * SIZE)
    np.testing.assert_allclose(objective.nats(batch)[0], whole, rtol=1e-6)
    assert max(held) == 3 and sum(held) == (batch.targets_BT != IGNORED).sum()
