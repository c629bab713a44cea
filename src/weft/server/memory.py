"""What the texts that are being written keep of what was read: keys and values of a Transformer, states of an RNN.

Prompts are read in blocks of ``BLOCK`` tokens, always cut at the same places. A whole block stays for the next prompt
that begins alike; as its numbers were made by the very calls that would make them anew, whether it was there changes no
bit of an answer. Blocks that nobody uses make room when it is needed, the longest unused first.

A step's matrices may round otherwise for one row than for several. Each text must have the same answer whoever else is
written, so a step has at least ``least`` rows: as many as from where on more rows change no bit, which is measured when
the model is loaded.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weft.models.attention import Cache
from weft.models.language import LanguageModel
from weft.models.pool import Part, Pool, Side
from weft.models.recurrent import Hidden, RecurrentCache
from weft.models.shape import TransformerConfig

BLOCK = 64
LONGEST = 8_192
"""Of a text, where a model knows no end."""


@dataclass(eq=False)
class Block:
    """A block of tokens that was read after those of its parent."""

    places: list[int] = field(default_factory=list)
    after: dict[tuple[int, ...], Block] = field(default_factory=dict)
    parent: Block | None = None
    ids: tuple[int, ...] = ()
    users: int = 0
    used: int = 0


@dataclass(eq=False)
class Held:
    """What one text holds. ``read``: its tokens read so far; ``shared``: of them, those that were there already."""

    read: int = 0
    shared: int = 0
    places: Tensor | None = None
    own: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)


class Memory(ABC):
    """What a model has read of many texts."""

    most: int | None = None
    """Tokens of the longest text that there is ever room for."""

    def __init__(self, model: LanguageModel, rows: int):
        self.model, self.device = model, model.device
        self.least = 1
        self.least = _least_rows(self, rows)

    @abstractmethod
    def begin(self, ids: Sequence[int], total: int, fresh: bool = False) -> Held | None:
        """Room for a text of ``total`` tokens that begins with ``ids``; None: there is none now.

        ``fresh``: nothing that was read before is taken.
        """

    @abstractmethod
    def end(self, held: Held) -> None:
        """The text is done."""

    @abstractmethod
    def _one(self, held: Held, count: int) -> Cache | RecurrentCache: ...

    @abstractmethod
    def _several(self, held: Sequence[Held], rows: int) -> Cache | RecurrentCache: ...

    def keep(self, held: Held, ids: Sequence[int]) -> None:
        """The prompt was read: keep its whole blocks for others, where that can be."""
        return

    def piece(self, ids: Sequence[int], read: int) -> Sequence[int]:
        """The tokens to read next of a prompt."""
        if self._rewrites or isinstance(self, States):
            return ids  # a source is read both ways, as one
        return ids[read : read + BLOCK]

    @torch.no_grad()
    def read(self, held: Held, ids: Sequence[int]) -> Tensor:
        """Read more of a text's prompt; its states [T, D]."""
        found = torch.tensor([list(ids)], device=self.device)
        prefix = torch.ones_like(found, dtype=torch.bool) if self._rewrites else None
        cache = self._one(held, len(ids))
        past = torch.tensor([held.read], device=self.device)
        states = self.model.backbone(self.model.tokens(found, prefix_BT=prefix, past=past), cache=cache)
        self._hear(cache, [held])
        held.read += len(ids)
        return states[0]

    @torch.no_grad()
    def step(self, held: Sequence[Held], tokens: Sequence[int]) -> Tensor:
        """Read one token more of every text; logits [B, V] of those that follow."""
        rows = max(len(held), self.least)
        ids = torch.zeros(rows, 1, dtype=torch.int64)
        past = torch.zeros(rows, dtype=torch.int64)
        ids[: len(held), 0] = torch.tensor(list(tokens))
        past[: len(held)] = torch.tensor([h.read for h in held])
        cache = self._several(held, rows)
        told = self.model.tokens(ids.to(self.device), past=past.to(self.device))
        states = self.model.backbone(told, cache=cache)
        self._hear(cache, held)
        for one in held:
            one.read += 1
        return self.model.logits(states[:, -1])[: len(held)].float()

    @property
    def _rewrites(self) -> bool:
        return self.model.config.backbone.attention == "rewriting"

    def _hear(self, cache: Cache | RecurrentCache, held: Sequence[Held]) -> None:
        """Take back what the model changed in a cache."""
        return


