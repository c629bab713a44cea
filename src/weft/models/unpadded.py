"""Rows of unlike length read one after the other, without the padding between them (on CPUs, in bfloat16).

Only attention sees rows: it takes them apart again, each brought to a length and a number at which the softmax of torch
and oneDNN's products are quick. All other steps see one list of tokens whose length is a multiple of ``TOKENS``: oneDNN
keeps half a megabyte and more for each size of product that it meets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOKENS, PLACES, ROWS = 64, 32, 512
"""Tokens of a list, places of a row and rows times places in attention are multiples of these."""


class Unpadded:
    """Where the tokens of ``mask_BT`` (True: a token) lie in the list, and in rows again.

    Shape suffixes: B rows, T places, N tokens of the list, H heads, K head width, R and P rows and places of attention.
    """

    def __init__(self, mask_BT: Tensor):
        self.shape = mask_BT.shape
        held = mask_BT.flatten().nonzero()[:, 0]
        self.tokens = len(held)
        lengths = mask_BT.sum(dim=1)
        self.places = -(-int(lengths.max()) // PLACES) * PLACES
        self.rows = _up(len(lengths), max(1, ROWS // self.places))
        room = _up(self.tokens, TOKENS) - self.tokens
        self.held_N = torch.cat([held, held[:1].expand(room)])
        lengths_R1 = torch.cat([lengths, lengths[:1].expand(self.rows - len(lengths))])[:, None]
        inside_RP = torch.arange(self.places) < lengths_R1
        starts_R1 = lengths_R1.cumsum(dim=0) - lengths_R1
        first = starts_R1 + torch.arange(self.places)
        inside_RP[len(lengths) :] = False
        self.into = first.masked_fill(~inside_RP, 0).flatten()
        back = inside_RP.flatten().nonzero()[:, 0]
        self.back = torch.cat([back, back[:1].expand(room)])
        # the rows that only make up the number read all their places: no row of the softmax is empty
        seen = inside_RP | ~inside_RP.any(dim=1, keepdim=True)
        self.unseen = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, -torch.inf)[:, None, :]

    def list(self, x_BTD: Tensor) -> Tensor:
        """The tokens alone [1, N, ...]."""
        return x_BTD.flatten(0, 1).index_select(0, self.held_N)[None]

    def padded(self, x_1ND: Tensor) -> Tensor:
        """The tokens at their places [B, T, D], zeros between them."""
        x = x_1ND.new_zeros(self.shape.numel(), x_1ND.shape[-1])
        return x.index_copy_(0, self.held_N[: self.tokens], x_1ND[0, : self.tokens]).unflatten(0, self.shape)

    def attend(self, qkv_1NC: Tensor, width: int) -> Tensor:
        """What each token reads of its row [1, N, H K], of queries, keys and values of K = ``width`` side by side."""
        apart = qkv_1NC[0].unflatten(1, (-1, width)).transpose(0, 1).index_select(1, self.into)
        q, key, value = apart.view(3, -1, self.places, width).unbind(0)
        scores = torch.bmm(q.mul(width**-0.5), key.transpose(1, 2)).view(-1, self.rows, self.places, self.places)
        scores.add_(self.unseen)
        y = torch.bmm(scores.softmax(dim=-1).flatten(0, 1), value)
        return y.view(-1, self.rows * self.places, width).index_select(1, self.back).transpose(0, 1).flatten(1)[None]


def _up(number: int, step: int) -> int:
    return math.ceil(number / step) * step
