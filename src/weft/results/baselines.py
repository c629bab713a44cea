"""The models that a large model must beat to be worth its cost: trivial, linear, boosted trees.

They see the same rows as Weft's model (training and validation together) and are judged on the same test
rows. Settings are scikit-learn's defaults, untuned; where a row has any number of labels there is a model for each
label, and every fifth row chooses the thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from weft.preprocess.pictures import resized, unpacked
from weft.training.thresholds import f1_threshold, label_thresholds

MOST_ROWS, MOST_LETTERS = 100_000, 10_000_000
MOST_LABELS = 50
MOST_PIXELS = 14
"""Of a side of a picture, whose every pixel is a number to these models."""


@dataclass
class Baseline:
    """``output``: probabilities [N, C] or numbers [N] on the test rows; ``thresholds``: of labels [L]."""

    key: str
    title: str
    note: str
    output: np.ndarray
    seconds: float
    thresholds: np.ndarray | None = None


Columns = Mapping[str, pa.Array]


def trivial(target: np.ndarray, rows: int, classes: int | None) -> Baseline:
    """Always the shares of the classes, or the mean."""
    if classes is None:
        return Baseline("trivial", "Always the mean", "", np.full(rows, float(target.mean())), 0.0)
    if target.ndim == 2:
        share = target.mean(axis=0)
        threshold = f1_threshold(np.tile(share, (len(target), 1)).ravel(), target.ravel())
        thresholds = np.full(classes, threshold)
        return Baseline("trivial", "Always the same labels", "", np.tile(share, (rows, 1)), 0.0, thresholds)
    share = np.bincount(target, minlength=classes) / len(target)
    return Baseline("trivial", "Always the most frequent class", "", np.tile(share, (rows, 1)), 0.0)


def linear(
    types: Mapping[str, str], train: Columns, target: np.ndarray, test: Columns, classes: int | None
) -> Baseline:
    """Logistic or ridge regression: scaled numbers, one-hot categories, TF-IDF of words and pairs of words, pixels."""
    from sklearn.linear_model import LogisticRegression, Ridge

    start = time.monotonic()
    x, z = _linear_matrices(types, train, test)
    words = " on TF-IDF of the texts" if "text" in types.values() else ""
    thresholds = None
    if classes is None:
        model: Any = Ridge(alpha=1.0).fit(x, target)
        output, title = model.predict(z), f"Ridge regression{words}"
    elif target.ndim == 2:
        output, thresholds = _each_label(lambda: LogisticRegression(max_iter=300), x, target, z)
        title = f"Logistic regression{words}, one a label"
    else:
        model = LogisticRegression(max_iter=300).fit(x, target)
        output, title = _spread(model.predict_proba(z), model.classes_, classes), f"Logistic regression{words}"
    return Baseline("linear", title, "", output, time.monotonic() - start, thresholds)


def boosted_trees(
    types: Mapping[str, str], train: Columns, target: np.ndarray, test: Columns, classes: int | None
) -> Baseline | None:
    """Histogram gradient boosting on every column but texts and histories, of pictures on their pixels; None where
    there is no other column, or too many labels to train trees for each."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    used = {name: kind for name, kind in types.items() if kind not in ("text", "sequence")}
    if not used or (target.ndim == 2 and target.shape[1] > MOST_LABELS):
        return None
    start = time.monotonic()
    x, z, categorical = _tree_matrix(used, train, test)
    thresholds = None
    kind = HistGradientBoostingRegressor if classes is None else HistGradientBoostingClassifier
    make = partial(kind, categorical_features=categorical, random_state=0)
    if target.ndim == 2:
        output, thresholds = _each_label(make, x, target, z)
    else:
        model = make().fit(x, target)
        output = model.predict(z) if classes is None else _spread(model.predict_proba(z), model.classes_, classes)
    note = "the texts are left out" if len(used) < len(types) else ""
    return Baseline("trees", "Gradient-boosted trees", note, output, time.monotonic() - start, thresholds)


