"""Pictures to tokens: a convolutional stem from nothing, or the patches of a checkpoint.

Shape suffixes: B rows, C channels, S pixels a side, G tokens a side, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.features.codecs import ImageCodec
from weft.models.mapped import mapped

Columns = dict[str, dict[str, Tensor]]
MOST_TOKENS_A_SIDE = 8
START = 0.1


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))) (He 2016, identity mappings); it starts as x."""

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(2))
        first, last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.convolutions = nn.ModuleList([first, last])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.relu(norm(y)))
        return x + y


class Stem(nn.Module):
    """[B, C, S, S] -> [B, D, G, G]: convolutions of stride two until there are at most 8 x 8 places, residual blocks
    after each (early convolutions; Xiao 2021)."""

    def __init__(self, channels: int, side: int, width: int):
        super().__init__()
        halvings = 0
        while -(-side // 2**halvings) > MOST_TOKENS_A_SIDE:
            halvings += 1
        self.halvings = halvings
        widths = [min(width, max(16, width // 2 ** max(0, halvings - 1 - i))) for i in range(max(1, halvings))]
        self.layers = nn.Sequential()
        for place, (before, after) in enumerate(zip([channels, *widths[:-1]], widths, strict=True)):
            if place:
                self.layers.extend([nn.GroupNorm(1, before), nn.ReLU()])
            self.layers.append(nn.Conv2d(before, after, 3, stride=2 if halvings else 1, padding=1))
            self.layers.extend(Residual(after) for _ in range(1 if after == widths[-1] else 2))

    def tokens(self, side: int) -> int:
        """Of a picture of ``side`` pixels."""
        return (-(-side // 2**self.halvings)) ** 2

    def forward(self, x_BCSS: Tensor) -> Tensor:
        return self.layers(x_BCSS if mapped(x_BCSS) else x_BCSS.contiguous(memory_format=torch.channels_last))


def standardised(columns: Columns, codec: ImageCodec, channels: int) -> Tensor:
    """Pixels [B, C, S, S] as the model sees them: mean 0, deviation 1 a channel."""
    x = columns[codec.name]["pixels"].float()
    mean, deviation = (torch.tensor(v, device=x.device)[:, None, None] for v in (codec.mean, codec.deviation))
    return ((x - mean) / deviation).expand(-1, channels, -1, -1)


class ImageEmbedding(nn.Module):
    """The tokens of every picture, row by row of each from the top left, with learned places; all columns share the
    stem. A missing picture is one token, a vector of its own."""

    def __init__(self, codecs: Sequence[ImageCodec], width: int):
        super().__init__()
        self.codecs = list(codecs)
        self.names = [c.name for c in codecs]
        self.channels = max(c.channels for c in codecs)
        self.stem = Stem(self.channels, max(c.size for c in codecs), width)
        self.widths = [self.stem.tokens(c.size) for c in codecs]
        self.places = nn.ParameterDict({str(t): torch.randn(t, width) * START for t in sorted(set(self.widths))})
        self.missing = nn.Parameter(torch.randn(width) * START)

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        states, masks = [], []
        for codec, count in zip(self.codecs, self.widths, strict=True):
            x = self.stem(standardised(columns, codec, self.channels)).flatten(2).transpose(1, 2)
            states.append(x + self.places[str(count)])
            masks.append(columns[codec.name]["present"].bool()[:, None].expand(-1, count))
        return absent_as_one(torch.cat(states, dim=1), torch.cat(masks, dim=1), self.widths, self.missing)


def absent_as_one(
    states_BTD: Tensor, present_BT: Tensor, widths: Sequence[int], missing_D: Tensor
) -> tuple[Tensor, Tensor | None]:
    """States and mask where a missing picture's first place holds ``missing_D`` and its others no token."""
    if not mapped(present_BT) and present_BT.all():
        return states_BTD, None
    first = torch.zeros(present_BT.shape[1], dtype=torch.bool, device=present_BT.device)
    first[torch.tensor([0, *widths[:-1]]).cumsum(0)] = True
    return torch.where(present_BT.unsqueeze(-1), states_BTD, missing_D.to(states_BTD.dtype)), present_BT | first


@dataclass(frozen=True)
class PretrainedImage:
    """What a checkpoint says of its pictures: pixels a side, and those of a patch."""

    image: int
    patch: int
    channels: int
    family: str | None = None


class PretrainedImageEmbedding(nn.Module):
    """The patches of the pictures of one column as a checkpoint cuts them, and its token that reads a picture."""

    def __init__(self, codecs: Sequence[ImageCodec], width: int, config: PretrainedImage):
        super().__init__()
        (self.codec,) = codecs
        self.names, self.config = [self.codec.name], config
        self.widths = [(config.image // config.patch) ** 2]
        self.cut = nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
        self.reader = nn.Parameter(torch.zeros(1, 1, width))
        self.missing = nn.Parameter(torch.zeros(width))

    def forward(self, columns: Columns) -> tuple[Tensor, Tensor | None]:
        x = self.cut(standardised(columns, self.codec, self.config.channels)).flatten(2).transpose(1, 2)
        present = columns[self.codec.name]["present"].bool()[:, None].expand(-1, self.widths[0])
        return absent_as_one(x, present, self.widths, self.missing)
