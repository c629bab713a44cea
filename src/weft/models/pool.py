"""The keys and values of many texts in one piece of memory, so that texts of any length are written side by side.

A text holds places of the pool, in any order, as a process holds pages of memory (Kwon 2023); texts that begin alike
hold the same places for what they share. In a step the tokens of all texts go through the matrices together, and each
reads its own past alone: what a text sees, and the shape of what is computed for it, do not depend on the others.

Shape suffixes: P places, B texts, G groups of keys, K head width, T tokens, S tokens that are read, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from weft.models.attention import Cache
from weft.models.shape import TransformerConfig

SCRATCH = 0
"""A place that nobody reads."""


class Pool:
    """Memory for the keys and values of ``places`` tokens; touched, and so resident, only where it is used."""

    def __init__(self, config: TransformerConfig, places: int, like: Tensor):
        self.window = config.window
        shape = (places + 1, config.key_groups, config.key_width)
        self.keys, self.values = ([like.new_empty(shape) for _ in range(config.layers)] for _ in range(2))
        self._free = list(range(places, SCRATCH, -1))

    @property
    def free(self) -> int:
        """Tokens that there is room for."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Places for ``count`` tokens, of which there must be as many."""
        taken = [self._free.pop() for _ in range(count)]
        return taken

    def give(self, places: Sequence[int]) -> None:
        self._free.extend(reversed(places))


class Part(Cache):
    """One text of a pool, to read more of it: its places [S] up to the last token that is now read."""

    def __init__(self, pool: Pool, places: Tensor, past: int):
        super().__init__(length=past)
        self._pool, self._places, self._past = pool, places, past

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for memory, new in ((self._pool.keys[block], keys), (self._pool.values[block], values)):
            memory[self._places[self._past :]] = new[0].transpose(0, 1)
            found.append(memory.index_select(0, self._places).transpose(0, 1)[None])
        return found[0], found[1]


class Side(Cache):
    """One token more of several texts, ``places`` [S] of each with that of the new token last.

    The batch may hold more rows than there are texts; these are computed and read by nobody.
    """

    apart = True

    def __init__(self, pool: Pool, places: Sequence[Tensor], rows: int):
        super().__init__(length=max(map(len, places)) - 1)
        self._pool = pool
        window = pool.window
        self._places = [p if window is None else p[-window:] for p in places]
        new = [p[-1] for p in places] + [places[0].new_tensor(SCRATCH)] * (rows - len(places))
        self._new = torch.stack(new)

    def attend(self, block: int, q_BHTK: Tensor, keys_BGTK: Tensor, values_BGTK: Tensor) -> Tensor:
        """What each text's token reads [B, H, 1, K]."""
        keys, values = self._pool.keys[block], self._pool.values[block]
        keys[self._new], values[self._new] = keys_BGTK[:, :, 0], values_BGTK[:, :, 0]
        # the heads that share keys ask side by side, as if they were tokens
        asked = q_BHTK.unflatten(1, (keys.shape[1], -1)).squeeze(3)  # [B, G, H / G, K]
        found = torch.zeros_like(asked)
        for row, places in enumerate(self._places):
            key, value = (m.index_select(0, places).transpose(0, 1)[None] for m in (keys, values))
            found[row] = F.scaled_dot_product_attention(asked[row : row + 1], key, value)[0]
        return found.flatten(1, 2).unsqueeze(2)
