"""Training pictures seen otherwise: cropped, mirrored, in other colours, partly erased, or by RandAugment.

What becomes of a picture depends on (seed, epoch, row, column) only, whatever batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from weft.data.split import uniform
from weft.training_settings import AugmentSettings

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow has it
ERASED_AREA, ERASED_RATIO = (0.02, 0.25), 3.3
"""Share of the picture, and how much longer one side may be than the other (Zhong 2020)."""
STRENGTH = 5
Fill = float | tuple[float, ...]
Draw = Callable[[], np.ndarray]
"""The next number from [0, 1) of each row."""


def drawing(seed: int, epoch: int, rows: np.ndarray, column: int) -> Draw:
    """Numbers that depend on nothing else than these and how many were drawn before."""
    stream = ((seed * 1_000_003 + epoch) * 1_009 + column) << 10

    def draw() -> np.ndarray:
        nonlocal stream
        stream += 1
        return uniform(stream, rows)

    return draw


def augmented(pixels_NCSS: np.ndarray, mean_C: list[float], settings: AugmentSettings, draw: Draw) -> np.ndarray:
    """Changed pictures uint8 [N, C, S, S]; what is erased becomes ``mean_C``."""
    x = pixels_NCSS
    for _ in range(settings.rand_augment):
        x = rand_augmented(x, mean_C, (settings.strength or STRENGTH) / 10, draw)
    if settings.color:
        x = coloured(x, settings.color, draw)
    if settings.crop:
        x = shifted(x, settings.crop, draw)
    if settings.flip:
        x = np.where((draw() < 0.5)[:, None, None, None], x[..., ::-1], x)
    if settings.erase:
        x = erased(x, mean_C, settings.erase, draw)
    return x


def shifted(x: np.ndarray, most: float, draw: Draw) -> np.ndarray:
    """Moved by up to ``most`` of the side along each axis, its border going on: a crop of the padded picture."""
    side = x.shape[-1]
    reach = max(1, round(most * side))
    places = np.arange(side)
    moves = [np.floor(draw() * (2 * reach + 1)).astype(np.int64) - reach for _ in range(2)]
    down, right = (np.clip(places + move[:, None], 0, side - 1) for move in moves)
    n, c = np.arange(len(x)), np.arange(x.shape[1])
    return x[n[:, None, None, None], c[None, :, None, None], down[:, None, :, None], right[:, None, None, :]]


def erased(x: np.ndarray, mean_C: list[float], share: float, draw: Draw) -> np.ndarray:
    """With probability ``share`` a rectangle becomes ``mean_C`` (random erasing)."""
    side, places = x.shape[-1], np.arange(x.shape[-1])
    chosen = draw() < share
    area = side**2 * (ERASED_AREA[0] + draw() * (ERASED_AREA[1] - ERASED_AREA[0]))
    ratio = ERASED_RATIO ** (2 * draw() - 1)
    inside = []
    for length in (np.sqrt(area * ratio), np.sqrt(area / ratio)):
        length = np.clip(np.rint(length), 1, side)
        start = np.floor(draw() * (side - length + 1))
        inside.append((places >= start[:, None]) & (places < (start + length)[:, None]))
    gone = chosen[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :]
    fill = np.rint(mean_C).astype(np.uint8)[:, None, None]
    return np.where(gone[:, None], fill, x)


def coloured(x: np.ndarray, most: float, draw: Draw) -> np.ndarray:
    """Brightness, contrast and saturation multiplied by factors from 1 - ``most`` to 1 + ``most``, in this order."""
    y = x.astype(np.float32)
    factors = [(1 + most * (2 * draw() - 1)).astype(np.float32)[:, None, None, None] for _ in range(3)]
    y = np.clip(y * factors[0], 0, 255)
    y = np.clip(_blend(_grey(y).mean(axis=(2, 3), keepdims=True), y, factors[1]), 0, 255)
    if x.shape[1] == 3:
        y = np.clip(_blend(_grey(y), y, factors[2]), 0, 255)
    return np.rint(y).astype(np.uint8)


def _grey(x: np.ndarray) -> np.ndarray:
    return x if x.shape[1] == 1 else np.tensordot(x, GREY, ([1], [0]))[:, None]


def _blend(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + share * (b - a)


def rand_augmented(x: np.ndarray, mean_C: list[float], strength: float, draw: Draw) -> np.ndarray:
    """One of ``OPERATIONS`` on each picture, of ``strength`` 0 to 1 either way (RandAugment; Cubuk 2020)."""
    fill: Fill = tuple(round(m) for m in mean_C) if len(mean_C) > 1 else round(mean_C[0])
    chosen = np.floor(draw() * len(OPERATIONS)).astype(np.int64)
    signed = strength * np.where(draw() < 0.5, -1, 1)
    found = np.empty_like(x)
    for place, picture in enumerate(x):
        image = Image.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0))
        changed = np.asarray(OPERATIONS[chosen[place]](image, float(signed[place]), fill))
        found[place] = changed[None] if changed.ndim == 2 else changed.transpose(2, 0, 1)
    return found


def _affine(image: Image.Image, rows: tuple[float, ...], fill: Fill) -> Image.Image:
    """``rows``: where each pixel comes from, about the middle of the picture."""
    a, b, c, d, e, f = rows
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    about = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
    return image.transform(image.size, Image.Transform.AFFINE, about, Image.Resampling.BILINEAR, fillcolor=fill)


OPERATIONS: tuple[Callable[[Image.Image, float, Fill], Image.Image], ...] = (
    lambda i, s, fill: i,
    lambda i, s, fill: ImageOps.autocontrast(i),
    lambda i, s, fill: ImageOps.equalize(i),
    lambda i, s, fill: ImageOps.posterize(i, 8 - round(4 * abs(s))),
    lambda i, s, fill: ImageOps.solarize(i, 256 - round(256 * abs(s))),
    lambda i, s, fill: ImageEnhance.Brightness(i).enhance(1 + 0.9 * s),
    lambda i, s, fill: ImageEnhance.Contrast(i).enhance(1 + 0.9 * s),
    lambda i, s, fill: ImageEnhance.Color(i).enhance(1 + 0.9 * s),
    lambda i, s, fill: ImageEnhance.Sharpness(i).enhance(1 + 0.9 * s),
    lambda i, s, fill: i.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=fill),
    lambda i, s, fill: _affine(i, (1, 0.3 * s, 0, 0, 1, 0), fill),
    lambda i, s, fill: _affine(i, (1, 0, 0, 0.3 * s, 1, 0), fill),
    lambda i, s, fill: _affine(i, (1, 0, 0.45 * s * i.width, 0, 1, 0), fill),
    lambda i, s, fill: _affine(i, (1, 0, 0, 0, 1, 0.45 * s * i.height), fill),
)
