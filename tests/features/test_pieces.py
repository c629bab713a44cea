"""Documents cut into pieces and packed into rows: every token once an epoch, nothing else changed."""

import numpy as np
import pytest
from tests.texts import documents

from weft.features.documents import Marks
from weft.features.pieces import IGNORED, Corpus, Cuts, Piece, packed, padded

BEGIN, END, MASK = 2, 2, 1
LENGTHS = np.array([1, 7, 8, 9, 16, 17, 40, 0, 3])
NEXT = Marks(BEGIN, END, MASK)


@pytest.mark.parametrize("epoch", [None, 0, 1, 2, 17])
def test_every_token_is_in_exactly_one_piece_whatever_the_shift(epoch):
    rows = np.arange(100, 100 + len(LENGTHS))
    cuts = Cuts(rows, LENGTHS, 8)
    starts, stops = cuts.spans(np.arange(len(cuts)), 3, epoch)
    assert (stops - starts).max() <= 8
    for row, length in zip(rows, LENGTHS, strict=True):
        seen = np.zeros(length, int)
        for start, stop in zip(starts[cuts.document == row], stops[cuts.document == row], strict=True):
            seen[start:stop] += 1
        assert (seen == 1).all()


def test_each_epoch_cuts_elsewhere_and_each_document_by_itself():
    cuts = Cuts(np.arange(200), np.full(200, 100), 16)
    first = [tuple(cuts.spans(np.arange(len(cuts)), 0, epoch)[1]) for epoch in range(3)]
    assert len(set(first)) == 3
    stops = cuts.spans(np.arange(len(cuts)), 0, 0)[1]
    shifts = stops[np.flatnonzero(np.diff(cuts.document, prepend=-1))]
    assert set(shifts.tolist()) == set(range(16))  # all places, about evenly
    assert np.bincount(shifts).max() < 30


def test_the_tokens_that_are_asked_for_are_those_of_the_documents():
    found = documents([np.arange(10, 10 + n) for n in LENGTHS])
    corpus = Corpus(found, NEXT, 8)
    cuts = corpus.cuts(np.arange(len(LENGTHS)))
    for epoch in (None, 0, 5):
        batch = corpus.batch(cuts, np.arange(len(cuts)), epoch)
        asked = batch.targets_BT[batch.targets_BT != IGNORED].numpy()
        assert sorted(asked) == sorted(found.tokens.values.tolist())


@pytest.mark.parametrize("begin", [BEGIN, None])
def test_a_writer_reads_the_token_before_the_one_it_is_asked_for(begin):
    texts = [np.arange(10, 10 + n) for n in LENGTHS]
    corpus = Corpus(documents(texts), Marks(begin, END, MASK), 8)
    cuts = corpus.cuts(np.arange(len(texts)))
    asked = 0
    for number in range(len(cuts)):
        batch = corpus.batch(cuts, np.array([number]), 4)
        for read, target in zip(batch.ids_BT[0].tolist(), batch.targets_BT[0].tolist(), strict=True):
            if target != IGNORED:
                asked += 1
                assert read == target - 1 or (read == begin and begin is not None)
    # without a first token nothing is read before the first of a document, which is then not asked for
    assert asked == sum(LENGTHS) - (0 if begin else (LENGTHS > 0).sum())


def test_the_context_is_never_exceeded():
    texts = [np.arange(10, 10 + n) for n in LENGTHS]
    for marks in (NEXT, Marks(None, None, MASK)):
        for masked in (None, 60):
            corpus = Corpus(documents(texts), marks, 8, masked=masked)
            cuts = corpus.cuts(np.arange(len(texts)))
            for epoch in (None, 3):
                assert corpus.batch(cuts, np.arange(len(cuts)), epoch).ids_BT.shape[1] <= 8


def test_hidden_tokens_are_15_percent_80_10_10():
    """Devlin 2019, 3.1; with 200,000 tokens the shares are exact to a percent."""
    size = 5_000
    random = np.random.default_rng(0)
    texts = [random.integers(10, size, 200) for _ in range(1_000)]
    corpus = Corpus(documents(texts), NEXT, 256, masked=size)
    cuts = corpus.cuts(np.arange(1_000))
    batch = corpus.batch(cuts, np.arange(1_000), 0)
    read, target = batch.ids_BT.numpy(), batch.targets_BT.numpy()
    asked = target != IGNORED
    assert asked.sum() / 200_000 == pytest.approx(0.15, abs=0.005)
    assert (read == MASK)[asked].mean() == pytest.approx(0.8, abs=0.01)
    same = (read == target)[asked].mean()
    assert same == pytest.approx(0.1, abs=0.01)
    assert ((read != MASK) & (read != target))[asked].mean() == pytest.approx(0.1, abs=0.01)
    # what is not asked for is read as it is: with the answers put back the documents are whole
    back = np.where(asked, target, read)
    assert np.array_equal(np.sort(back[back != BEGIN]), np.sort(np.concatenate(texts)))


def test_what_is_hidden_depends_on_the_epoch_and_not_on_the_batch():
    texts = [np.arange(10, 70) + i for i in range(6)]
    corpus = Corpus(documents(texts), NEXT, 64, seed=5, masked=200)
    cuts = corpus.cuts(np.arange(6))
    together = corpus.batch(cuts, np.arange(6), None)
    for row in range(6):
        alone = corpus.batch(cuts, np.array([row]), None)
        assert (alone.ids_BT[0] == together.ids_BT[row]).all()
    packs = [corpus.batch(cuts, np.array([0]), epoch).targets_BT for epoch in (0, 1)]
    assert not (packs[0] == packs[1]).all()


def test_packing_keeps_each_piece_whole_in_as_few_rows():
    random = np.random.default_rng(1)
    pieces = [Piece(a := random.integers(1, 99, n), a + 1, min(2, n)) for n in random.integers(1, 33, 200)]
    batch = packed(pieces, 32)
    assert len(batch.ids_BT) <= 1.15 * sum(len(p.ids) for p in pieces) / 32
    found = []
    for ids, targets, segments, prefix in zip(
        batch.ids_BT, batch.targets_BT, batch.segments_BT, batch.prefix_BT, strict=True
    ):
        for number in range(1, int(segments.max()) + 1):
            mine = segments == number
            assert mine.diff().sum() <= 2  # side by side
            found.append((tuple(ids[mine].tolist()), tuple(targets[mine].tolist()), int(prefix[mine].sum())))
    assert sorted(found) == sorted((tuple(p.ids), tuple(p.targets), p.prefix) for p in pieces)
    assert (batch.ids_BT[batch.segments_BT == 0] == 0).all()
    assert (batch.targets_BT[batch.segments_BT == 0] == IGNORED).all()


def test_rows_that_are_one_full_piece_each_need_no_segments():
    pieces = [Piece(np.arange(8), np.arange(8)) for _ in range(3)]
    assert padded(pieces).segments_BT is None and packed(pieces, 8).segments_BT is None
    assert padded([*pieces, Piece(np.arange(3), np.arange(3))]).segments_BT is not None
