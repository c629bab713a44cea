"""Names and addresses by a model that tells the class of each word (token classification; Devlin 2019, 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Encoding

from weft.data.personal import KINDS, Found
from weft.data_settings import Personal
from weft.errors import CheckpointError, listing
from weft.features.batching import in_turn, padded_ids, tokens_to_read
from weft.features.ragged import Ragged
from weft.inference.parts import fingerprint
from weft.models.backbone import best_device
from weft.models.language import LanguageModel
from weft.models.pretrained import find, load_text_model
from weft.preprocess.letters import Redactor

MEANT: dict[str, Personal] = {"per": "name", "person": "name", **{kind: kind for kind in KINDS}}
"""What the classes of known checkpoints, and the names of our kinds, stand for."""
AT_ONCE = 1_024
LEAST = 4
"""Words of a text that is read: a class or a code is no sentence, and a model of sentences takes it for anything."""
MARGIN = 32
"""Tokens at the ends of a piece of a long text whose class another piece tells, which sees what is beside them."""


class NameModel:
    """Reads a Hugging Face folder of BERT's shape with a class for each token: O, and B-PER, I-PER, B-address, ...

    Raises:
        CheckpointError: it is none, or none of its classes is a kind of personal data.
    """

    def __init__(self, folder: str | Path):
        source = load_text_model(find(folder))
        self.device, self.tokenizer = best_device(), source.tokenizer
        self.model: LanguageModel = source.model.to(self.device).eval()
        labels = self.model.config.labels
        self.kinds = [MEANT.get(label.removeprefix("B-").removeprefix("I-").lower()) for label in labels]
        self.begins = [label.startswith("B-") for label in labels]
        if not any(self.kinds):
            raise CheckpointError(
                f"{folder}: must tell the class of each token (BertForTokenClassification), with classes such as B-PER "
                f"or I-address. Got {listing(labels) if labels else 'no such classes'}. Take another checkpoint."
            )
        self.before, self.after = (
            [i for i in (b,) if i is not None] for b in (source.config.before, source.config.after)
        )
        self.room = (source.longest or 512) - len(self.before) - len(self.after)
        self.check = fingerprint(self.model, self.tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[list[Found]]:
        """The names and addresses of each text, in order."""
        found: list[list[Found]] = []
        for start in range(0, len(texts), AT_ONCE):
            encodings = self.tokenizer.encode_batch(list(texts[start : start + AT_ONCE]), add_special_tokens=False)
            found += [self._spans(e, codes) for e, codes in zip(encodings, self._codes(encodings), strict=True)]
        return found

    @torch.no_grad()
    def _codes(self, encodings: Sequence[Encoding]) -> list[np.ndarray]:
        """The class of each token. Of a text that is too long pieces are read that overlap."""
        margin = min(MARGIN, self.room // 4)
        pieces = [
            (row, start) for row, e in enumerate(encodings)
            for start in range(0, max(1, len(e) - 2 * margin), self.room - 2 * margin)
        ]  # fmt: skip
        inside = (encodings[row].ids[start : start + self.room] for row, start in pieces)
        ids = Ragged.of([[*self.before, *some, *self.after] for some in inside])
        codes = [np.zeros(len(e), np.int64) for e in encodings]
        lengths = ids.lengths()
        for chosen in in_turn(
            np.arange(len(ids)), lengths, tokens_to_read(self.model.config.backbone.width, self.device)
        ):
            batch, mask = padded_ids(ids, chosen)
            best = self.model.tags(batch.to(self.device), mask.to(self.device)).argmax(dim=-1).cpu().numpy()
            for place, piece in enumerate(chosen):
                row, start = pieces[piece]
                told = best[place, len(self.before) : lengths[piece] - len(self.after)]
                first = margin if start else 0  # the pieces beside it know the ends better
                last = len(told) - (margin if start + self.room < len(codes[row]) else 0)
                codes[row][start + first : start + last] = told[first:last]
        return codes

    def _spans(self, encoding: Encoding, codes: np.ndarray) -> list[Found]:
        """Words of one kind side by side; a word is what its first token is."""
        found: list[Found] = []
        if len(set(encoding.word_ids)) < LEAST:
            return found
        word, open_ = None, False
        for (start, end), number, code in zip(encoding.offsets, encoding.word_ids, codes.tolist(), strict=True):
            if number is not None and number == word:
                if open_:
                    found[-1] = found[-1]._replace(end=end)
                continue
            kind, word = self.kinds[code], number
            if kind is not None and open_ and found[-1].kind == kind and not self.begins[code]:
                found[-1] = found[-1]._replace(end=end)
            elif kind is not None:
                found.append(Found(kind, start, end))
            open_ = kind is not None
        return found


Redactor.open_names = NameModel
