"""What every column type offers: a codec, and the codes that it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from weft.data_settings import FeatureSettings

Codes = dict[str, Any]
"""By field: an array of a row each, or a ``Ragged`` of rows of different lengths."""


class Codec(ABC):
    """What every column type offers; one subclass a type."""

    type: ClassVar[str]
    fields: ClassVar[dict[str, Any]]

    def __init__(self, name: str, settings: FeatureSettings | None = None):
        self.name = name
        self.settings = settings

    @abstractmethod
    def observe(self, rows: np.ndarray, array: pa.Array) -> None:
        """Learn from training rows; ``rows`` are their numbers in the table."""

    @abstractmethod
    def join(self, other: Any) -> None:
        """Be as one that saw the rows of both, to the bit where ``other`` saw one batch; neither has finished."""

    @abstractmethod
    def finish(self) -> None:
        """Turn what was observed into what is saved."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Be as one that saw the rows of both, from what is left of each when it has finished."""

    @abstractmethod
    def encode(self, array: pa.Array) -> Codes:
        """The codes of the values, a row each."""

    @abstractmethod
    def decode(self, codes: Codes) -> list:
        """The values again: exact for categories, times and normalised texts, to float32 for numbers."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What ``finish`` made, as JSON."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as the codec was whose ``state`` this is."""
