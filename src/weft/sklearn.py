"""Weft as scikit-learn estimators, for its pipelines, searches and cross-validation.

    GridSearchCV(WeftClassifier(), {"training__epochs": [5, 10], "model__width": [32, 64]}).fit(frame, answers)

``X`` is a table of any columns (pandas, polars, Arrow, DuckDB, Hugging Face datasets), whose kinds are guessed unless
``features`` says them, or an array, whose numbers are numbers.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from weft import config, pipeline
from weft.data.table import RawBatch, Table, kind_of_table
from weft.errors import DataError
from weft.inference.predict import Predictor
from weft.preprocess.clean import Cleaner, ColumnPlan
from weft.preprocess.letters import Letters
from weft.progress import Silent, Spoken
from weft.runs.run import Run, check_readable

SECTIONS = ("data", "preprocess", "features", "model", "training", "results")


class _Estimator(BaseEstimator):
    """What the two share. Its parameters are the sections of a pipeline file, as mappings.

    Every row that it is given is learnt from, but those that are watched (``data={"split": {"valid": 0.1}}``). Once
    fitted, ``run_`` is the run; its folder lives as long as it does, and as bytes inside a pickle of the estimator.
    """

    target_type: str

    def __init__(
        self, *, data: Mapping[str, Any] | None = None, preprocess: Mapping[str, Any] | None = None,
        features: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None, results: Mapping[str, Any] | None = None, verbose: bool = False,
    ):  # fmt: skip
        self.data = data
        self.preprocess = preprocess
        self.features = features
        self.model = model
        self.training = training
        self.results = results
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """... also one setting of a section: ``training__epochs=5``."""
        own: dict[str, Any] = {}
        for name, value in params.items():
            section, _, key = name.partition("__")
            if key and section in SECTIONS:
                own[section] = {**(own.get(section) or getattr(self, section) or {}), key: value}
            else:
                own[name] = value
        return super().set_params(**own)

    def _fit(self, X: Any, answers: pa.Array) -> Self:
        table, numbers = self._table(X, reset=True)
        if table.num_rows != len(answers):
            raise DataError(f"X and y: must have equally many rows. Got {table.num_rows} and {len(answers)}.")
        if table.num_rows < 2:
            raise DataError(f"X: must have at least 2 rows to learn from. Got n_samples = {table.num_rows}.")
        target = "target"
        while target in table.column_names:
            target += "_"
        given = {name: dict(getattr(self, name) or {}) for name in SECTIONS}
        split = {"test": 0.0, **given["data"].pop("split", {})}
        settings = config.from_mapping({
            **given, "target": {"column": target, "type": self.target_type}, "data": {"split": split, **given["data"]},
            "features": {**dict.fromkeys(numbers, "number"), **given["features"]},
            "results": {"baselines": False, "explain": "off", **given["results"]},
        })  # fmt: skip
        folder = Path(tempfile.mkdtemp(prefix="weft-"))
        try:
            source = Table.of(table.append_column(target, answers))
            run = pipeline.run(settings, source, folder, Spoken() if self.verbose else Silent())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.run_ = _kept(run)
        return self

    def _table(self, X: Any, reset: bool) -> tuple[pa.Table, list[str]]:
        """The rows, and which columns hold numbers for sure; sets or checks the names and how many there are."""
        if hasattr(X, "__arrow_c_stream__") or kind_of_table(X) == "datasets":
            table = Table.of(X)
            found = table.head(table.row_count() or 0)
            named = X if kind_of_table(X) == "pandas" else found
            validate_data(self, named, reset=reset, skip_check_array=True)
            return found, []
        values = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan", order="F")
        if values.dtype.kind not in "OUSbiuf":
            raise DataError(f"X: must hold numbers or texts. Got {values.dtype}.")
        names = [f"x{place}" for place in range(values.shape[1])]
        columns = [_column(values[:, place]) for place in range(values.shape[1])]
        numbers = [n for n, c in zip(names, columns, strict=True) if pa.types.is_floating(c.type)]
        return pa.table(columns, names=names), numbers

    def _outputs(self, X: Any) -> np.ndarray:
        """Answers to rows in their order: probabilities of the run's classes [N, C], or numbers [N]."""
        check_is_fitted(self)
        table, _ = self._table(X, reset=False)
        predictor, found = Predictor(self.run_.columns, self.run_.model), []
        for part in predictor.stream(Table.of(table)):
            check_readable("X", part.clean)
            found.append(part.output)
        return np.concatenate(found)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "run_" in state:
            path = state["run_"].path
            state["run_"] = {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "run_" in state:
            folder = Path(tempfile.mkdtemp(prefix="weft-"))
            for name, content in state["run_"].items():
                (folder / name).write_bytes(content)
            state = {**state, "run_": _kept(Run(folder))}
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = True
        return tags


class WeftClassifier(ClassifierMixin, _Estimator):
    """Predicts a class of each row. ``classes_``: those of ``y``, in order."""

    target_type = "class"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows and their classes [N]."""
        y = validate_data(self, "no_validation", y)
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y: must hold at least two classes. Got one class or none, {self.classes_.tolist()}.")
        preprocess = config.from_mapping({"target": "y", "preprocess": dict(self.preprocess or {})}).preprocess
        names = _names(self.classes_, Letters.of(preprocess))
        self._fit(X, pa.array(names).take(pa.array(places)))
        learnt = [names.index(name) for name in self.run_.columns.target.classes]
        self._places = np.array(learnt, np.int64)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class [N, C]; none of a class that no row to learn from had."""
        outputs = self._outputs(X)
        found = np.zeros((len(outputs), len(self.classes_)))
        found[:, self._places] = outputs[:, : len(self._places)]
        return found / found.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row [N]."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(axis=1)]


class WeftRegressor(RegressorMixin, _Estimator):
    """Predicts a number of each row."""

    target_type = "number"

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows and their numbers [N]."""
        y = validate_data(self, "no_validation", y, y_numeric=True)
        return self._fit(X, pa.array(np.asarray(y, np.float64)))

    def predict(self, X: Any) -> np.ndarray:
        """The number of each row [N]."""
        return self._outputs(X)


def _kept(run: Run) -> Run:
    """A run whose folder goes when it does."""
    weakref.finalize(run, shutil.rmtree, run.path, True)
    return run


def _column(values: np.ndarray) -> pa.Array:
    """A column of an array [N]: numbers where all are, else texts as they are written."""
    try:
        return pa.array(values.astype(np.float64), from_pandas=False)
    except (TypeError, ValueError):
        return pa.array([None if v is None or v != v else str(v) for v in values.tolist()], pa.string())


def _names(classes: np.ndarray, letters: Letters) -> list[str]:
    """The classes as words that a run tells apart: as they are written where that is so, else their numbers."""
    written = [str(name) for name in classes.tolist()]
    batch = pa.record_batch({"y": pa.array(written, pa.string())})
    read = Cleaner({"y": ColumnPlan("category")}, letters)(RawBatch(np.arange(len(written)), batch)).columns["y"]
    words = read.to_pylist()
    return words if len({*words} - {None}) == len(written) else [str(place) for place in range(len(written))]