def _each_label(make: Callable[[], Any], x: Any, target: np.ndarray, z: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, L] of a model for each label, and thresholds that every fifth row chose for another model."""

    def fitted(rows: np.ndarray, asked: Any) -> np.ndarray:
        output = np.empty((asked.shape[0], target.shape[1]))
        for place, truth in enumerate(target[rows].T):
            constant = truth.min() == truth.max()
            output[:, place] = truth[0] if constant else make().fit(x[rows], truth).predict_proba(asked)[:, 1]
        return output

    apart = np.arange(len(target)) % 5 == 4
    thresholds = label_thresholds(fitted(np.flatnonzero(~apart), x[np.flatnonzero(apart)]), target[apart])
    return fitted(np.arange(len(target)), z), thresholds


def _linear_matrices(types: Mapping[str, str], train: Columns, test: Columns) -> list[Any]:
    """What the linear model reads of the training and the test rows."""
    readers = [(name, read) for name, kind in types.items() if (read := _reader(kind, train[name])) is not None]
    found = []
    for columns in (train, test):
        joined: Any = np.zeros((len(next(iter(columns.values()))), 1))
        if readers:
            joined = sparse.hstack([read(columns[name]) for name, read in readers]).tocsr()
            joined = joined if joined.shape[1] > 2_000 else joined.toarray()
        found.append(joined)
    return found


def _reader(kind: str, learnt: pa.Array) -> Callable[[pa.Array], Any] | None:
    """What makes numbers of a column, learnt from its training rows; None where they hold nothing to learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if kind == "text":
        texts = _texts(learnt)
        wide = sum(any("\u2e80" <= c <= "\u9fff" for c in t) for t in texts[:1000]) > 0.3 * len(texts[:1000])
        vector = TfidfVectorizer(
            analyzer="char" if wide else "word", ngram_range=(1, 2), min_df=2, max_features=200_000,
            token_pattern=None if wide else r"(?u)\b\w+\b", sublinear_tf=True,
        )  # fmt: skip
        try:
            vector.fit(texts)
        except ValueError:  # no word occurs twice
            return None
        return lambda array: vector.transform(_texts(array))
    if kind == "sequence":
        bag = TfidfVectorizer(analyzer=list, max_features=200_000, sublinear_tf=True)
        lists = _items(learnt)
        return (lambda array: bag.transform(_items(array))) if any(lists) and bag.fit(lists) else None
    if kind == "category":
        coder = OneHotEncoder(handle_unknown="ignore", max_categories=1_000).fit(_words(learnt))
        return lambda array: coder.transform(_words(array))
    if kind == "image":
        side = _side(learnt)
        return lambda array: sparse.csr_matrix(np.nan_to_num(_pixels(array, side)))
    values = _numbers(learnt)
    middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
    scaler = StandardScaler().fit(np.nan_to_num(values, nan=middle))

    def read(array: pa.Array) -> Any:
        values = _numbers(array)
        scaled = scaler.transform(np.nan_to_num(values, nan=middle))
        return sparse.csr_matrix(np.hstack([scaled, np.isnan(values).astype(np.float64)]))

    return read


def _tree_matrix(types: Mapping[str, str], train: Columns, test: Columns) -> tuple[np.ndarray, np.ndarray, list[int]]:
    from sklearn.preprocessing import OrdinalEncoder

    x, z, categorical = [], [], []
    for name, kind in types.items():
        if kind == "category":
            coder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan,
                                   encoded_missing_value=np.nan, max_categories=250)  # fmt: skip
            x.append(coder.fit_transform(_words(train[name])))
            z.append(coder.transform(_words(test[name])))
            if np.nanmax(x[-1], initial=0) < 254:
                categorical.append(sum(part.shape[1] for part in x) - 1)
        elif kind == "image":
            side = _side(train[name])
            x.append(_pixels(train[name], side))
            z.append(_pixels(test[name], side))
        else:
            x.append(_numbers(train[name]))
            z.append(_numbers(test[name]))
    return np.hstack(x), np.hstack(z), categorical


def _spread(probabilities: np.ndarray, seen: np.ndarray, classes: int) -> np.ndarray:
    """Columns for classes that the (sampled) training rows did not hold."""
    wide = np.full((len(probabilities), classes), 1e-12)
    wide[:, seen] = probabilities
    return wide / wide.sum(axis=1, keepdims=True)


def _texts(array: pa.Array) -> list[str]:
    return [t or "" for t in array.to_pylist()]


def _items(array: pa.Array) -> list[list[str]]:
    """The ids of each history."""
    return [[event["item"] for event in cell or ()] for cell in array.to_pylist()]


def _words(array: pa.Array) -> np.ndarray:
    return np.array([w if w is not None else "(missing)" for w in array.to_pylist()], dtype=object)[:, None]


def _side(pictures: pa.Array) -> int:
    """Pixels a side that these models see: as the largest picture has, at most ``MOST_PIXELS``."""
    return min(MOST_PIXELS, max([1, *(max(p.shape[:2]) for p in unpacked(pictures) if p is not None)]))


def _pixels(pictures: pa.Array, side: int) -> np.ndarray:
    """Grey pixels [N, side * side] from 0 to 1; NaN where there is no picture."""
    found = np.full((len(pictures), side * side), np.nan, np.float32)
    for place, picture in enumerate(unpacked(pictures)):
        if picture is not None:
            found[place] = resized(picture, side, 1).ravel() / np.float32(255)
    return found


def _numbers(array: pa.Array) -> np.ndarray:
    return np.clip(array.to_numpy(zero_copy_only=False).astype(np.float64), -1e100, 1e100)[:, None]
