"""How probable a language model finds texts, token by token: one that writes, or one that reads with tokens hidden.

Shape suffixes: B texts at once, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer

from weft.errors import DataError, UsageError
from weft.features.tokenizer import mask_token
from weft.inference.generate import check_letters, check_numbers, resting
from weft.models.language import LanguageModel

ROWS = 64


class Likelihood:
    """Log probabilities of the tokens of texts, in nats.

    Raises:
        UsageError: the model has no output matrix, or reads and has no token that hides others.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.reads = model.config.backbone.attention == "reading"
        self.mask = mask_token(tokenizer)
        if model.config.output == "none" or (self.reads and self.mask is None):
            what = "an output matrix" if model.config.output == "none" else "a token that hides others"
            raise UsageError(
                f"a model must have {what} to say how probable a text is. This one has none. Import a checkpoint "
                f"with its head, such as BertForMaskedLM or GPT2LMHeadModel."
            )

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a text as the model reads it, and the places of those that are its own."""
        check_letters(text)
        found = self.tokenizer.encode(text)
        ids = list(found.ids)
        own = [i for i, special in enumerate(found.special_tokens_mask) if not special]
        config = self.model.config
        if not self.reads and own and own[0] == 0:
            start = config.begin if config.begin is not None else next(iter(config.end), None)
            if start is not None:
                ids, own = [start, *ids], [i + 1 for i in own]
        most = config.longest
        if most is not None and len(ids) > most:
            raise DataError(
                f"a sentence must have at most {most:,} tokens for this model. Got {len(ids):,}: {text[:60]!r}."
            )
        return ids, own

    def with_mask(self, around: Sequence[str], start: str) -> tuple[list[int], int]:
        """Ids of a text with a hidden token between what is ``around`` it, after the letters ``start``; its place."""
        assert self.mask is not None
        name, own = self.tokenizer.id_to_token(self.mask), self.tokenizer.encode_special_tokens
        self.tokenizer.encode_special_tokens = False
        try:
            ids = list(self.tokenizer.encode(f"{around[0]}{start}{name}{around[1]}").ids)
        finally:
            self.tokenizer.encode_special_tokens = own
        return ids, ids.index(self.mask)

    def written(self, ids: Sequence[int], own: Sequence[int]) -> np.ndarray:
        """log p of each own token after those before it; a first token that nothing comes before is left out."""
        places = [i for i in own if i > 0]
        return self._at([list(ids)], [[i - 1 for i in places]], [[ids[i] for i in places]])[0]

    def hidden(self, ids: Sequence[int], places: Sequence[int]) -> np.ndarray:
        """log p of the tokens at ``places``, each hidden alone while all others are seen (Salazar 2020)."""
        assert self.mask is not None
        rows = []
        for place in places:
            row = list(ids)
            row[place] = self.mask
            rows.append(row)
        found = self._at(rows, [[p] for p in places], [[ids[p]] for p in places])
        return np.concatenate(found) if found else np.zeros(0)

    @torch.no_grad()
    def _at(self, rows: list[list[int]], places: list[list[int]], wanted: list[list[int]]) -> list[np.ndarray]:
        """log p of the wanted tokens at the places of rows of one length."""
        found, device = [], self.model.device
        with resting(self.model):
            for start in range(0, len(rows), ROWS):
                states_BTD = self.model.hidden(torch.tensor(rows[start : start + ROWS], device=device))
                for i, states_TD in enumerate(states_BTD):
                    at, of = places[start + i], wanted[start + i]
                    logits_KV = self.model.logits(states_TD[at])  # of few places: a vocabulary is large
                    check_numbers(logits_KV)
                    found.append(logits_KV.double().log_softmax(dim=-1)[torch.arange(len(of)), of].cpu().numpy())
        return found
