"""Classes that no model was trained on, known by their names or descriptions only.

A reader compares the vector of a text with those of the descriptions (a softmax of their cosines); a writer is asked
how probable each description is after the text (Brown et al. 2020), in a template. No row is learnt from.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tokenizers import Tokenizer

from weft.data.table import RawBatch, Table
from weft.errors import UsageError, listing
from weft.features.batching import in_turn, padded_ids
from weft.features.ragged import Ragged
from weft.inference.delivery import Delivery
from weft.inference.embed import Embedder, text_reader
from weft.inference.generate import encode_prompt
from weft.inference.output import schema_of
from weft.inference.parts import Piece, fingerprint, steps, write_job
from weft.inference.predict import class_columns
from weft.models.language import LanguageModel, check_writes
from weft.preprocess.letters import Redactor
from weft.progress import Silent

TEMPERATURE = 0.05
"""Of the softmax over cosines: the scale of 20 with which sentence encoders are trained (Reimers & Gurevych 2019)."""
TEMPLATE = "{text}\nLabel: {label}\n"
TOKENS_AT_ONCE = 8_192
LONGEST = 8_192
"""Tokens of a line for a model without an end."""


def read_labels(given: str) -> dict[str, str]:
    """Classes and their descriptions: ``"a,b,c"``, or a YAML file of a list, or of ``class: description``.

    In a name without a description underscores are spaces: ``card_arrival`` is described as ``card arrival``.

    Raises:
        UsageError: fewer than two classes, a class twice or without a name, a file that cannot be read.
    """
    names: Any = [word.strip() for word in given.split(",")]
    if Path(given).suffix.lower() in (".yaml", ".yml"):
        try:
            names = YAML(typ="safe", pure=True).load(Path(given).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise UsageError(f"--labels {given}: must be a readable YAML file. Got: {error}") from None
    inner = names.values() if isinstance(names, Mapping) else names if isinstance(names, list) else ()
    nested = any(isinstance(name, (list, Mapping)) for name in inner)
    if isinstance(names, Mapping) and not nested:  # an alias in a list in a list may stand for millions
        found = {str(name): described(str(name)) if text is None else str(text) for name, text in names.items()}
    elif isinstance(names, list) and not nested:
        found = {str(name): described(str(name)) for name in names}
        if len(found) < len(names):
            raise UsageError(f"--labels {given}: each class must come once. Got {listing(names)}.")
    else:
        raise UsageError(f"--labels {given}: must hold a list of classes, or a line `class: description` for each.")
    if len(found) < 2 or not all(name.strip() and text.strip() for name, text in found.items()):
        raise UsageError(f"--labels {given}: there must be two classes or more, none empty. Got {listing(found)}.")
    return found


def described(name: str) -> str:
    return name.replace("_", " ")


class ByMeaning:
    """Classes by the cosine between a text's vector and those of the descriptions."""

    def __init__(self, embedder: Embedder, labels: Mapping[str, str]):
        self.embedder = embedder
        self.vectors_CD, cut = embedder(list(labels.values()))
        if cut:
            raise UsageError(f"descriptions must be no longer than the model reads. Got {cut} that are. Shorten them.")

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, int]:
        """Probabilities [N, C], and how many texts were cut to what the model reads."""
        vectors_ND, cut = self.embedder(texts)
        return _softmax((vectors_ND @ self.vectors_CD.T).astype(np.float64) / TEMPERATURE), cut

    def fingerprint(self) -> str:
        return fingerprint(self.embedder.model, self.embedder.source.tokenizer)


