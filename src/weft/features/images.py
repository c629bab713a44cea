"""Pictures as codes: all of a column at one size, kept as they are seen, 8 bits a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from weft.data.pictures import KEPT
from weft.data_settings import FeatureSettings
from weft.features.codec import Codec, Codes
from weft.preprocess.pictures import resized, unpacked

LEAST = 4


class ImageCodec(Codec):
    """Pixels [N, C, S, S] and whether there is a picture; learnt are size, grey or colours, mean and deviation.

    ``size`` S is the middle of the training rows' longer sides, at most ``KEPT``; ``channels`` C is 1 where all of
    them are grey, else 3. ``mean`` and ``deviation`` [C] of the pixels, in 0 to 255, standardise them in the model.
    """

    type = "image"
    fields: ClassVar = {"pixels": np.uint8, "present": np.uint8}

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        super().__init__(name, settings)
        self.size = (settings.size if settings else None) or 0
        self.channels = 1
        self.mean, self.deviation = [0.0], [1.0]
        self._sides: Counter[int] = Counter()
        self._shades = np.zeros((3, 256), np.int64)

    @property
    def bytes(self) -> int:
        """Of a picture."""
        return self.channels * self.size**2

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        for pixels in unpacked(array):
            if pixels is None:
                continue
            self._sides[max(pixels.shape[:2])] += 1
            self.channels = max(self.channels, pixels.shape[2])
            for channel in range(3):
                shades = pixels[:, :, min(channel, pixels.shape[2] - 1)].ravel()
                self._shades[channel] += np.bincount(shades, minlength=256)

    def join(self, other: ImageCodec) -> None:
        self.channels = max(self.channels, other.channels)
        self._sides += other._sides
        self._shades += other._shades

    def finish(self) -> None:
        if not (self.settings and self.settings.size):
            sides = sorted(self._sides.elements())
            self.size = min(KEPT, max(LEAST, sides[len(sides) // 2])) if sides else LEAST
        counts = np.maximum(1, self._shades.sum(axis=1))
        values = np.arange(256)
        mean = self._shades @ values / counts
        variance = self._shades @ values**2 / counts - mean**2
        self.mean = mean[: self.channels].tolist()
        self.deviation = np.maximum(1.0, np.sqrt(np.maximum(0.0, variance)))[: self.channels].tolist()

    def merge(self, other: ImageCodec) -> None:
        self.join(other)
        self.finish()

    def fix(self, size: int, mean: list[float], deviation: list[float]) -> None:
        """Take these instead of what the rows show: what a checkpoint was trained on."""
        self.size, self.channels = size, len(mean)
        self.mean, self.deviation = mean, deviation

    def encode(self, array: pa.Array) -> Codes:
        """A missing picture is black, and not present."""
        found = unpacked(array)
        pixels = np.zeros((len(found), self.channels, self.size, self.size), np.uint8)
        for place, picture in enumerate(found):
            if picture is not None:
                pixels[place] = resized(picture, self.size, self.channels).transpose(2, 0, 1)
        return {"pixels": pixels, "present": array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)}

    def decode(self, codes: Codes) -> list:
        """uint8 [S, S] where grey, else [S, S, 3]."""
        pixels = codes["pixels"]
        pictures = pixels[:, 0] if self.channels == 1 else pixels.transpose(0, 2, 3, 1)
        return [picture if here else None for picture, here in zip(pictures, codes["present"], strict=True)]

    def state(self) -> dict[str, Any]:
        return {"size": self.size, "channels": self.channels, "mean": self.mean, "deviation": self.deviation}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.size, self.channels = int(state["size"]), int(state["channels"])
        self.mean, self.deviation = list(state["mean"]), list(state["deviation"])
