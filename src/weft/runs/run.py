"""Run: the folder that a training leaves, and all that can be asked of it.

    weft.yaml  model.safetensors  config.json  columns.json  tokenizer.json  metrics.jsonl
    report.html  report.json  rejected.parquet  README.md  manifest.json

The codecs are bound to the weights by hash; a file that was changed or exchanged is refused.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import weft.inference.names  # noqa: F401 (how a model of names is opened)
from weft import config, memory
from weft.config import Settings
from weft.data.table import RawBatch, Table, like
from weft.errors import CheckpointError, DataError, RunError, UsageError, did_you_mean, listing
from weft.features.columns import Columns
from weft.features.groups import GroupColumns
from weft.features.targets import ClassTarget, NumberTarget, known, most_rows
from weft.files import MANIFEST, sha256, verify_manifest
from weft.inference.delivery import Delivery
from weft.inference.output import kept, schema_of
from weft.inference.parts import Piece, steps, write_job
from weft.inference.predict import Predictor, Sample, predict_codes, without_in_words
from weft.models.row import RowModels
from weft.preprocess.clean import CleanBatch
from weft.preprocess.letters import Letters
from weft.progress import Silent
from weft.results.abstention import judge_abstention
from weft.results.audit.personal import personal_section
from weft.results.audit.swaps import swaps_section
from weft.results.audit.words import groups_section
from weft.results.explain.nearest import find_nearest
from weft.results.explain.why import EVALUATIONS, METHODS, Explanation, explain
from weft.results.outcomes import Outcomes
from weft.results.report import in_notebook, write_report
from weft.results.summary import judge
from weft.runs.audit import Asked, audit
from weft.runs.judged import JudgedRows, split_of
from weft.runs.leaks import Shadow
from weft.runs.weights import load_model

SETTINGS_FILE, REPORT_FILE = "weft.yaml", "report.json"
BEST_FILE = "best.yaml"
"""The settings that a search decided for, by which the model was then trained."""


@dataclass
class _Judged:
    """Rows of a table that are judged: outputs, true codes, and more that was asked of them; which they are."""

    columns: tuple[np.ndarray, ...]
    rejected: int
    part: str
    absent: list[str]


class Run:
    """A finished run. ``Run(path)`` checks that every file is as it was written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise RunError(f"{self.path}: must be the folder of a run. There is no such folder. `weft run` makes one.")
        verify_manifest(self.path)
        if not (self.path / REPORT_FILE).exists():
            raise RunError(
                f"{self.path}: must be a trained run. It is an imported checkpoint; start a model from it with "
                f"model: {{from: {self.path}}}."
            )

    @cached_property
    def settings(self) -> Settings:
        best = self.path / BEST_FILE
        return config.load(best if best.exists() else self.path / SETTINGS_FILE, needs_source=False)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """``report.json``: the numbers of the report."""
        try:
            return json.loads((self.path / REPORT_FILE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(
                f"{self.path / REPORT_FILE}: must be the JSON that Weft wrote. Got: {error}"
            ) from None

    @cached_property
    def letters(self) -> Letters:
        """How its texts are read, personal data replaced as in the training."""
        default = "nfc" if self.settings.target.task in ("next_token", "masked_token", "text", "dialogue") else "nfkc"
        normalize = self.settings.preprocess.normalize or default
        return Letters.from_dict({"normalize": normalize, "redact": self.figures.get("redact")})

    @cached_property
    def columns(self) -> Columns:
        return Columns.load(self.path)

    @cached_property
    def model(self) -> RowModels:
        return load_model(self.path, self.columns)

    def predict(self, table: Any, allow_missing: bool = False) -> Any:
        """Predictions for rows in memory: the same kind of table in the same order.

        A row that cannot be read (a word in a number column) has missing predictions. A column that is absent counts
        as missing in every row, which a warning says (not with ``allow_missing``).

        Raises:
            DataError: a column that the model reads is absent and another has a like name (unless ``allow_missing``),
                or all of them are absent.
        """
        source = Table.of(table)
        predictor = self._predictor(allow_missing)
        pieces, rows, total = [], [], 0
        for part in predictor.stream(source):
            pieces.append(pa.table(predictor.as_columns(part.output)))
            rows.append(part.clean.rows)
            total += len(part.clean.rows) + len(part.clean.rejected)
        if predictor.without and not allow_missing:
            warnings.warn(f"{source.name}: {without_in_words(predictor.without)}", stacklevel=2)
        if not pieces:
            return like(table, pa.table(predictor.as_columns(self._no_rows())))
        place = np.full(total, -1, np.int64)
        place[np.concatenate(rows)] = np.arange(sum(map(len, rows)))
        found = pa.concat_tables(pieces).combine_chunks()
        return like(table, found.take(pa.array(place, mask=place < 0)))

    def predict_file(self, source: Any, out: str | Path, allow_missing: bool = False, keep: tuple[str, ...] = (),
                     say: Silent | None = None, columns: tuple[str, ...] = (), partition_by: str | None = None
                     ) -> dict[str, Any]:  # fmt: skip
        """Predict a table of any size into a file, whole or not at all; rows set aside go beside it.

        A call that was stopped goes on where it was when it is made again. ``columns``: those of the output to write.
        ``out`` may be an address (``s3://...``), and a folder of parts (``OUT/``), which ``partition_by`` divides.

        Returns the counts: rows in, predicted, rejected; ``in = predicted + rejected``.
        """
        table, predictor = Table.of(source), self._predictor(allow_missing)
        used: list[memory.Used] = []
        said = {name: array.type for name, array in predictor.as_columns(self._no_rows()).items()}
        schema = schema_of(table, keep, said, columns)
        reader, kinds = predictor.reader(table, keep), table.columns

        def work(raw: RawBatch) -> Piece:
            predictor.cut = 0
            part = predictor.answer(raw, reader.read(raw))
            found = {"row": pa.array(part.clean.rows), **kept(kinds, keep, raw, part.clean.rows)}
            found |= predictor.as_columns(part.output)
            rows = pa.table({name: found[name] for name in schema.names}, schema=schema)
            counts = {"predicted": len(part.clean.rows), "cut": predictor.cut}
            return Piece(rows, part.clean.rejected, raw.end(0), counts)

        job = {"run": sha256(self.path / MANIFEST), "allow_missing": allow_missing, "asked": self._asked()}
        with memory.measured(used), Delivery(out, table.name, partition_by) as way:
            way.check(schema)
            done = write_job(way.path, schema, table, job, steps(reader, work), "predicting", say or Silent())
        predicted, rejected = done.counts["predicted"], done.counts["rejected"]
        return way.deliver({
            "rows": predicted + rejected, "predicted": predicted, "rejected": rejected, "output": str(out),
            "rejected_output": done.rejected_output, "cut": done.counts["cut"],
            "absent": predictor.without, "used": used[0].of(predicted + rejected),
        })  # fmt: skip

    def evaluate(self, table: Any, allow_missing: bool = False, everything: bool = False) -> dict[str, Any]:
        """The metrics of the run on a table with the target, each with its interval.

        On the very data of the training only the test rows count, unless ``everything``.
        """
        found = self._judged(Table.of(table), allow_missing, everything)
        output, truth = found.columns
        usable = known(truth)
        ours = judge("weft", "Weft", self._outcomes(output[usable], truth[usable], self._positive()))
        abstention = judge_abstention(output, truth) if self.model.score else None
        outside = abstention["out_of_scope"] if abstention else 0
        return {
            "rows": int(usable.sum()), "rejected": found.rejected, "unknown_class": int((~usable).sum()) - outside,
            "part": found.part, "absent": found.absent,
            "metrics": {k: e.to_dict() for k, e in ours.estimates.items()}, "declines": abstention,
        }  # fmt: skip

    def audit(
        self, table: Any, by: Sequence[str] = (), of: str | None = None, allow_missing: bool = False,
        everything: bool = False, shadows: Sequence[Shadow] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """Whom the run fails, by how much and how surely: ``sections`` of figures, each with what it ``said``.

        Args:
            table: rows with the target; on the very data of the training only the test rows count, unless
                ``everything``.
            by: columns that say to which group a row belongs; the model need not read them.
            of: the class whose share counts; default: of two classes the one that is looked for.
            shadows: runs of the same settings on other halves of the rows (:func:`weft.shadows.train_shadows`), beside
                which it is asked whom the run remembers.

        Raises:
            DataError: a column of ``by`` is absent, has one value, or holds no groups.
        """
        return audit(self, Table.of(table), Asked(tuple(by), of, allow_missing, everything, tuple(shadows)))

    def judge_personal(self, source: Table) -> dict[str, Any]:
        """The section ``personal`` of an audit."""
        redact = self.settings.preprocess.redact
        read = [column["name"] for column in self.figures["columns"]] + [self.settings.target.name]
        return personal_section(source, redact.kinds if redact else (), read)

    def judge_groups(self, source: Table, asked: Asked) -> dict[str, Any]:
        """The section ``groups`` of an audit."""
        groups = GroupColumns.of(source, asked.by, self.columns.cleaner.letters)
        found = self._judged(source, asked.allow_missing, asked.everything, groups)
        output, truth, codes = found.columns
        usable = known(truth)
        positive = self._positive() if asked.of is None else self._class(asked.of)
        said = self._outcomes(output[usable], truth[usable], positive)
        section = groups_section(groups.members(codes[usable]), said)
        return section | {"part": found.part, "absent": found.absent}

    def judge_swaps(self, source: Table, asked: Asked) -> dict[str, Any] | None:
        """The section ``swaps`` of an audit; None where no text names an identity."""
        texts = [name for name, kind in self.columns.types.items() if kind == "text"]
        if not texts or self.model.kind == "labels":
            return None

        def predict(columns: dict[str, pa.Array], rows: int) -> np.ndarray:
            codes = self.columns.encode(CleanBatch(np.arange(rows), columns, []))
            return predict_codes(self.model, codes, rows)[..., :width]

        classes = self.columns.target.classes
        width = len(classes) or None
        of = self._positive() if asked.of is None else self._class(asked.of)
        clean = Predictor(self.columns, self.model, asked.allow_missing).clean(source)
        return swaps_section(clean, texts, predict, classes, of)

    def scores(
        self, source: Table, chosen: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Numbers of the chosen rows whose truth is known, and how sure the model is of it [N]: the log odds of the
        true class, else the negative loss; of a number the negative log of its squared error in deviations."""
        rows, found = [], []
        target = self.columns.target
        for part in Predictor(self.columns, self.model, True).stream(source, with_target=True, chosen=chosen):
            truth = target.encode(part.clean.columns[target.name])
            good = known(truth)
            truth, output = truth[good], part.output[good].astype(np.float64)
            rows.append(part.clean.rows[good])
            if isinstance(target, NumberTarget):
                error = (output - target.mean) / target.deviation - truth
                found.append(-np.log(error**2 + 1e-12))
                continue
            p = np.clip(output[:, : len(target.classes)], 1e-9, 1 - 1e-9)
            if isinstance(target, ClassTarget):
                true = p[np.arange(len(p)), truth]
                found.append(np.log(true) - np.log1p(-true))
            else:
                found.append(np.where(truth > 0, np.log(p), np.log1p(-p)).sum(axis=1))
        return np.concatenate(rows), np.concatenate(found)

    def _class(self, name: str) -> int:
        """The place of a class. Raises UsageError where the target has none of that name."""
        classes = self.columns.target.classes
        if self.model.kind != "class" or name not in classes:
            known_here = f"It may be {listing(classes)}." if classes else "The target has none. Leave it out."
            raise UsageError(f"of: must be a class of the target. Got {name!r}. {known_here}")
        return classes.index(name)

    def _judged(
        self, source: Table, allow_missing: bool, everything: bool, groups: GroupColumns | None = None
    ) -> _Judged:
        """Outputs and true codes of the rows to judge, and the codes of their groups where any are asked for."""
        predictor = Predictor(self.columns, self.model, allow_missing)
        judged = JudgedRows.of(self.path, self.figures, source, everything)
        drawn, rejected = Sample(most_rows(self.model.width), judged.parts, judged.part), 0
        by = groups.by if groups is not None else ()
        for part in predictor.stream(source, with_target=True, keep=by, chosen=drawn.wanted):
            truth = self.columns.target.encode(part.clean.columns[self.columns.target.name])
            more = () if groups is None else (groups.read(part.raw, part.clean.rows),)
            drawn.add(part.clean.rows, part.output, truth, *more)
            rejected += len(part.clean.rejected)
        columns = drawn.columns()
        if not known(columns[1]).any():
            raise DataError(
                f"{source.name}: must hold rows with a known target '{self.columns.target.name}'. Got none."
            )
        return _Judged(columns, rejected, judged.words() + drawn.words(), predictor.without)

    def explain(
        self, table: Any, method: str = "shap", of: str | None = None, evaluations: int = EVALUATIONS, seed: int = 0,
        allow_missing: bool = False, nearest: int = 0, training: Any = None,
    ) -> list[Explanation]:  # fmt: skip
        """Why the model says of each row what it says; hold the rows to a few, each costs up to ``evaluations``.

        Args:
            table: the rows, as for :meth:`predict`.
            method: shap, lime, gradient or attention.
            of: the class or label to explain; default: the one that the model gives.
            evaluations: most questions that shap and lime put to the model about one row.
            nearest: how many of the training rows most like each row to look for.
            training: the table it was trained on; default: where it lay then.

        Raises:
            UsageError: the method or the class is not known.
            DataError: a column that the model reads is absent, a row cannot be read, or the training rows.
        """
        if method not in METHODS:
            raise UsageError(
                f"method: must be one of {listing(METHODS)}. Got {method!r}.{did_you_mean(method, METHODS)}"
            )
        classes = self.columns.target.classes
        if of is not None and of not in classes:
            known_here = f"It may be {listing(classes)}." if classes else "The target is a number. Leave it out."
            raise UsageError(f"of: must be an answer of the run. Got {of!r}.{did_you_mean(of, classes)} {known_here}")
        trained = self._trained_on(training) if nearest else None
        source = Table.of(table)
        predictor = Predictor(self.columns, self.model, allow_missing)
        found: list[Explanation] = []
        place = None if of is None else classes.index(of)
        for clean in predictor.clean(source):
            check_readable(source.name, clean)
            told = explain(self.columns, self.model, clean, method, place, evaluations, seed)
            if trained is not None:
                parts = split_of(self.path)
                for why, near in zip(told, find_nearest(predictor, clean, trained, parts, nearest), strict=True):
                    why.nearest = near
            found += told
        if not found:
            raise DataError(f"{source.name}: must hold rows to explain. Got none.")
        return found

    def _trained_on(self, given: Any) -> Table:
        """The table it was trained on, as it was then."""
        source = self.settings.data.source if given is None else given
        if source is None:
            raise UsageError(
                "nearest: must find the training rows. The run was trained on a table in memory, which it does not "
                "keep. Give that table: --training DATA, or training=table."
            )
        try:
            table = Table.of(source) if given is not None else Table.open(source)
        except DataError as error:
            raise DataError(
                f"{error} The training rows are looked for there. Say where they are: --training."
            ) from None
        if table.fingerprint() != self.figures["data"]["fingerprint"]:
            raise DataError(
                f"{table.name}: must be the table that {self.path} was trained on, as it was then. Got another, or a "
                f"changed one. Give the old one with --training, or leave out --nearest."
            )
        return table

    def report(self, language: str | None = None) -> Path:
        """Write ``report.html`` again from ``report.json``, in English (en), Chinese (zh) or the language that the run
        was told; returns its path."""
        if language == "zh" and "task" in self.figures:
            raise UsageError("--language zh: only the report of a model of rows is written in Chinese. Leave it out.")
        return write_report(self.path, self.figures, language or self.settings.results.report or "en")

    def _outcomes(self, output: np.ndarray, truth: np.ndarray, positive: int | None) -> Outcomes:
        thresholds = self.model.threshold.cpu().numpy() if self.model.kind == "labels" else None
        return Outcomes(self.columns.target, output, truth, positive, thresholds)

    def _positive(self) -> int | None:
        positive = self.figures["target"].get("positive")
        return self.columns.target.classes.index(positive) if positive is not None else None

    def _predictor(self, allow_missing: bool) -> Any:
        """What answers the rows of a table: ``reader``, ``answer``, ``as_columns``, ``cut`` and ``without``."""
        return Predictor(self.columns, self.model, allow_missing)

    def _asked(self) -> dict[str, Any]:
        """What its predictions depend on beside the run."""
        return {}

    def _no_rows(self) -> Any:
        return np.zeros(0 if self.model.width is None else (0, self.model.width))

    def __repr__(self) -> str:
        return f"Run('{self.path}')"

    def _repr_html_(self) -> str:
        return in_notebook(self.path, self.figures, self.settings.results.report or "en")


def check_readable(name: str, clean: CleanBatch) -> None:
    """Raises DataError for the first row of a table that was set aside."""
    for bad in clean.rejected:
        raise DataError(f"{name}: row {bad.row}, column '{bad.column}': {bad.reason}. Correct it.")