class Keys(Memory):
    """Keys and values of a Transformer. ``budget``: bytes that they may take; one text of full length fits always."""

    def __init__(self, model: LanguageModel, rows: int, budget: int):
        config = model.config.backbone
        assert isinstance(config, TransformerConfig)
        weight = model.table.weight
        token = 2 * config.layers * config.key_groups * config.key_width * weight.element_size()
        longest = config.max_positions or LONGEST
        self.most = max(longest + 1, 2 * rows, min(budget // token, rows * (longest + 1)))
        self.pool = Pool(config, self.most, weight)
        self._first = Block()
        self._clock = itertools.count()
        super().__init__(model, rows)

    def begin(self, ids: Sequence[int], total: int, fresh: bool = False) -> Held | None:
        blocks = [] if fresh or self._rewrites else self._known(ids)
        for block in blocks:
            block.users += 1
            block.used = next(self._clock)
        need = total - BLOCK * len(blocks)
        self._make_room(need)
        if need > self.pool.free:
            for block in blocks:
                block.users -= 1
            return None
        own = self.pool.take(need)
        places = torch.tensor([*(p for b in blocks for p in b.places), *own], device=self.device)
        return Held(BLOCK * len(blocks), BLOCK * len(blocks), places, own, blocks)

    def keep(self, held: Held, ids: Sequence[int]) -> None:
        if self._rewrites:
            return
        last = held.blocks[-1] if held.blocks else self._first
        for start in range(BLOCK * len(held.blocks), len(ids) - BLOCK + 1, BLOCK):
            key = tuple(ids[start : start + BLOCK])
            if key in last.after:  # somebody was faster
                return
            block = Block(held.own[:BLOCK], {}, last, key, 1, next(self._clock))
            held.own = held.own[BLOCK:]
            last.after[key] = block
            held.blocks.append(block)
            last = block

    def end(self, held: Held) -> None:
        for block in held.blocks:
            block.users -= 1
        self.pool.give(held.own)
        held.own, held.blocks = [], []

    def _known(self, ids: Sequence[int]) -> list[Block]:
        """The blocks that a prompt begins with; never all of it, since the last token's logits are wanted."""
        found, last = [], self._first
        for start in range(0, len(ids) - BLOCK, BLOCK):
            block = last.after.get(tuple(ids[start : start + BLOCK]))
            if block is None:
                break
            found.append(block)
            last = block
        return found

    def _make_room(self, need: int) -> None:
        while self.pool.free < need:
            unused = [b for b in self._blocks(self._first) if not b.users and not b.after]
            if not unused:
                return
            for block in sorted(unused, key=lambda b: b.used)[: -(-(need - self.pool.free) // BLOCK)]:
                assert block.parent is not None
                del block.parent.after[block.ids]
                self.pool.give(block.places)

    def _blocks(self, block: Block) -> list[Block]:
        found, todo = [], [block]
        while todo:
            todo += (children := list(todo.pop().after.values()))
            found += children
        return found

    def _one(self, held: Held, count: int) -> Cache:
        assert held.places is not None
        return Part(self.pool, held.places[: held.read + count], held.read)

    def _several(self, held: Sequence[Held], rows: int) -> Cache:
        return Side(self.pool, [h.places[: h.read + 1] for h in held if h.places is not None], rows)


class States(Memory):
    """The hidden states of a recurrent network: of any length, as much for each text."""

    def begin(self, ids: Sequence[int], total: int, fresh: bool = False) -> Held | None:
        return Held()

    def end(self, held: Held) -> None:
        held.hidden = []

    def _one(self, held: Held, count: int) -> RecurrentCache:
        return RecurrentCache(held.hidden)

    def _several(self, held: Sequence[Held], rows: int) -> RecurrentCache:
        def together(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([*parts, *[torch.zeros_like(parts[0])] * (rows - len(held))], dim=1)

        layers = zip(*(h.hidden for h in held), strict=True)
        return RecurrentCache([tuple(map(together, zip(*layer, strict=True))) for layer in layers])

    def _hear(self, cache: Cache | RecurrentCache, held: Sequence[Held]) -> None:
        assert isinstance(cache, RecurrentCache)
        for row, one in enumerate(held):
            one.hidden = [tuple(part[:, row : row + 1].clone() for part in layer) for layer in cache.hidden]


def _least_rows(memory: Memory, most: int) -> int:
    """The fewest rows of a step from which on more rows change no bit of any row's logits."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(memory.model.config.vocabulary, (most,), generator=random).tolist()

    held = [h for h in (memory.begin([t], 2) for t in tokens) if h is not None]
    for one, token in zip(held, tokens, strict=False):
        memory.read(one, [token])
    before = [(one.read, one.hidden) for one in held]

    def logits(count: int) -> Tensor:
        found = memory.step(held[:count], tokens[:count])
        for one, (read, hidden) in zip(held, before, strict=True):
            one.read, one.hidden = read, hidden
        return found

    whole, least = logits(len(held)), len(held)
    for count in range(len(held) - 1, 0, -1):
        if not torch.equal(logits(count), whole[:count]):
            break
        least = count
    for one in held:
        memory.end(one)
    return least
