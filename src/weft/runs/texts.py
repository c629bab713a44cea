"""TextRun: the folder that learning to write a column leaves; it writes that column for other rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from weft.data.table import Table
from weft.errors import DataError, UsageError, listing
from weft.features.documents import Marks, encode_texts
from weft.features.examples import ExampleCorpus, Examples
from weft.features.groups import GroupColumns
from weft.features.pairs import PairCounts, Pairing, examples_of
from weft.inference.generate import Written, write
from weft.inference.rewrite import Rewriter
from weft.inference.sampling import Sampling
from weft.results.audit.figures import by_weights
from weft.results.audit.words import said_of
from weft.results.explain.asked import words_of
from weft.results.explain.writing import Source
from weft.results.language import Surprise
from weft.results.text import TextScores
from weft.results.writing import FAMILIES, writing_figures
from weft.runs.audit import Asked
from weft.runs.judged import JudgedRows
from weft.runs.language import LanguageRun, new_tokens, surprise
from weft.runs.run import check_readable


class TextRun(LanguageRun):
    """A finished run that writes a column from text columns."""

    beams: int | None = None
    """Texts searched side by side; None: as the pipeline file says."""

    @cached_property
    def pairing(self) -> Pairing:
        return Pairing(**self.figures["pairing"])

    def source(self, text: str) -> tuple[list[int], int]:
        """The tokens of a source of one column, as the model was taught to read it, and how many were cut off.

        Raises:
            UsageError: the model reads several columns.
            DataError: the text holds half a surrogate pair.
        """
        if len(self.pairing.sources) > 1:
            raise UsageError(
                f"{self.path}: writes '{self.pairing.target}' from {listing(self.pairing.sources)}, not from one text. "
                f"Use predict with a table of these columns."
            )
        return self.pairing.encode({self.pairing.sources[0]: pa.array([self.cleaned(text)])}, self.loaded[1])[0]

    def generate(self, prompts: str | list[str], sampling: Sampling | None = None) -> list[Written]:
        """What the model writes from each source."""
        model, tokenizer = self.loaded
        sources = [self.source(text)[0] for text in ([prompts] if isinstance(prompts, str) else prompts)]
        return write(model, tokenizer, sources, sampling or self._sampling())

    def rewrite(self, texts: Sequence[str]) -> list[str | None]:
        """What the model writes from each text, as it predicts a column; None where that says less than the text.

        So it is where the text is too long to be read whole, or what is written is empty or breaks off.
        """
        model, tokenizer = self.loaded
        read = [self.source(text) for text in texts]
        whole = [i for i, (_, lost) in enumerate(read) if not lost]
        found: list[str | None] = [None] * len(texts)
        answers = write(model, tokenizer, [read[i][0] for i in whole], self._sampling())
        for i, written in zip(whole, answers, strict=True):
            found[i] = (written.text.strip() or None) if written.stopped == "end" else None
        return found

    def _questions(self, source: Table, of: str | None, allow_missing: bool) -> Iterator[tuple[int, Source]]:
        for _, clean in self._predictor(allow_missing).reader(source).over(source):
            check_readable(source.name, clean)
            for place, row in enumerate(clean.rows.tolist()):
                texts = {name: clean.columns[name][place].as_py() or "" for name in self.pairing.sources}
                yield row, self._asked_texts(texts, of)

    def _source_of(self, prompt: str, of: str | None) -> Source:
        self.source(prompt)  # one column, or it says what to do
        return self._asked_texts({self.pairing.sources[0]: prompt}, of)

    def _asked_texts(self, texts: dict[str, str], of: str | None) -> Source:
        model, tokenizer = self.loaded
        pairing = self.pairing

        def encode(told: Sequence[str]) -> list[int]:
            return pairing.encode({n: pa.array([t]) for n, t in zip(texts, told, strict=True)}, tokenizer)[0][0]

        words = words_of(texts, tokenizer)
        if of is None:
            ids = new_tokens(model, tokenizer, encode(list(texts.values())), self._sampling())
        else:
            ids = encode_texts([self.cleaned(of)], tokenizer).values.tolist()
        # below -1 a number stands for the player of a token, beside the ids that the pairing puts between
        marked, first = [], 0
        for one in words:
            inside = one.owners(tokenizer)
            marked.append((-2 - np.where(inside >= 0, inside + first, -1)).tolist())
            first += len(one.players)
        owners = -2 - np.minimum(pairing.source(marked)[0], -1)
        return Source(model, tokenizer, words, encode, pairing.target, ids, owners)

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """The texts written for a table beside its own, each figure with its interval; rows are written as they come.

        On the very data of the training only the test rows count, unless ``everything``.
        """
        source = Table.of(table)
        judged = JudgedRows.of(self.path, self.figures, source, everything)
        predictor = self._predictor(allow_missing)
        # in the units of the training's figures, whatever the first rows are
        scores, counts = TextScores(FAMILIES, self.figures.get("language")), PairCounts()
        lost, rejected = [], 0
        for part in predictor.stream(source, with_target=True, chosen=judged):
            rejected += len(part.clean.rejected)
            if len(part.output):
                texts = part.clean.columns[self.pairing.target].to_pylist()
                scores.add(part.output.tolist(), [[text] for text in texts])
                lost.append(self._surprise(part.clean.columns, counts))
        if not scores.rows:
            raise DataError(f"{source.name}: must hold rows with a text in '{self.pairing.target}'. Got none.")
        return {
            "rows": scores.rows, "rejected": rejected, "said": counts.in_words(),
            "part": judged.words(),
            "metrics": {
                k: e.to_dict() for k, e in writing_figures(scores.estimates(), Surprise.join(lost)).items()
            },
            "signatures": scores.signatures(),
        }  # fmt: skip

    def judge_groups(self, source: Table, asked: Asked) -> dict[str, Any]:
        """The section ``groups`` of an audit: BLEU and chrF of what is written for each group."""
        groups = GroupColumns.of(source, asked.by)
        judged = JudgedRows.of(self.path, self.figures, source, asked.everything)
        scores, codes = TextScores(("bleu", "chrf"), self.figures.get("language")), [np.zeros((0, len(groups.by)))]
        predictor = self._predictor(asked.allow_missing)
        for part in predictor.stream(source, with_target=True, keep=groups.by, chosen=judged):
            scores.add(part.output.tolist(), [[t] for t in part.clean.columns[self.pairing.target].to_pylist()])
            codes.append(groups.read(part.raw, part.clean.rows))
        metrics = scores.metrics()
        found = [by_weights(members, metrics) for members in groups.members(np.concatenate(codes))]
        return said_of(found, scores.rows) | {"part": judged.words(), "absent": predictor.without}

    def _surprise(self, columns: Any, counts: PairCounts) -> Surprise:
        model, tokenizer = self.loaded
        examples = Examples.held(examples_of(columns, self.pairing, tokenizer, counts))
        prefixed = model.config.backbone.attention == "rewriting"
        context = int(self.figures["model"]["context"])
        corpus = ExampleCorpus(examples, Marks.of(tokenizer), context, 0, prefixed, pack=False)
        cuts = corpus.cuts(np.arange(len(examples.row)))
        return surprise(model, corpus, cuts, np.arange(len(cuts)))

    def _asked(self) -> dict[str, Any]:
        return {"beams": self.beams}

    def _sampling(self) -> Sampling:
        return Sampling(max_tokens=self.pairing.target_room, beams=self.beams or self.settings.target.beams or 1)

    def _predictor(self, allow_missing: bool) -> Rewriter:
        model, tokenizer = self.loaded
        return Rewriter(model, tokenizer, self.pairing, self.letters, self._sampling(), allow_missing)

    def _no_rows(self) -> np.ndarray:
        return np.zeros(0, dtype=object)