class ByWriting:
    """Classes by the probability that a model goes on with a description, and with what the template has after it.

    ``redact``: replaces the personal data of the texts, where the model learnt so.

    Raises:
        UsageError: the model cannot write, or the template lacks ``{text}`` or ``{label}`` after it.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        labels: Mapping[str, str],
        template: str = TEMPLATE,
        redact: Redactor | None = None,
    ):
        check_writes(model)
        check_template(template)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.ends, self.template, self.redact = list(labels.values()), template, redact
        self.context = model.config.longest or LONGEST

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, int]:
        """Probabilities [N, C], and how many texts were cut to what the model reads."""
        lines: list[list[int]] = []
        starts: list[int] = []
        cuts = 0
        for text in texts if self.redact is None else map(self.redact.text, texts):
            some, start, cut = self._lines(text)
            lines += some
            starts += [start] * len(some)
            cuts += cut
        return _softmax(self._log_probabilities(lines, starts).reshape(len(texts), len(self.ends))), cuts

    def fingerprint(self) -> str:
        return fingerprint(self.model, self.tokenizer) + self.template

    def _lines(self, text: str) -> tuple[list[list[int]], int, bool]:
        """The tokens of the template with each description, and with how many of them all begin alike.

        A text that is too long loses its own end, never the description.
        """
        whole = text
        while True:
            filled = [self.template.format(text=text, label=end) for end in self.ends]
            ids = [encode_prompt(self.model, self.tokenizer, line) for line in filled]
            over = max(map(len, ids)) - self.context
            if over <= 0:
                break
            if not text:
                raise UsageError(f"a description must fit into the model's {self.context:,} tokens. Shorten it.")
            text = text[: max(0, min(len(text) - over, len(text) * self.context // (self.context + over)))]
        start = next(
            (i for i, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1), min(map(len, ids))
        )
        return ids, max(start, 1), text != whole

    @torch.no_grad()
    def _log_probabilities(self, lines: list[list[int]], starts: list[int]) -> np.ndarray:
        """Sums [N] of log p over the tokens of each line from its start on."""
        found = np.zeros(len(lines))
        device = self.model.device
        tokens = Ragged.of(lines)
        lengths = tokens.lengths()
        for rows in in_turn(np.arange(len(lines)), lengths, TOKENS_AT_ONCE, 0):
            ids, mask = padded_ids(tokens, rows)
            places, first = torch.arange(ids.shape[1]), torch.tensor([starts[row] for row in rows])[:, None]
            # a model that rewrites reads what all lines begin with both ways
            prefix = (places < first).to(device) if self.model.config.backbone.attention == "rewriting" else None
            states = self.model.hidden(ids.to(device), mask.to(device), prefix_BT=prefix)
            asked = (mask & (places >= first))[:, 1:]
            # logits only where they are asked: a vocabulary is wide
            logits = self.model.logits(states[:, :-1][asked.to(device)]).float()
            each = -F.cross_entropy(logits, ids[:, 1:][asked].to(device), reduction="none")
            found[rows] = torch.zeros(asked.shape).masked_scatter(asked, each.cpu()).double().sum(dim=1).numpy()
        return found


def check_template(template: str) -> None:
    """Raises UsageError unless the template holds ``{text}`` and after it ``{label}``."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        fields = []
    if fields != ["text", "label"]:
        raise UsageError(f"--template: must hold {{text}} and after it {{label}}, each once. Got {template!r}.")


def classify_table(
    scorer: ByMeaning | ByWriting,
    labels: Mapping[str, str],
    table: Table,
    column: str,
    out: str | Path,
    keep: tuple[str, ...] = (),
    say: Silent | None = None,
    columns: tuple[str, ...] = (),
    partition_by: str | None = None,
) -> dict[str, Any]:
    """Write ``row``, ``prediction``, ``probability`` and those of each class, in the order of the table.

    A missing text has a missing prediction; one that cannot be read is set aside beside ``out``.
    Returns the counts: rows in = predicted + missing + rejected.
    """
    classes = list(labels)
    table.require([column])
    nothing = class_columns(classes, np.zeros((0, len(classes))))
    schema = schema_of(table, keep, {name: array.type for name, array in nothing.items()}, columns)

    reader = text_reader(table, column, keep)

    def work(raw: RawBatch) -> Piece:
        some = reader.read(raw)
        there = np.array([t is not None for t in some.texts], bool)
        probabilities, cut = scorer([t for t in some.texts if t is not None])
        found = pa.table(class_columns(classes, probabilities))
        place = np.cumsum(there) - 1
        found = found.take(pa.array(place, mask=~there))
        cells = {"row": pa.array(some.rows), **some.kept, **dict(zip(found.column_names, found.columns, strict=True))}
        rows = pa.table({name: cells[name] for name in schema.names}, schema=schema)
        counts = {"predicted": int(there.sum()), "missing": int((~there).sum()), "cut": cut}
        return Piece(rows, some.rejected, some.end, counts)

    job = {"model": scorer.fingerprint(), "labels": dict(labels), "column": column}
    with Delivery(out, table.name, partition_by) as way:
        way.check(schema)
        done = write_job(way.path, schema, table, job, steps(reader, work), "classifying", say or Silent())
    counts = done.counts
    return way.deliver({
        "rows": counts["predicted"] + counts["missing"] + counts["rejected"], "predicted": counts["predicted"],
        "missing": counts["missing"], "cut": counts["cut"], "rejected": counts["rejected"], "classes": classes,
        "output": str(out), "rejected_output": done.rejected_output,
    })  # fmt: skip


def _softmax(logits_NC: np.ndarray) -> np.ndarray:
    power = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
    return power / power.sum(axis=1, keepdims=True)
