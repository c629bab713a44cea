"""A model that reads, trained to answer from a text, or to put texts that belong together near one another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.batching import Batch, collate, shuffled
from weft.features.pieces import OneEach
from weft.features.store import Store
from weft.features.twins import DOCUMENT, QUERY
from weft.features.windows import WINDOW
from weft.models.backbone import best_device
from weft.models.language import LanguageModel
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.federated import loop_of
from weft.training.language import Trained
from weft.training.loop import Recipe
from weft.training.parallel import ALL, Alone, Part, leave
from weft.training.tracking import Tracker

TEMPERATURE = 0.05


class SpanObjective(nn.Module):
    """Mean of -log p(first token of the answer) and -log p(its last), in nats (Devlin 2019, 4.2 and 4.3).

    Places outside the context have no probability, but for the first token, which says that there is no answer.
    """

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model

    def loss(self, batch: Batch) -> Tensor:
        fields = batch.columns[WINDOW]
        logits = span_logits(self.model, fields).float()
        begin, end = (F.cross_entropy(logits[..., i], fields[n]) for i, n in enumerate(("begin", "end")))
        return (begin + end) / 2


def span_logits(model: LanguageModel, window: dict[str, Tensor]) -> Tensor:
    """Logits [B, T, 2] of the beginning and the end of the answer; -inf where neither may be."""
    ids = window["tokens"]
    places = torch.arange(ids.shape[1], device=ids.device)
    second = places >= window["context"][:, None]
    mask = ids >= 0
    types = (second & mask).long() if model.config.types > 1 else None
    logits = model.spans(ids.clamp(min=0), mask, types)
    allowed = (second & (places < window["stop"][:, None])) | (places == 0)
    return logits.masked_fill(~allowed.unsqueeze(-1), -torch.inf)


class PairObjective(nn.Module):
    """InfoNCE (van den Oord 2018) over the pairs of a batch, both ways: mean of -log p(the other of the pair).

    p is the softmax of the cosines over all texts of the batch, divided by a temperature that is learnt (Radford
    2021). A text that equals a query's own document, or is paired with the same query, is no wrong answer to it.
    """

    def __init__(self, model: LanguageModel):
        super().__init__()
        self.model = model
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log().to(best_device()))

    def loss(self, batch: Batch, part: Part = ALL) -> Tensor:
        """... of the pairs of this process, beside the texts of all of the ``part``."""
        texts = [batch.columns[name] for name in (QUERY, DOCUMENT)]
        own = [self._vectors(text["tokens"]) for text in texts]
        every = [part.whole(vectors) for vectors in own]
        same = torch.stack([text["same"][:, None] == part.whole(text["same"]) for text in texts]).any(dim=0)
        right = torch.from_numpy(part.team.places(same.shape[1])[0]).to(same.device)
        same[torch.arange(len(right)), right] = False
        heat = self.log_temperature.exp().clamp(min=0.01)
        there, back = ((mine @ others.T).float() / heat for mine, others in zip(own, reversed(every), strict=True))
        losses = [F.cross_entropy(cosines.masked_fill(same, -torch.inf), right) for cosines in (there, back)]
        return torch.stack(losses).mean()

    def _vectors(self, ids_BT: Tensor) -> Tensor:
        return F.normalize(self.model.pooled(ids_BT.clamp(min=0), ids_BT >= 0).float(), dim=1)


def fit_reading(
    objective: SpanObjective | PairObjective, store: Store, train: np.ndarray, valid: np.ndarray, recipe: Recipe,
    folder: Path, say: Silent, rows: np.ndarray | None = None,
) -> Trained:  # fmt: skip
    """Train on the stored windows ``train``; ``valid`` say when to stop. The model then holds the best weights.

    ``rows``: of which row each stored window is, ascending. A private training reads one of each row that it draws.
    """
    lengths = store.lengths()
    assert lengths is not None

    def fetch(windows: np.ndarray, epoch: int = 0) -> Batch:
        return collate(store.take(windows), len(windows)).to(objective.model.device)

    each = OneEach(rows[train], recipe.seed) if recipe.privacy and rows is not None else None

    def of_rows(some: np.ndarray, epoch: int) -> Batch:
        assert each is not None
        return fetch(train[each.pieces(some, epoch)])

    # the same batches at every look: what stands beside a pair is part of its loss
    watched = list(shuffled(valid, None, recipe.batch_rows, recipe.seed, 0))

    def validate(model: nn.Module, team: Alone) -> float:
        loss: Callable[[Batch], Tensor] = model.loss  # type: ignore[assignment]
        return float(team.read(watched, lambda rows: loss(fetch(rows)).double().expand(len(rows))).mean())

    torch.manual_seed(recipe.seed)
    learnt = (of_rows, each.owners, None) if each else (fetch, train, lengths)
    loop = loop_of(recipe)(
        objective, recipe, *learnt, validate, Tracker(folder), Checkpoints(folder / "checkpoints"), say,
        (lambda batch, done, part: objective.loss(batch, part)) if isinstance(objective, PairObjective) else None,
    )  # fmt: skip
    progress = loop.run()
    leave()
    objective.model.eval()
    epochs = progress.step / loop.steps_an_epoch
    rate = lengths[train].sum() * epochs / max(progress.seconds, 1e-9)
    return Trained(progress, loop.steps_an_epoch, float(rate))
