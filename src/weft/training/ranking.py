"""A RankingModel trained on what users had next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from weft.data.split import VALID
from weft.features.events import histories
from weft.features.next_items import HistoryBatch, NextItems
from weft.features.pieces import IGNORED, OneEach
from weft.models.ranking import RankingModel
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.federated import loop_of
from weft.training.language import Trained
from weft.training.loop import Recipe
from weft.training.parallel import ALONE, Alone, leave
from weft.training.tracking import Tracker

TOP = 10
MOST_CHECKED = 10_000
"""Events of the validation part that are looked at while training; of more, some are drawn."""


def fit_ranking(
    model: RankingModel, data: NextItems, recipe: Recipe, smoothing: float, taken: bool, folder: Path, say: Silent
) -> Trained:
    """Train on the training part's events; the NDCG of those of valid says when to stop, as the surprise at the few
    items that are new to a user says little of the places where they stand. The model then holds the best weights.

    Args:
        taken: whether items that a user has had may be recommended.
    """
    device = model.begin.device
    cuts, places = data.cuts(), data.events.places(VALID)
    places = places[data.events.items[places] > 0]
    if len(places) > MOST_CHECKED:
        places = np.sort(np.random.default_rng(recipe.seed).choice(places, MOST_CHECKED, replace=False))

    each = OneEach(cuts.document, recipe.seed) if recipe.privacy else None

    def fetch(numbers: np.ndarray, epoch: int) -> HistoryBatch:
        return data.batch(cuts, each.pieces(numbers, epoch) if each else numbers, epoch).to(device)

    def validate(trained: nn.Module, team: Alone) -> float:
        assert isinstance(trained, RankingModel)
        return 1 - float(question_ndcg(trained, data, places, taken, team).mean())

    events = float(cuts.lengths().sum())

    def rate() -> float:
        p = loop.progress
        return events * p.step / loop.steps_an_epoch / max(p.seconds, 1e-9)

    torch.manual_seed(recipe.seed)
    learnt, lengths = (each.owners, None) if each else (np.arange(len(cuts)), data.windows(cuts))
    loop = loop_of(recipe)(
        model, recipe, fetch, learnt, lengths, validate, Tracker(folder),
        Checkpoints(folder / "checkpoints"), say, lambda batch, done, part: model.loss(batch, smoothing),
        pace=lambda p: f"{rate():,.0f} events a second",
        weigh=lambda batch: float((batch.targets_BT != IGNORED).sum()), beside=data.candidates.drawn is not None,
    )  # fmt: skip
    progress = loop.run()
    leave()
    model.eval()
    return Trained(progress, loop.steps_an_epoch, rate())


@torch.no_grad()
def question_ndcg(
    model: RankingModel, data: NextItems, places: np.ndarray, taken: bool, team: Alone = ALONE
) -> Tensor:  # fmt: skip
    """NDCG among the first ten of all items, of the events at ``places`` [N]; each must be of the catalogue.

    An item with the score of the true one stands before it.
    """
    vectors, bias = model.all_items(data.candidates.known_of, data.candidates.size)

    def gains(some: np.ndarray) -> Tensor:
        batch = data.questions(some).to(vectors.device)
        scores = model.scores(batch, vectors, bias)
        if not taken:
            row, item = histories(data.events, some)
            scores[row[item > 0], item[item > 0] - 1] = -torch.inf
        own = scores.gather(1, batch.targets_BT[batch.targets_BT != IGNORED][:, None] - 1)
        rank = (~(scores < own)).sum(dim=1)
        there = (rank <= TOP) & (own.squeeze(1) > -torch.inf)
        return torch.where(there, 1 / (1 + rank.double()).log2(), 0.0)

    return team.read(list(data.in_turn(places)), gains)
