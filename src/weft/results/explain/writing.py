"""Why a model wrote a text: what each word of the source adds to the log probability of each word that was written.

    v(S, w) = log p(w | the source without the players that are not in S, the words written before w)

The words written before are always there, so that one reading of a source and its text gives v of all words: the
game of a whole text costs as much as that of one word. Tokens that begin all sources (a chat template, a system
message) are read once where a model reads from left to right.

Shape suffixes: N hidden sources, P players, O words written, T tokens, A points of a path, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from weft.errors import DataError, UsageError
from weft.features.batching import in_turn, tokens_to_read
from weft.inference.generate import check_numbers, resting
from weft.inference.letters import Letters
from weft.models.language import LanguageModel
from weft.models.tokens import Tokens
from weft.results.explain import asked
from weft.results.explain.asked import without
from weft.results.explain.gradient import CLOSED, MOST_POINTS, POINTS
from weft.results.explain.methods import Explained, Shared, at_most
from weft.results.explain.texts import Player, Words

METHODS = (*asked.METHODS, "gradient")
LOGITS_AT_ONCE = 1 << 23
NEW_TOKENS = 40
"""Written at most, where a model goes on from a text of its own."""


@dataclass(kw_only=True)
class Writing(Explained):
    """Why the words of a text were written.

    ``players``: the words of the source. ``shares``: what each adds to the log probability of each word [P, O].
    ``score``: log probability of each word after those before it [O]; ``base``: the same without any of the source.
    """

    text: str
    words: list[Player]
    """The words written; ``start`` and ``end`` count characters of ``text``."""
    task: str = "text"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        probability = np.exp(self.score).tolist()
        return {
            "row": self.row, "task": self.task, "method": self.method, "target": self.target, "text": self.text,
            "unit": "log probability", "texts": self.texts, "players": [asdict(p) for p in self.players],
            "words": [
                {**asdict(word), "probability": p, "score": s, "base": b, "shares": shares, "errors": errors}
                for word, p, s, b, shares, errors in zip(
                    self.words, probability, self.score.tolist(), self.base.tolist(), self.shares.T.tolist(),
                    self.errors.T.tolist(), strict=True,
                )
            ],
            "checks": [asdict(c) for c in self.checks], "reliable": self.reliable, "evaluations": self.evaluations,
            "seconds": self.seconds,
        }  # fmt: skip


class Source:
    """One text that a model wrote, or may write, from a source.

    Args:
        words: the texts of the source, whose words are the players.
        encode: the texts without some words to the ids that the model reads before it writes.
        target: what the text is called, and ``ids``: its tokens, without an end.
        owners: the player that each id of the whole source belongs to (-1: none); None: it cannot be told.

    Raises:
        DataError: there is no word in the text, or both are too long for the model.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, words: Sequence[Words],
        encode: Callable[[list[str]], list[int]], target: str, ids: Sequence[int], owners: np.ndarray | None = None,
    ):  # fmt: skip
        self.model, self.encode, self.ids, self.source = model, encode, list(ids), list(words)
        self.players = [p for w in words for p in w.players]
        self.owners, self.context = owners, encode([w.text for w in words])
        self.target = target
        self.text, places = _spelt(tokenizer, self.context, self.ids)
        written = Words(target, self.text, tokenizer)
        self.words, self.word_of = written.players, np.maximum(written.at(places), 0)
        if not self.words:
            raise DataError(f"'{target}': must hold at least one word to be explained. Got {self.text!r:.60}.")
        longest = getattr(model.config.backbone, "max_positions", None)
        if longest is not None and len(self.context) + len(self.ids) - 1 > longest:
            raise DataError(
                f"a source and what is written after it must fit the model's {longest:,} tokens. Got "
                f"{len(self.context):,} and {len(self.ids):,}. Shorten them."
            )

    def ask(self, present: np.ndarray) -> np.ndarray:
        """Log probabilities [N, O] of the words after sources without some of their players."""
        sources = [self.encode(without(self.source, p)) for p in present]
        return self._of_words(torch.from_numpy(log_probabilities(self.model, sources, self.ids))).numpy()

    def integrated(self) -> Shared:
        """The shares by integrated gradients (Sundararajan 2017), from a source of mean vectors to this one."""
        if self.owners is None:
            raise UsageError(
                f"method: gradients must know which tokens a word became, which a chat template does not tell. Got "
                f"a dialogue. Take {' or '.join(asked.METHODS)}."
            )
        points = POINTS
        while True:
            # cuDNN's recurrent networks give gradients only in training
            with resting(self.model), torch.backends.cudnn.flags(enabled=False):
                found = self.integrate(points)
            shares, base, score = found[:-2], found[-2], found[-1]
            missed, whole = shares.sum(axis=0) - (score - base), score - base
            check = at_most("completeness gap", np.abs(missed).max() / max(1e-3, np.abs(whole).max()), 0.05)
            if check.value <= CLOSED or points >= MOST_POINTS:
                return Shared(
                    shares=shares, errors=np.zeros_like(shares), checks=[check], score=score, base=base,
                    evaluations=2 * points - POINTS,
                )  # fmt: skip
            points *= 2

    def explanation(self, shared: Shared, row: int, method: str) -> Writing:
        texts = {w.column: w.text for w in self.source}
        return Writing(row=row, method=method, target=self.target, text=self.text, words=self.words,
                       players=self.players, texts=texts, **vars(shared))  # fmt: skip

    def integrate(self, points: int) -> np.ndarray:
        """Gradients of the words' log probabilities, integrated from a source of mean vectors to the source [P, O];
        and below them the two ends themselves [2, O]."""
        assert self.owners is not None
        places, shares_of = np.polynomial.legendre.leggauss(points)
        at, weight = (torch.tensor(v / 2, dtype=torch.float32, device=self.device) for v in (places + 1, shares_of))
        mine = np.flatnonzero(self.owners >= 0)
        with torch.no_grad():
            tokens, start = self._path()
            step = tokens.states_BTD - start
            ends = torch.stack([start[0], tokens.states_BTD[0]])
            found = [self._along(replace(tokens, states_BTD=ends)).double().cpu().numpy()]
        shares = torch.zeros(len(self.words), step.shape[1], device=self.device)
        room = max(1, LOGITS_AT_ONCE // (len(self.ids) * self.model.config.vocabulary))
        for some, of in zip(at.split(room), weight.split(room), strict=True):
            states = (start + some[:, None, None] * step).requires_grad_()
            said = self._along(replace(tokens, states_BTD=states))
            for word in range(len(self.words)):
                (gradient,) = torch.autograd.grad(said[:, word].sum(), states, retain_graph=True)
                shares[word] += (torch.einsum("atd,a->td", gradient, of) * step[0]).sum(dim=-1)
        values = np.zeros((len(self.players), len(self.words)))
        np.add.at(values, self.owners[mine], shares.double().cpu().numpy().T[mine])
        return np.concatenate([values, *found])

    @property
    def device(self) -> torch.device:
        return self.model.device

    def _path(self) -> tuple[Tokens, Tensor]:
        """The source and its text as tokens, and their states where the source is words of mean vectors [1, T, D]."""
        assert self.owners is not None
        ids = torch.tensor([[*self.context, *self.ids[:-1]]], device=self.device)
        there = torch.arange(ids.shape[1], device=self.device)[None] < len(self.context)
        tokens = self.model.tokens(ids, prefix_BT=there if _rewrites(self.model) else None)
        table = self.model.table.weight
        away = table[ids] - table.mean(dim=0)
        if self.model.config.scaled:
            away = away * self.model.config.backbone.width**0.5
        mine = torch.zeros(ids.shape[1], 1, device=self.device)
        mine[: len(self.owners), 0] = torch.from_numpy(self.owners >= 0).to(mine)
        return tokens, tokens.states_BTD - away * mine

    def _along(self, tokens: Tokens) -> Tensor:
        """Log probabilities [A, O] of the words, at states of the tokens [A, T, D]."""
        many = len(tokens.states_BTD)
        wide = {
            f.name: getattr(tokens, f.name).expand(many, -1) for f in fields(tokens)
            if f.name != "states_BTD" and getattr(tokens, f.name) is not None
        }  # fmt: skip
        states = self.model.backbone(replace(tokens, **wide))[:, -len(self.ids) :]
        return self._of_words(_said(self.model, states, self.ids))

    def _of_words(self, of_tokens: Tensor) -> Tensor:
        """The sums over the tokens of each word [N, O]."""
        found = torch.zeros(len(of_tokens), len(self.words), dtype=of_tokens.dtype, device=of_tokens.device)
        return found.index_add(1, torch.from_numpy(self.word_of).to(of_tokens.device), of_tokens)


@torch.no_grad()
def log_probabilities(model: LanguageModel, sources: Sequence[Sequence[int]], ids: Sequence[int]) -> np.ndarray:
    """ln p of each of ``ids`` after each source and the ids before it [N, T], in nats."""
    places: dict[tuple[int, ...], int] = {}
    back = [places.setdefault(tuple(source), len(places)) for source in sources]
    pairs = zip(min(places), max(places), strict=False)
    same = [] if _rewrites(model) else [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    head = same[: min(map(len, places)) - 1]
    rest = [[*source[len(head) :], *ids[:-1]] for source in places]
    lengths = np.array([len(r) for r in rest], np.int64)
    found = np.zeros((len(rest), len(ids)))
    with resting(model):
        weight = model.table.weight
        budget = tokens_to_read(weight.shape[1], weight.device.type)
        for rows in in_turn(np.arange(len(rest)), lengths, budget, len(head)):
            states = _states(model, head, [rest[i] for i in rows], len(ids))
            some = states.split(max(1, LOGITS_AT_ONCE // (len(ids) * model.config.vocabulary)))
            found[rows] = np.concatenate([_said(model, s, ids).cpu().numpy() for s in some])
    return found[back]


def _states(model: LanguageModel, head: list[int], rest: Sequence[Sequence[int]], asked_for: int) -> Tensor:
    """The states [N, T, D] that the last ``asked_for`` tokens of each are told by; ``head`` begins all of them."""
    device = model.device
    lengths = torch.tensor([len(r) for r in rest], device=device)
    places = torch.arange(int(lengths.max()), device=device)
    batch = torch.zeros(len(rest), len(places), dtype=torch.int64)
    for row, ids in enumerate(rest):
        batch[row, : len(ids)] = torch.tensor(ids)
    mask = places < lengths[:, None]
    prefix = places <= (lengths - asked_for)[:, None] if _rewrites(model) else None
    cache = model.backbone.new_cache() if head else None
    if cache is not None:
        model.backbone(model.tokens(torch.tensor([head], device=device)), cache=cache)
        cache.select(torch.zeros(len(rest), dtype=torch.int64, device=device))
    tokens = model.tokens(batch.to(device), None if bool(mask.all()) else mask, prefix_BT=prefix, past=len(head))
    hidden = model.backbone(tokens, cache=cache)
    at = (lengths - asked_for)[:, None] + torch.arange(asked_for, device=device)
    return hidden.gather(1, at.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def _said(model: LanguageModel, states_NTD: Tensor, ids: Sequence[int]) -> Tensor:
    """ln p [N, T] of each of ``ids`` by the state before it."""
    logits = model.logits(states_NTD).float()
    check_numbers(logits)
    at = torch.tensor(ids, device=logits.device).expand(len(logits), -1).unsqueeze(-1)
    return (logits.gather(2, at) - logits.logsumexp(dim=2, keepdim=True)).squeeze(-1)


def _rewrites(model: LanguageModel) -> bool:
    """Whether it reads its source both ways."""
    return model.config.backbone.attention == "rewriting"


def _spelt(tokenizer: Tokenizer, before: list[int], ids: Sequence[int]) -> tuple[str, np.ndarray]:
    """The text that ids write after others, and the character that each of them ends with or is part of [T]."""
    letters, text, places = Letters(tokenizer, before), "", []
    for token in ids:
        piece = letters.take(token)
        places.append(len(text) + max(0, len(piece) - 1))
        text += piece
    return text + letters.finish(cut=True), np.array(places, np.int64)
