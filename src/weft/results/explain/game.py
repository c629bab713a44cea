"""The game that an explanation plays: what the model says of a row when only some of its players are there.

Hidden rows of all rows explained go through the model together, sorted by length and without padding; one that is
asked for twice is read once.

Shape suffixes: N hidden rows, P players of a row, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from weft.features.columns import Columns
from weft.features.store import RowCodes
from weft.inference.predict import predict_codes
from weft.models.backbone import machine_has_bfloat16
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.results.explain.players import Players
from weft.results.explain.texts import Player

AT_ONCE = 8_192  # hidden rows whose codes are held together
TINY = 1e-12
Value = Callable[[np.ndarray], np.ndarray]
"""Present players [N, P] -> what the model says [N]: the game of one row."""


def log_odds(output_NC: np.ndarray, of_N: np.ndarray) -> np.ndarray:
    """ln p / (1 - p) of a class a row [N]; evidence adds up on this scale, where probabilities saturate."""
    chosen = np.take_along_axis(output_NC, of_N[:, None], axis=1)[:, 0].astype(np.float64)
    exact = output_NC.astype(np.float64).copy()
    np.put_along_axis(exact, of_N[:, None], 0.0, axis=1)
    others = exact.sum(axis=1)
    return np.log(chosen + TINY) - np.log(others + TINY)


class Games:
    """The games of some rows of one run.

    Args:
        columns, model: of the run.
        clean: the rows to explain.
        of: what is explained of each row: a class or label (its place); None: the answer the model gives.
    """

    def __init__(self, columns: Columns, model: RowModels, clean: CleanBatch, of: int | None = None):
        self.model, self.players = model, Players(columns, clean)
        self.device = model.temperature.device
        # a rounding far below what the sample leaves open, at less than half the time
        width = model.each()[0].config.backbone.width
        self.bfloat16 = width >= 128 and machine_has_bfloat16(self.device.type)
        self.evaluations = 0
        target = columns.target
        self.classes = target.classes
        rows = len(clean.rows)
        full = [np.ones(len(p), bool) for p in self.players.rows]
        self.output = self._predict(np.arange(rows), full, exact=True)
        """What the model says of the whole rows [R, C], or numbers [R]."""
        if model.kind == "number":
            self.of = np.zeros(rows, np.int64)
        else:
            self.of = np.full(rows, of) if of is not None else self.output.argmax(axis=1)
        self.full = self._score(np.arange(rows), self.output)
        nothing = self._predict(np.arange(rows), [~f for f in full], exact=True)
        self.empty = self._score(np.arange(rows), nothing)

    def ask(self, row: np.ndarray, present: Sequence[np.ndarray]) -> np.ndarray:
        """The score [N] of hidden rows: log odds of what is explained, or a number in the target's unit.

        Where the machine multiplies bfloat16 in hardware wide models are asked in it.
        """
        return self._score(row, self._predict(row, present))

    def game(self, row: int) -> Value:
        """The game of one row, for methods that ask about it alone."""
        return lambda present: self.ask(np.full(len(present), row), list(present))

    @property
    def groups(self) -> list[np.ndarray]:
        """Of each row the column that each of its players belongs to [P], counted from 0."""
        return [self.players.groups(row) for row in range(len(self.full))]

    def named(self, row: int) -> list[Player]:
        return self.players.rows[row]

    def texts(self, row: int) -> dict[str, str]:
        """The texts of a row, whose characters its words count."""
        return {name: part.texts[row] for name, part in self.players.words.items()}

    def seen(self, row: int) -> dict[str, np.ndarray]:
        """The pictures of a row, as the model sees them."""
        return {name: part.picture(row) for name, part in self.players.pictures.items() if part.players[row]}

    def output_of(self, codes: RowCodes, rows: int, exact: bool = False) -> np.ndarray:
        """What the model says of encoded rows [N, C], or numbers [N]; not whether it would decline them."""
        self.evaluations += rows
        output = predict_codes(self.model, codes, rows, exact)
        return output[:, : len(self.classes)] if self.classes else output

    def _score(self, row: np.ndarray, output: np.ndarray) -> np.ndarray:
        if self.model.kind == "number":
            return output.astype(np.float64)
        if self.model.kind == "labels":
            chosen = np.take_along_axis(output, self.of[row][:, None], axis=1)[:, 0].astype(np.float64)
            return np.log(chosen + TINY) - np.log1p(TINY - chosen)
        return log_odds(output, self.of[row])

    def _predict(self, row: np.ndarray, present: Sequence[np.ndarray], exact: bool = False) -> np.ndarray:
        keys = [(r, p.tobytes()) for r, p in zip(row.tolist(), present, strict=True)]
        place: dict[tuple[int, bytes], int] = {}
        back = np.array([place.setdefault(key, len(place)) for key in keys], np.int64)
        first = np.unique(back, return_index=True)[1]
        found = []
        for chosen in np.split(first, range(AT_ONCE, len(first), AT_ONCE)):
            codes = self.players.codes(row[chosen], [present[i] for i in chosen.tolist()])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16 and not exact):
                found.append(self.output_of(codes, len(chosen), exact))
        return np.concatenate(found)[back]
