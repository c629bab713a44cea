"""What every column type offers: a codec, and the codes that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from weft.config import FeatureSettings
from weft.features.ragged import Ragged as Ragged

Codes = dict[str, "np.ndarray | Ragged"]


class Codec:
    """What every column type offers; one subclass a type."""

    type: ClassVar[str]
    fields: ClassVar[dict[str, Any]]

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        self.name = name
        self.settings = settings

    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        """Learn from training rows; ``rows`` are their numbers in the table."""
        raise NotImplementedError

    def finish(self) -> None:
        """Turn what was observed into what is saved."""
        raise NotImplementedError

    def encode(self, array: pa.Array) -> Codes:
        raise NotImplementedError

    def decode(self, codes: Codes) -> list:
        """The values again: exact for categories, times and normalised texts, to float32 for numbers."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What ``finish`` made, as JSON."""
        raise NotImplementedError

    def restore(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError
