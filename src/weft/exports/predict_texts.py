"""Vectors of texts by an exported model, with numpy, onnxruntime and tokenizers.

python predict.py texts.txt vectors.npy    (a text a line)

    from predict import Model
    Model(".").embed(["my card has not come"])
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TEXTS_AT_ONCE = 64


class Model:
    """The folder that ``weft export --to onnx`` wrote."""

    def __init__(self, folder: str | Path = "."):
        self.session = onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"))
        self.longest = json.loads(self.session.get_modelmeta().custom_metadata_map["weft"])["longest"]
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True

    def embed(self, texts: list[str]) -> np.ndarray:
        """Vectors [N, D] of length one: the product of two is their cosine."""
        found = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            rows = [e.ids for e in self.tokenizer.encode_batch(texts[start : start + TEXTS_AT_ONCE])]
            most = self.longest or max(map(len, rows))
            # the closing token of a text that is cut stays at its end
            rows = [row if len(row) <= most else [*row[: most - 1], row[-1]] for row in rows]
            ids = np.zeros((len(rows), max(1, *map(len, rows), 1)), np.int64)
            for place, row in enumerate(rows):
                ids[place, : len(row)] = row
            mask = np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]
            vectors = self.session.run(None, {"ids": ids, "mask": mask})[0]
            found.append(np.where(mask.any(axis=1, keepdims=True), vectors, 0.0))
        return np.concatenate(found)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python predict.py TEXTS.txt VECTORS.npy")
    np.save(sys.argv[2], Model(Path(__file__).parent).embed(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()))
