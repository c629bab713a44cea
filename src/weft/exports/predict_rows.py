"""Answers of an exported model to rows, with numpy, onnxruntime and tokenizers.

python predict.py rows.csv answers.csv

    from predict import Model
    Model(".").predict([{"price": 3.5, "review": "fine"}])
"""

from __future__ import annotations

import csv
import json
import re
import sys
import unicodedata
from collections import Counter
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from weft.data.columns import parse_number, parse_time, says_missing

ROWS_AT_ONCE = 64
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f]")
_MISSING_TIME = np.iinfo(np.int64).min


class Model:
    """The folder that ``weft export --to onnx`` wrote."""

    def __init__(self, folder: str | Path = "."):
        folder = Path(folder)
        learnt = json.loads((folder / "columns.json").read_text(encoding="utf-8"))
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        self.answers = json.loads(self.session.get_modelmeta().custom_metadata_map["weft"])
        self.normalize = learnt["cleaner"]["normalize"]
        self.plans = learnt["cleaner"]["plans"]
        self.columns = learnt["codecs"]
        self.target = learnt["target"]
        self.tokenizer: Any = None
        if any(column["type"] == "text" for column in self.columns):
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.tokenizer.encode_special_tokens = True
        self.places = [_places(column) for column in self.columns]

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to rows, as ``weft predict`` has them. A column that a row lacks is missing.

        Raises:
            ValueError: a cell is no number or time where one must be.
        """
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            inputs = self.encode(rows[start : start + ROWS_AT_ONCE], start)
            found += [self._answer(output) for output in self.session.run(None, inputs)[0]]
        return found

    def encode(self, rows: list[dict[str, Any]], first: int = 0) -> dict[str, np.ndarray]:
        """Rows as the model's inputs."""
        inputs: dict[str, np.ndarray] = {}
        for place, column in enumerate(self.columns):
            cells = [row.get(column["name"]) for row in rows]
            fields = getattr(self, f"_{column['type']}")(place, column, cells, first)
            inputs |= {f"c{place}_{field}": values for field, values in fields.items()}
        wanted = {entry.name for entry in self.session.get_inputs()}
        return {name: values for name, values in inputs.items() if name in wanted}

    def _answer(self, output: np.ndarray) -> dict[str, Any]:
        if self.answers["kind"] == "number":
            return {"prediction": float(output)}
        classes = self.target["classes"]
        p = output[: len(classes)].astype(float).tolist()
        each = {f"probability of {name}": share for name, share in zip(classes, p, strict=True)}
        if self.answers["kind"] == "labels":
            least = self.answers["threshold"]
            return {"prediction": [n for n, share, low in zip(classes, p, least, strict=True) if share >= low], **each}
        best = int(np.argmax(p))
        declined = {"declined": bool(output[-1] < 0)} if self.answers["declines"] else {}
        answer = None if declined.get("declined") else classes[best]
        return {"prediction": answer, **declined, "probability": p[best], **each}

    def _number(self, place: int, column: dict, cells: list, first: int) -> dict[str, np.ndarray]:
        state = column["state"]
        values = [_number_of(cell, column["name"], first + n) for n, cell in enumerate(cells)]
        value = np.clip(np.array(values, np.float64), -1e100, 1e100)
        spike = np.array([self.places[place].get(float(v), -1) + 1 for v in value], np.int32)
        with np.errstate(over="ignore"):
            return {"value": ((value - state["mean"]) / state["deviation"]).astype(np.float32), "spike": spike}

    def _time(self, place: int, column: dict, cells: list, first: int) -> dict[str, np.ndarray]:
        pattern = self.plans[column["name"]]["time_format"]
        values = [_seconds_of(cell, pattern, column["name"], first + n) for n, cell in enumerate(cells)]
        seconds = [_MISSING_TIME if value != value else int(np.floor(value)) for value in values]
        return {"seconds": np.array(seconds, np.int64)}

    def _category(self, place: int, column: dict, cells: list, first: int) -> dict[str, np.ndarray]:
        words = [None if (text := self._text_of(cell)) is None else _one_word(text) for cell in cells]
        codes = [0 if word is None else self.places[place].get(word, -1) + 2 for word in words]  # 0 missing, 1 unknown
        return {"code": np.array(codes, np.int32)}

    def _text(self, place: int, column: dict, cells: list, first: int) -> dict[str, np.ndarray]:
        texts = [self._text_of(cell) or "" for cell in cells]
        rows = [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
        bags = [self._bag(place, column["state"], ids) for ids in rows]
        longest = column["state"]["max_tokens"]
        return {
            "tokens": _padded([ids[:longest] for ids in rows], -1, np.int32),
            "gram": _padded([list(bag) for bag in bags], -1, np.int32),
            "weight": _padded([list(bag.values()) for bag in bags], 0.0, np.float32),
        }

    def _bag(self, place: int, state: dict, ids: list[int]) -> dict[int, float]:
        """Tokens and pairs of neighbours that the model knows, weighted by TF-IDF, of length one."""
        size = self.tokenizer.get_vocab_size() + 1
        grams = [i + 1 for i in ids] + [(a + 1) * size + b + 1 for a, b in pairwise(ids)]
        known = Counter(self.places[place][gram] for gram in grams if gram in self.places[place])
        idf = {g: np.log((1 + state["texts"]) / (1 + state["documents"][g])) + 1 for g in known}
        weight = {g: (1 + np.log(count)) * idf[g] for g, count in sorted(known.items())}
        length = float(np.sqrt(sum(w * w for w in weight.values())))
        return {g: w / length for g, w in weight.items()}

    def _text_of(self, cell: Any) -> str | None:
        if cell is None or cell != cell:
            return None
        if isinstance(cell, (bool, np.bool_)):
            text = "true" if cell else "false"
        elif isinstance(cell, float | np.floating):
            cell = float(cell)
            text = str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
        else:
            text = str(cell)
        if self.normalize != "off":
            text = _CONTROL.sub("", unicodedata.normalize(self.normalize.upper(), text))
        return text.strip() or None


def _places(column: dict) -> dict:
    """Where each value that a column knows stands."""
    known = {"number": "spikes", "category": "categories", "text": "grams"}.get(column["type"])
    return {} if known is None else {value: place for place, value in enumerate(column["state"][known])}


def _one_word(text: str) -> str:
    text = text.lower() if text in ("True", "TRUE", "False", "FALSE") else text
    return re.sub(r"^(-?\d{1,15})\.0+$", r"\1", text, flags=re.ASCII)


def _number_of(cell: Any, name: str, row: int) -> float:
    if cell is None or (isinstance(cell, str) and says_missing(cell)):
        return float("nan")
    value = parse_number(cell) if isinstance(cell, str) else float(cell)
    if value is None or abs(value) == float("inf"):
        raise ValueError(f"row {row}, column {name!r}: must be a finite number. Got {cell!r}.")
    return value


def _seconds_of(cell: Any, pattern: str | None, name: str, row: int) -> float:
    if cell is None or cell != cell or (isinstance(cell, str) and says_missing(cell)):
        return float("nan")
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]").item()
    if isinstance(cell, date):
        cell = cell.isoformat()
        pattern = "iso"
    value = parse_time(cell, pattern or "iso") if isinstance(cell, str) else float(cell)
    if value is None:
        raise ValueError(f"row {row}, column {name!r}: must be a time like the others ({pattern}). Got {cell!r}.")
    return value


def _padded(rows: list[list], nothing: float, kind: Any) -> np.ndarray:
    found = np.full((len(rows), max(1, *map(len, rows), 1)), nothing, kind)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python predict.py ROWS.csv ANSWERS.csv")
    model = Model(Path(__file__).parent)
    with Path(sys.argv[1]).open(encoding="utf-8-sig", newline="") as stream:
        answers = model.predict(list(csv.DictReader(stream)))
    with Path(sys.argv[2]).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(answers[0]) if answers else ["prediction"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(answers)
