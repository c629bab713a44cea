"""Integrated gradients and attention rollout: what the model itself shows, without asking it about other rows.

    IG_i = (x_i - x'_i) integral_0^1 d score(x' + a (x - x')) / d x_i  da                (Sundararajan 2017)

x are the vectors of the texts' tokens, the pixels, the other tokens as they enter the backbone and what the linear
path says of each column; x' the same of a row of typical values, whose texts hold as many hidden tokens. The integral
is a Gauss-Legendre sum, whose points are doubled until the shares add up to score(x) - score(x') (completeness).

Rollout multiplies the attention maps of all blocks, each with the stream that passes it by, (A + I) / 2 (Abnar &
Zuidema 2020): where the reading token looked, which is not why it decided.

Shape suffixes: A points of the path, T tokens, D width, P players, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weft.errors import UsageError
from weft.features.batching import Batch, collate
from weft.features.codecs import Ragged, TextCodec
from weft.features.histories import SequenceCodec
from weft.features.store import RowCodes
from weft.features.tokenizer import mask_token
from weft.models.embeddings import PretrainedTextEmbedding, TextEmbedding
from weft.models.row import RowModel
from weft.models.tokens import Tokens
from weft.models.transformer import Transformer
from weft.results.explain.game import TINY, Games

POINTS, MOST_POINTS = 16, 256
CLOSED = 0.01  # of the difference that the shares may miss


def integrated_gradients(games: Games, row: int) -> tuple[np.ndarray, float]:
    """Shares [P] of one row, and the share of score(x) - score(x') that they miss; every copy of the model is read at
    the same point of the path."""
    points = POINTS
    while (found := _integrate(games, row, points))[1] > CLOSED and points < MOST_POINTS:
        points *= 2
    return found


def _integrate(games: Games, row: int, points: int) -> tuple[np.ndarray, float]:
    at, weight = np.polynomial.legendre.leggauss(points)
    here, there = _batches(games, row)
    path = torch.tensor((at + 1) / 2, dtype=torch.float32)
    ends = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        low, high = _along(games, row, here, there, ends)[0].tolist()
    score, leaves = _along(games, row, here, there, path, grad=True)
    gradients = torch.autograd.grad(score.sum(), [leaf for leaf, _, _ in leaves], allow_unused=True)
    mean = torch.tensor(weight / 2, dtype=torch.float32)
    values = np.zeros(len(games.named(row)))
    for (_, difference, owner), gradient in zip(leaves, gradients, strict=True):
        if gradient is None:
            continue
        share = (torch.einsum("a...,a->...", gradient, mean) * difference).sum(dim=-1).double().cpu().numpy()
        np.add.at(values, owner[owner >= 0], share[owner >= 0])
    whole = high - low
    return values, abs(values.sum() - whole) / max(abs(whole), 1e-3)


def _batches(games: Games, row: int) -> tuple[Batch, Batch]:
    """The row, and the row x' with the same number of tokens."""
    players = len(games.named(row))
    codes = games.players.codes(np.array([row]), [np.ones(players, bool)])
    hidden = games.players.codes(np.array([row]), [np.zeros(players, bool)])
    base: RowCodes = {}
    for codec in games.players.columns.codecs:
        base[codec.name] = dict(hidden[codec.name])
        if isinstance(codec, TextCodec):
            tokens = codes[codec.name]["tokens"]
            assert codec.tokenizer is not None
            base[codec.name]["tokens"] = Ragged(
                np.full_like(tokens.values, mask_token(codec.tokenizer) or 0), tokens.offsets
            )
        elif isinstance(codec, SequenceCodec):  # as many events, of which nothing is known
            events = codes[codec.name]
            for name, value in (("items", 0), ("gap", 0), ("rating", np.nan)):
                known = events[name]
                base[codec.name][name] = Ragged(np.full_like(known.values, value), known.offsets)
    device = games.model.temperature.device
    return collate(codes, 1).to(device), collate(base, 1).to(device)


Leaf = tuple[Tensor, Tensor, np.ndarray]
"""Inputs at the points of the path, x - x', and the player that owns each of them (-1: none)."""


def _along(
    games: Games, row: int, here: Batch, there: Batch, path: Tensor, grad: bool = False
) -> tuple[Tensor, list[Leaf]]:
    """Scores [A] along the path."""
    model, leaves, outs = games.model.eval(), [], []
    path = path.to(games.model.temperature.device)[:, None, None]
    for copy in model.each():
        embedding = copy.embedding
        text = embedding.text
        vectors, columns = None, {c: {n: t.expand(len(path), *t.shape[1:]) for n, t in f.items()}
                                  for c, f in here.columns.items()}  # fmt: skip
        if text is not None:
            with torch.no_grad():
                ends = [text.vectors(text.ids(b.columns)) for b in (there, here)]
            vectors = (ends[0] + path * (ends[1] - ends[0])).requires_grad_(grad)
            leaves.append((vectors, (ends[1] - ends[0])[0], _owners_of_texts(games, row, text, here)))
        for name in games.players.pictures:
            ends = [b.columns[name]["pixels"][0].float().flatten(1).T for b in (there, here)]
            shades = (ends[0] + path * (ends[1] - ends[0])).requires_grad_(grad)
            leaves.append((shades, ends[1] - ends[0], games.players.owners(row, name, len(ends[0]))))
            side = here.columns[name]["pixels"].shape[-1]
            columns[name] = {**columns[name], "pixels": shades.transpose(1, 2).unflatten(2, (side, side))}
        tokens = embedding(columns, vectors)
        with torch.no_grad():
            x, start = embedding(here.columns), embedding(there.columns)
        followed = _followed(games, copy, x)
        step = (x.states_BTD - start.states_BTD) * ~followed
        states = (start.states_BTD + path * step).requires_grad_(grad)
        leaves.append((states, step[0], owners(games, row, copy, x)))
        tokens.states_BTD = torch.where(followed, tokens.states_BTD, states)
        out = copy.head(copy.read(tokens))
        if copy.linear is not None:
            base, parts, owner = _linear(games, row, copy, here, there)
            moving = (path * parts).requires_grad_(grad)
            leaves.append((moving, parts, owner))
            out = out + base + moving.sum(dim=1)
        outs.append(copy.head.answer(out))
    return _score(games, row, torch.stack(outs)), leaves


def _followed(games: Games, copy: RowModel, tokens: Tokens) -> Tensor:
    """Which tokens of a row come from texts or pictures [1, T, 1]: those are followed from their words and pixels on,
    before the look at neighbours."""
    numbers = [copy.embedding.number[name] for name in (*games.players.words, *games.players.pictures)]
    return torch.isin(tokens.columns_BT[:1], torch.tensor(numbers, device=tokens.columns_BT.device)).unsqueeze(-1)


def _owners_of_texts(games: Games, row: int, text: TextEmbedding | PretrainedTextEmbedding, batch: Batch) -> np.ndarray:
    """The player of each token of the texts, column after column."""
    widths = [batch.columns[name]["tokens"].shape[1] for name in text.names]
    end = (text.ids(batch.columns).shape[1] - sum(widths)) // len(widths)  # a checkpoint closes each text by a token
    return np.concatenate(
        [games.players.owners(row, name, width + end) for name, width in zip(text.names, widths, strict=True)]
    )


def _score(games: Games, row: int, answers: Tensor) -> Tensor:
    """As :meth:`Games.ask` says it, of the copies' answers [copies, A, C]."""
    of = int(games.of[row])
    if games.model.kind == "number":
        return answers.mean(dim=0)
    if games.model.kind == "labels":
        p = answers.sigmoid().mean(dim=0)[:, of].double()
        return (p + TINY).log() - (1 - p + TINY).log()
    mean = answers.logsumexp(dim=0) / games.model.temperature
    rest = torch.cat([mean[:, :of], mean[:, of + 1 :]], dim=1)
    return mean[:, of] - rest.logsumexp(dim=1)


def owners(games: Games, row: int, copy: RowModel, tokens: Tokens) -> np.ndarray:
    """The player of each token of a row [T]; -1 for tokens that are no part of it (the reading token, ends)."""
    column = tokens.columns_BT[0].cpu().numpy()
    owner = np.full(len(column), -1)
    for name in games.players.parts:
        here = np.flatnonzero(column == copy.embedding.number[name])
        owner[here] = games.players.owners(row, name, len(here))
    return owner


def _linear(games: Games, row: int, copy: RowModel, here: Batch, there: Batch) -> tuple[Tensor, Tensor, np.ndarray]:
    """The linear path of x' [1, C], what each part of the row adds to it [parts, C], and the parts' players."""
    path = copy.linear
    assert path is not None
    parts: list[Tensor] = []
    owner: list[int] = []
    with torch.no_grad():
        base = path(there.columns)
        for name, table in zip(path.texts, path.grams, strict=True):
            gram, weight = (here.columns[name][n][0] for n in ("gram", "weight"))
            for place, word, share in games.players.words[name].words_of_grams(row, gram.tolist()):
                parts.append(share * weight[place] * table[gram[place].long()])
                owner.append(games.players.first(row, name) + word)
        for name in path.numbers + path.times + path.categories:
            parts.append((path(there.columns | {name: here.columns[name]}) - base)[0])
            owner.append(games.players.first(row, name))
    if not parts:
        return base, base.new_zeros(1, base.shape[1]), np.array([-1])
    return base, torch.stack(parts), np.array(owner)


@torch.no_grad()
def rollout(games: Games, row: int) -> np.ndarray:
    """Where the reading token looked: a share of one for each player [P].

    Raises:
        UsageError: the backbone is recurrent and has no attention.
    """
    model = games.model.eval()
    here, _ = _batches(games, row)
    looked = np.zeros(len(games.named(row)))
    for copy in model.each():
        if not isinstance(copy.backbone, Transformer):
            raise UsageError("attention is what a Transformer looks at. This model is recurrent. Take another method.")
        tokens = copy.embedding(here.columns)
        states: dict[str, Tensor] = {}
        copy.read(tokens, states)
        maps = [states[name][0].mean(dim=0) for name in sorted(states) if name.endswith(".attention")]
        last = maps[-1]
        place = tokens.shape[1] - 1 if copy.embedding.reader_last else 0
        flow = torch.eye(tokens.shape[1], device=last.device)[place]
        if copy.config.pretrained is not None:  # which reads the mean of all texts' tokens
            flow = torch.ones_like(flow) / len(flow)
        for a in reversed(maps):
            if len(a) < a.shape[1]:  # of the last block only the reading token asks
                a = torch.cat([a, torch.eye(a.shape[1], device=a.device)[len(a) :]])
            flow = (flow + flow @ a) / 2
        owner = owners(games, row, copy, tokens)
        share = flow.double().cpu().numpy()
        np.add.at(looked, owner[owner >= 0], share[owner >= 0])
    return looked / max(looked.sum(), TINY)
