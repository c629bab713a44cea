"""A long column in few tokens, at a cost that is linear in its length (after Perceiver; Jaegle 2021).

    a_hkt = softmax_t(q_hk k_ht / sqrt(d) - s_h (K (t + 1/2) / n - (k + 1/2))^2),   y_k = W concat_h(sum_t a_hkt v_ht)

Of n tokens K learned queries read all, each at first its own part of the column: a head with a large slope s_h looks
where its query stands, one with a small slope anywhere. Queries and slopes are learnt for each column.

Shape suffixes: B rows, T tokens, K queries, H heads, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from weft.models.fused import RMSNorm
from weft.models.tokens import Tokens

HEAD_WIDTH = 32


class Summary(nn.Module):
    """Tokens of one column [B, T, D] -> ``queries`` tokens [B, K, D]; a row without a token has none then either."""

    def __init__(self, width: int, queries: int):
        super().__init__()
        self.heads = next(h for h in range(max(1, width // HEAD_WIDTH), 0, -1) if width % h == 0)
        self.norm = RMSNorm(width)
        self.query = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.log_slope = nn.Parameter(torch.linspace(1.4, -4.2, self.heads))  # from a quarter of a part to all parts
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        for matrix in (self.kv, self.out):
            nn.init.normal_(matrix.weight, std=width**-0.5)

    def forward(self, tokens: Tokens) -> Tokens:
        b, t, _ = tokens.shape
        queries, device = len(self.query), tokens.states_BTD.device
        mask = tokens.mask_BT if tokens.mask_BT is not None else torch.ones(b, t, dtype=torch.bool, device=device)
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.kv(self.norm(tokens.states_BTD)).chunk(2, dim=-1)
        )
        length = mask.sum(dim=1, keepdim=True)
        place = queries * (torch.arange(t, device=device) + 0.5) / length.clamp(min=1)  # in parts of the column [B, T]
        away = place[:, None, :] - torch.arange(queries, device=device)[:, None] - 0.5
        bias = -self.log_slope.exp()[:, None, None] * (away**2)[:, None]
        # a row without a token reads its empty places, and what it reads is no token
        bias = bias.masked_fill(~(mask | (length == 0))[:, None, None, :], -torch.inf)
        query = self.query.unflatten(-1, (self.heads, -1)).transpose(0, 1).expand(b, -1, -1, -1)
        y = F.scaled_dot_product_attention(query.to(key.dtype), key, value, attn_mask=bias.to(key.dtype))
        states = self.out(y.transpose(1, 2).flatten(2))
        place_BK = torch.arange(queries, device=device).expand(b, -1)
        return Tokens(states, (length > 0).expand(b, queries), place_BK, tokens.columns_BT[:, :1].expand(b, queries))
