"""A LanguageModel trained on the pieces of a corpus: the next token, or hidden ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.batching import in_turn
from weft.features.pieces import IGNORED, Corpus, Cuts, OneEach, TextBatch
from weft.models.language import LanguageModel
from weft.models.mapped import mapped
from weft.progress import Silent
from weft.training.checkpoint import Checkpoints
from weft.training.federated import loop_of
from weft.training.loop import Distil, Progress, Recipe
from weft.training.parallel import ALONE, Alone, leave
from weft.training.tracking import Tracker

CHECK_TOKENS = 16_384
CHECK_LOGITS = 1 << 21
"""Logits that are held at once while reading: these stay in a cache, more go to memory and back."""
MOST_CHECKED = 1 << 18
"""Tokens of the validation texts that are looked at while training; of more, pieces are drawn."""


class TokenObjective(nn.Module):
    """Mean over the tokens asked for of -log p(token), in nats; with a ``teacher`` (1 - w) of that and w T^2 KL(p_T,
    q_T) of what both say of each token, softened by the temperature T (Hinton 2015)."""

    def __init__(
        self, model: LanguageModel, smoothing: float = 0.0, teacher: LanguageModel | None = None,
        distil: Distil | None = None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.smoothing, self.distil = model, smoothing, distil
        self.teacher = (teacher,)  # no part of what is trained and saved

    def loss(self, batch: TextBatch) -> Tensor:
        states, targets = self._asked(self.model, batch)
        logits = self.model.logits(states).float()
        smoothing = self.smoothing if self.training else 0.0
        # a batch may ask for nothing: the first piece of a document that is cut can be empty
        total = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        if self.distil is not None and self.training:
            total = (1 - self.distil.weight) * total + self.distil.weight * self._taught(batch, logits, self.distil)
        return total / (targets != IGNORED).sum().clamp(min=1)

    @torch.no_grad()
    def nats(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """-log p of all tokens asked for in each row [B], and how many they are [B]."""
        states, targets = self._asked(self.model, batch)
        asked = batch.targets_BT != IGNORED
        few = max(1, CHECK_LOGITS // self.model.config.vocabulary)
        pieces = [
            F.cross_entropy(self.model.logits(some).float(), said, reduction="none")
            for some, said in zip(states.split(few), targets.split(few), strict=True)
        ]
        lost = torch.zeros(asked.shape, device=asked.device)
        lost[asked] = torch.cat(pieces)
        return lost.double().sum(dim=1), asked.sum(dim=1)

    def _taught(self, batch: TextBatch, logits: Tensor, distil: Distil) -> Tensor:
        """T^2 KL(p_T, q_T), summed over the tokens asked for."""
        (teacher,) = self.teacher
        assert teacher is not None
        with torch.no_grad():
            states, targets = self._asked(teacher, batch)
            p = (teacher.logits(states).float() / distil.temperature).log_softmax(dim=-1)
        q = (logits / distil.temperature).log_softmax(dim=-1)
        each = F.kl_div(q, p, log_target=True, reduction="none").sum(dim=-1)
        return distil.temperature**2 * each[targets != IGNORED].sum()

    @staticmethod
    def _asked(model: LanguageModel, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """States [N, D] and targets [N] of the places where something is asked; the others cost no output."""
        tokens = model.tokens(batch.ids_BT, prefix_BT=batch.prefix_BT, segments_BT=batch.segments_BT)
        states, asked = model.backbone(tokens), batch.targets_BT != IGNORED
        if mapped(asked) or bool(asked.all()):
            return states.flatten(0, 1), batch.targets_BT.flatten()
        return states[asked], batch.targets_BT[asked]


@dataclass
class Trained:
    """How a training went."""

    progress: Progress
    steps_an_epoch: int
    tokens_a_second: float


def fit_language(
    model: LanguageModel, corpus: Corpus, train: np.ndarray, valid: np.ndarray, recipe: Recipe, smoothing: float,
    folder: Path, say: Silent, teacher: LanguageModel | None = None,
) -> Trained:  # fmt: skip
    """Train on the documents ``train``; those of ``valid`` say when to stop. The model then holds the best weights.

    ``teacher``: a model in evaluation with the same tokens, whose answers are learnt from as the recipe says.
    """
    cuts, watched = corpus.cuts(train), corpus.cuts(valid)
    few = watched.some(MOST_CHECKED, recipe.seed)
    objective = TokenObjective(model, smoothing, teacher, recipe.distil)

    each = OneEach(corpus.owners(cuts), recipe.seed) if recipe.privacy else None

    def fetch(numbers: np.ndarray, epoch: int) -> TextBatch:
        return corpus.batch(cuts, each.pieces(numbers, epoch) if each else numbers, epoch).to(model.device)

    def validate(trained: nn.Module, team: Alone) -> float:
        assert isinstance(trained, TokenObjective)
        nats, tokens = document_nats(trained, corpus, watched, few, recipe.bfloat16, team)
        return float(nats.sum() / max(1, tokens.sum()))

    tokens = float(corpus.documents.lengths()[train].sum())

    def rate(p: Progress) -> float:
        return tokens * p.step / loop.steps_an_epoch / max(p.seconds, 1e-9)

    torch.manual_seed(recipe.seed)
    learnt = each.owners if each else np.arange(len(cuts))
    loop = loop_of(recipe)(
        objective, recipe, fetch, learnt, None, validate, Tracker(folder),
        Checkpoints(folder / "checkpoints"), say, pace=lambda p: f"{rate(p):,.0f} tokens a second",
        weigh=lambda batch: float((batch.targets_BT != IGNORED).sum()),
    )  # fmt: skip
    progress = loop.run()
    leave()
    model.eval()
    return Trained(progress, loop.steps_an_epoch, rate(progress))


def document_nats(
    objective: TokenObjective, corpus: Corpus, cuts: Cuts, numbers: np.ndarray, bfloat16: bool = False,
    team: Alone = ALONE,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """-log p of the tokens of each piece [N], and how many they are [N]."""
    objective.eval()
    device = objective.model.device
    if not len(numbers):
        return np.zeros(0), np.zeros(0, np.int64)

    def read(places: np.ndarray) -> Tensor:
        batch = corpus.batch(cuts, numbers[places], None).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return torch.stack([count.double() for count in objective.nats(batch)], dim=1)

    batches = list(in_turn(np.arange(len(numbers)), cuts.lengths()[numbers], CHECK_TOKENS, fixed=1))
    found = team.read(batches, read).numpy()[np.concatenate(batches).argsort()]
    return found[:, 0], found[:, 1].astype(np.int64)
