"""Simple recommenders that a model must beat: popularity, item neighbours, the last step, the user's own past.

They learn from the same training events and are asked at the same places; their settings are untuned.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from weft.data.split import TRAIN
from weft.features.events import Events, histories
from weft.results.ranking import Score

NEIGHBOURS = 100
"""Items kept beside each item."""
MOST_OF_A_USER = 500
"""Distinct items of one user that are compared with one another; of more, those with the most events."""
BLOCK = 512
LITTLE = 1e-6
"""Weight of the popularity that decides where a baseline has nothing else to say."""


def baselines(events: Events, counts: np.ndarray, taken: bool) -> list[tuple[str, str, Score]]:
    """Key, title and scores of each. ``taken``: users come back to what they had."""
    found = [
        ("popularity", "Popularity", popularity(counts)),
        ("neighbours", "Item neighbours (cosine)", item_neighbours(events, counts, own=taken)),
        ("markov", "Markov (the last item)", markov(events, counts)),
    ]
    if taken:
        found += [
            ("recent", "The user's own last items", own_past(events, counts, frequent=False)),
            ("frequent", "The user's own most frequent items", own_past(events, counts, frequent=True)),
        ]
    return found


def popularity(counts: np.ndarray) -> Score:
    """The same for everyone: the items with the most training events."""
    return lambda places: np.tile(_share(counts), (len(places), 1))


def item_neighbours(events: Events, counts: np.ndarray, own: bool) -> Score:
    """Sum over the user's items of their cosines with each item (Sarwar 2001), by who had them in training.

    ``own``: an item is its own nearest neighbour.
    """
    near = cosines(user_items(events, len(counts)), own)

    def score(places: np.ndarray) -> np.ndarray:
        row, item = histories(events, places)
        row, item = row[item > 0], item[item > 0] - 1
        had = sparse.csr_matrix((np.ones(len(row)), (row, item)), (len(places), len(counts)))
        had.data[:] = 1.0
        return (had @ near).toarray() + LITTLE * _share(counts)

    return score


def user_items(events: Events, size: int) -> sparse.csr_matrix:
    """1 where a user had an item in training [U, V], at most ``MOST_OF_A_USER`` items of each."""
    pieces, users = [], len(events.offsets) - 1
    for piece in events.pieces():
        places = np.flatnonzero((events.parts[piece] == TRAIN) & (events.items[piece] > 0)) + piece.start
        pair = events.owners(places).astype(np.int64) * size + events.items[places] - 1
        pair, often = np.unique(pair, return_counts=True)
        user = pair // size
        order = np.lexsort((-often, user))
        number = np.arange(len(order)) - np.searchsorted(user[order], user[order])
        pieces.append(np.sort(pair[order[number < MOST_OF_A_USER]]))
    pair = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    return sparse.csr_matrix((np.ones(len(pair)), (pair // size, pair % size)), (users, size))


def cosines(had: sparse.csr_matrix, own: bool) -> sparse.csr_matrix:
    """Cosines of the columns, the ``NEIGHBOURS`` largest of each row [V, V]."""
    norms = np.sqrt(np.asarray(had.multiply(had).sum(axis=0)).ravel())
    unit = (had @ sparse.diags_array(1 / np.maximum(norms, 1e-12))).tocsc()
    turned, blocks = unit.T.tocsr(), []
    for start in range(0, unit.shape[1], BLOCK):
        block = (turned[start : start + BLOCK] @ unit).tolil()
        if not own:
            block[np.arange(block.shape[0]), np.arange(start, start + block.shape[0])] = 0
        blocks.append(_largest(block.tocsr()))
    return sparse.vstack(blocks).tocsr() if blocks else sparse.csr_matrix((0, 0))


def _largest(block: sparse.csr_matrix) -> sparse.csr_matrix:
    row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    order = np.lexsort((block.indices, -block.data, row))
    number = np.arange(len(order)) - block.indptr[row[order]]
    keep = order[number < NEIGHBOURS]
    return sparse.csr_matrix((block.data[keep], (row[keep], block.indices[keep])), block.shape)


def markov(events: Events, counts: np.ndarray) -> Score:
    """How often each item came right after the user's last one in training (a first-order Markov chain)."""
    size, found = len(counts), sparse.csr_matrix((len(counts), len(counts)))
    for piece in events.pieces():
        items, parts = events.items[piece], events.parts[piece]
        owner = events.owners(np.arange(piece.start, piece.stop))
        known = (parts == TRAIN) & (items > 0)
        step = (owner[1:] == owner[:-1]) & known[1:] & known[:-1]
        before, after = items[:-1][step] - 1, items[1:][step] - 1
        found = found + sparse.csr_matrix((np.ones(len(before)), (before, after)), (size, size))
    total = np.asarray(found.sum(axis=1)).ravel()
    chain = (sparse.diags_array(1 / np.maximum(total, 1)) @ found).tocsr()

    def score(places: np.ndarray) -> np.ndarray:
        first = events.offsets[events.owners(places)]
        last = np.where(places > first, events.items[np.maximum(places - 1, 0)], 0).astype(np.int64)
        scores = np.zeros((len(places), size))
        scores[last > 0] = chain[last[last > 0] - 1].toarray()
        return scores + LITTLE * _share(counts)

    return score


def own_past(events: Events, counts: np.ndarray, frequent: bool) -> Score:
    """The user's own items, the last first, or the most frequent first (of equals the last)."""

    def score(places: np.ndarray) -> np.ndarray:
        row, item = histories(events, places)
        first = np.searchsorted(row, np.arange(len(places)))
        lengths = np.bincount(row, minlength=len(places))
        age = (np.arange(len(row)) - first[row] + 1) / np.maximum(1, lengths[row] + 1)  # 1 is now
        scores = np.zeros((len(places), len(counts)))
        there = item > 0
        np.maximum.at(scores, (row[there], item[there] - 1), age[there])
        if frequent:
            np.add.at(scores, (row[there], item[there] - 1), 1.0)
        return scores + LITTLE * _share(counts)

    return score


def _share(counts: np.ndarray) -> np.ndarray:
    return counts / max(1, counts.sum())
