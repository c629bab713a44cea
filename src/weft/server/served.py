"""A run behind the server: what it can do, and how what comes over HTTP becomes what it was taught to read."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from weft.data.lines import cells
from weft.data.table import Rejected, Table
from weft.errors import DataError, UsageError, WeftError
from weft.exchange import is_checkpoint, open_text_model
from weft.features.batching import collate
from weft.features.chat import TEMPLATE, Chat
from weft.features.codecs import RAGGED
from weft.features.ragged import Ragged, take
from weft.features.store import RowCodes
from weft.inference.constraint import Constraint, Grammar
from weft.inference.embed import Embedder
from weft.inference.generate import encode_prompt, next_tokens
from weft.inference.pieces import pieces_of
from weft.inference.predict import Predictor, easy_first
from weft.models.language import LanguageModel
from weft.models.packed import pack
from weft.models.pretrained import TextModel, describe
from weft.models.row import RowModels
from weft.models.tokenizer_files import load_words
from weft.runs.answers import AnswerRun
from weft.runs.asked import AskedRun
from weft.runs.language import LanguageRun
from weft.runs.opening import open_embedder, open_run
from weft.runs.pairs import PairRun
from weft.runs.ranking import RankingRun
from weft.runs.run import REPORT_FILE, Run
from weft.runs.texts import TextRun

LEAST_ROWS = 4
"""Rows that are predicted together at least: fewer would be rounded otherwise than several."""
MOST_ROWS, MOST_SHOWN, FILLED = 256, 50, 16


class Served:
    """One run. ``can``: the names of what may be asked of it."""

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.run: Run | None = None
        self.chat: Chat | None = None
        self._model: LanguageModel | None = None
        self.embedder: Embedder | None = None
        self.tokenizer: Tokenizer
        self._grammars = lru_cache(maxsize=32)(self._grammar)
        self._making = threading.Lock()
        if not (path / REPORT_FILE).exists() and is_checkpoint(path):
            self._language(open_text_model(path))
        else:
            self.run = open_run(path)
            if isinstance(self.run, LanguageRun):
                model, tokenizer = self.run.loaded
                self._language(TextModel(model, tokenizer, "", describe(model, tokenizer), load_words(path)))
            elif isinstance(self.run, PairRun):
                self.embedder = open_embedder(path)
                pack(self.embedder.source.model)
        self.can = self._can()

    def _language(self, found: TextModel) -> None:
        self._model, self.tokenizer = found.model, found.tokenizer
        pack(found.model)
        if isinstance(self.run, TextRun):
            return
        self.embedder = Embedder(found)
        if TEMPLATE in found.words:
            self.chat = Chat(found.tokenizer, found.words)

    @property
    def model(self) -> LanguageModel:
        """Of a run of texts."""
        assert self._model is not None
        return self._model

    @property
    def writes(self) -> bool:
        c = None if self._model is None else self._model.config
        return c is not None and c.backbone.attention != "reading" and c.output != "none"

    def _can(self) -> list[str]:
        run = self.run
        able = {
            "completions": self.writes,
            "next": self.writes and not isinstance(run, TextRun),
            "chat": self.writes and self.chat is not None,
            "embeddings": self.embedder is not None,
            "recommend": isinstance(run, RankingRun),
            "predict": isinstance(run, (TextRun, AnswerRun, RankingRun)) or type(run) is Run,
            "explain": run is not None and (self.writes or not isinstance(run, LanguageRun)),
        }
        return [name for name, can in able.items() if can]

    # ---- texts

    def prompt(self, given: str | Sequence[int]) -> list[int]:
        """The tokens of a prompt. Raises DataError where ids are none of the model's or a source is too long."""
        if not isinstance(given, str):
            wrong = [i for i in given if not 0 <= i < self.model.config.vocabulary]
            if wrong or not given:
                got = f"Got {wrong[0]}" if wrong else "Got none"
                raise DataError(f"prompt: ids must be 0 to {self.model.config.vocabulary - 1:,}, at least one. {got}.")
            return list(given)
        given = self.cleaned(given)
        if isinstance(self.run, TextRun):
            ids, lost = self.run.source(given)
            if lost:
                raise DataError(f"prompt: the source must fit the model. It is {lost:,} tokens too long. Shorten it.")
            return ids
        return encode_prompt(self.model, self.tokenizer, given)

    def cleaned(self, text: str) -> str:
        """A text as the model learnt texts. Raises DataError where it is far too long, before it is looked at."""
        longest = getattr(self.model.config.backbone, "max_positions", None) if self.writes else None
        if longest is not None and len(text) > longest * self._widest:
            raise DataError(f"a text must have at most {longest:,} tokens for this model. Got {len(text):,} letters. "
                            "Shorten it.")  # fmt: skip
        return self._clean(text)

    def _clean(self, text: str) -> str:
        if not isinstance(self.run, LanguageRun):
            return text
        with self._making:
            return self.run.cleaned(text)

    @cached_property
    def _widest(self) -> int:
        """Letters of the longest token."""
        return max(map(len, self.tokenizer.get_vocab()))

    def ends(self, chat: bool) -> tuple[int, ...]:
        """The tokens that end a text, or an answer."""
        ends = self.model.config.end
        return tuple(dict.fromkeys((*ends, self.chat.end))) if chat and self.chat is not None else ends

    def grammar(self, constraint: Constraint, ends: tuple[int, ...]) -> Grammar:
        """The constraint for the model's tokens; the last ones are kept."""
        with self._making:
            return self._grammars(constraint, ends)

    def _grammar(self, constraint: Constraint, ends: tuple[int, ...]) -> Grammar:
        return Grammar(constraint, self.tokenizer, self.model.config.vocabulary, ends)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes that every token writes; none of a special one."""
        return pieces_of(self.tokenizer, self.model.config.vocabulary)

    def spelt(self, token: int) -> str:
        """The letters of a token, bytes that are no letters as \\xE4; or the name of a special one."""
        piece = self.pieces[token].decode("utf-8", "backslashreplace")
        return piece or self.tokenizer.id_to_token(token) or ""

    def following(self, given: list[tuple[list[int], int]]) -> list[Any]:
        """The most probable next tokens of each prompt, and the probability of the others."""
        return _each(lambda one: next_tokens(self.model, self.tokenizer, *one), given)

    def embed(self, given: list[list[str]]) -> list[tuple[np.ndarray, int]]:
        """The vectors of the texts of several requests, and the tokens read; texts of one length are read together,
        which changes no bit."""
        assert self.embedder is not None
        redact = self.embedder.redact
        texts = [redact.text(t) if redact else self._clean(t) for some in given for t in some]
        sizes = np.array([len(e.ids) for e in self.embedder.source.tokenizer.encode_batch(texts)])
        vectors = np.zeros((len(texts), self.embedder.width), np.float32)
        for size in np.unique(sizes):
            places = np.flatnonzero(sizes == size)
            padded = [texts[i] for i in np.resize(places, max(len(places), LEAST_ROWS))]
            vectors[places] = self.embedder(padded)[0][: len(places)]
        ends = np.cumsum([len(some) for some in given])
        return [
            (v, int(s.sum())) for v, s in zip(np.split(vectors, ends[:-1]), np.split(sizes, ends[:-1]), strict=True)
        ]

    @cached_property
    def card(self) -> dict[str, Any]:
        """What GET /v1/models says of it."""
        columns: dict[str, dict[str, Any]] = {}
        target = None if self.run is None else self.run.settings.target.name
        if type(self.run) is Run:
            for codec in self.run.columns.codecs:
                known = getattr(codec, "categories", [])
                columns[codec.name] = {"type": codec.type, **({"values": known[:MOST_SHOWN]} if known else {})}
        elif isinstance(self.run, TextRun):
            columns = {name: {"type": "text"} for name in self.run.pairing.sources}
        elif isinstance(self.run, AnswerRun):
            found = self.run.figures["answers"]
            columns = {found[part]: {"type": "text"} for part in ("question", "context")}
        made = int((self.path / "config.json").stat().st_mtime)
        return {"id": self.name, "object": "model", "created": made, "owned_by": "weft", "can": self.can,
                "columns": columns, "target": target}  # fmt: skip

    # ---- tables

    def table(self, rows: Sequence[dict[str, Any]]) -> Table:
        """Rows of JSON as JSON Lines are read; pictures as base64 or data: addresses, never as paths."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        if type(self.run) is Run:  # a misspelt column is seen in its row, also where other rows spell it right
            known = {codec.name for codec in self.run.columns.codecs}
            predictor = Predictor(self.run.columns, self.run.model)
            for own in dict.fromkeys(tuple(row) for row in rows if row.keys() - known):
                predictor.absent("rows", own, "send them as null")
        images = {c.name for c in self.run.columns.codecs if c.type == "image"} if type(self.run) is Run else set()
        columns = {
            name: pa.array([_picture(row.get(name), name) for row in rows], pa.binary())
            if name in images
            else cells([row.get(name) for row in rows])
            for name in names
        }
        return Table.of(pa.table(columns))

    def predict(self, given: list[list[dict[str, Any]]]) -> list[Any]:
        """Of each request the answers to its rows, or what is wrong with it."""
        return self._predict_rows(given) if type(self.run) is Run else _each(self._predict_table, given)

    def _predict_table(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert self.run is not None
        predictor, table = self.run._predictor(False), self.table(rows)
        found: list[dict[str, Any]] = [{} for _ in rows]
        for clean, output in self._outputs(predictor, table):
            for row, answer in zip(clean.rows.tolist(), _listed(predictor.as_columns(output)), strict=True):
                found[row] = answer
            for bad in clean.rejected:
                found[bad.row] = _told(bad)
        return found

    def _outputs(self, predictor: Any, table: Table) -> Iterator[tuple[Any, Any]]:
        """Cleaned rows, and what is said of them."""
        if type(self.run) is not Run:
            yield from ((part.clean, part.output) for part in predictor.stream(table))
            return
        for clean in predictor.clean(table):
            model, codes = self.run.model, self.run.columns.encode(clean)
            yield clean, easy_first(model, codes, len(clean.rows), partial(_predict_alike, model))

    def _predict_rows(self, given: list[list[dict[str, Any]]]) -> list[Any]:
        """Requests with the same columns are read as one table."""
        alike: dict[frozenset[str], list[int]] = {}
        for place, rows in enumerate(given):
            alike.setdefault(frozenset(name for row in rows for name in row), []).append(place)
        answers: list[Any] = [None] * len(given)
        for places in alike.values():
            try:
                found = iter(self._predict_table([row for place in places for row in given[place]]))
                told: list[Any] = [list(islice(found, len(given[place]))) for place in places]
            except WeftError as error:  # of several requests one may be wrong
                told = [error] if len(places) == 1 else [self._predict_rows([given[p]])[0] for p in places]
            for place, answer in zip(places, told, strict=True):
                answers[place] = answer
        return answers

    def explain(self, given: list[dict[str, Any]]) -> list[Any]:
        """Of each request why its rows, or its text, have their answers."""
        return _each(self._explain, given)

    def _explain(self, one: dict[str, Any]) -> Sequence[Any]:
        run = self.run
        assert run is not None
        if one["rows"] is not None:
            return run.explain(self.table(one["rows"]), one["method"], one["of"])
        if not isinstance(run, AskedRun):
            raise UsageError("prompt: is for a run that writes. This one reads rows. Give rows.")
        return run.explain(None, one["method"], one["of"], prompt=one["prompt"])

    def recommend(self, given: list[dict[str, Any]]) -> list[Any]:
        run = self.run
        assert isinstance(run, RankingRun)
        return _each(lambda one: run.recommend(**one), given)


def _each(answer: Callable[[Any], Any], given: list[Any]) -> list[Any]:
    """The answers, or of each what is wrong with it."""
    found: list[Any] = []
    for one in given:
        try:
            found.append(answer(one))
        except WeftError as error:
            found.append(error)
    return found


def _listed(columns: dict[str, pa.Array]) -> list[dict[str, Any]]:
    return pa.table(columns).to_pylist()


def _predict_alike(model: RowModels, codes: RowCodes, rows: int) -> np.ndarray:
    """Outputs of encoded rows in their order. A row's texts are filled up to a multiple of ``FILLED`` tokens whether it
    is alone or not, and only rows of one shape share a batch."""
    counted = [
        a.lengths() for f in codes.values() for n, a in f.items() if n in RAGGED.values() and isinstance(a, Ragged)
    ]
    shapes = np.stack([-(-lengths // FILLED) for lengths in counted] or [np.zeros(rows, np.int64)], axis=1)
    _, group = np.unique(shapes, axis=0, return_inverse=True)
    output = np.empty(rows if model.width is None else (rows, model.width))
    for number in range(group.max(initial=-1) + 1):
        alike = np.flatnonzero(group == number)
        for places in np.array_split(alike, -(-len(alike) // MOST_ROWS)):
            padded = np.resize(places, max(len(places), LEAST_ROWS))
            picked = {c: {n: take(a, padded) for n, a in fields.items()} for c, fields in codes.items()}
            batch = collate(picked, len(padded), FILLED).to(model.temperature.device)
            output[places] = model.predict(batch).cpu().numpy()[: len(places)]
    return output


def _told(bad: Rejected) -> dict[str, Any]:
    where = f"column '{bad.column}': " if bad.column else ""
    return {"error": f"{where}{bad.reason}"}


def _picture(value: Any, column: str) -> bytes | None:
    """The bytes of a picture. A path is none: nobody reads this machine's files over HTTP."""
    if value is None or value == "":
        return None
    text = value.partition(";base64,")[2] if isinstance(value, str) and value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DataError(
            f"rows: column '{column}' must hold pictures as base64, or as data:image/...;base64,... addresses. "
            f"Got {type(value).__name__}."
        ) from None
