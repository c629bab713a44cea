"""Tokens: the one currency between columns and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

START = 0.1  # deviation of a fresh vector


@dataclass
class Tokens:
    """B rows of T tokens of width D.

    states_BTD: float, what each token says.
    mask_BT: bool, False where a place holds no token; None when every place holds one.
    positions_BT: int64, place of a token within its own text or history (0 for a token that stands alone).
    columns_BT: int64, which column each token came from (0: the token that reads the row).
    prefix_BT: bool, True for source tokens that every token may read when the model rewrites; else None.
    segments_BT: int64, which text a token belongs to where several share a row and must not read one another
        (0 where a place holds no token); else None.
    """

    states_BTD: Tensor
    mask_BT: Tensor | None
    positions_BT: Tensor
    columns_BT: Tensor
    prefix_BT: Tensor | None = None
    segments_BT: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        b, t, d = self.states_BTD.shape
        return b, t, d

    def split(self, widths: Sequence[int]) -> list[Tokens]:
        """The tokens of each row in parts, one beside the other."""

        def parts(x: Tensor | None) -> Sequence[Any]:
            return [None] * len(widths) if x is None else x.split(list(widths), dim=1)

        fields = (self.states_BTD, self.mask_BT, self.positions_BT, self.columns_BT, self.prefix_BT, self.segments_BT)
        return [Tokens(*part) for part in zip(*map(parts, fields), strict=True)]

    @staticmethod
    def join(parts: Sequence[Tokens]) -> Tokens:
        """The tokens of each row, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        if any(p.segments_BT is not None for p in parts):
            raise ValueError("rows that hold several texts are not joined.")
        return Tokens(
            torch.cat([p.states_BTD for p in parts], dim=1),
            _joined([(p.mask_BT, p.columns_BT) for p in parts], absent=True),
            torch.cat([p.positions_BT for p in parts], dim=1),
            torch.cat([p.columns_BT for p in parts], dim=1),
            _joined([(p.prefix_BT, p.columns_BT) for p in parts], absent=False),
        )


def _joined(parts: Sequence[tuple[Tensor | None, Tensor]], absent: bool) -> Tensor | None:
    """Flags side by side; a part that has none counts as ``absent``, and no flags at all stay none."""
    if all(flags is None for flags, _ in parts):
        return None
    return torch.cat([torch.full_like(c, absent, dtype=torch.bool) if f is None else f for f, c in parts], dim=1)
