"""Weft's estimators against scikit-learn's own suite, and in what its users put them into."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from tests.tables import mixed

import weft
from weft.errors import DataError, SettingsError
from weft.sklearn import WeftClassifier, WeftRegressor

TINY = {"model": {"width": 16, "layers": 1}, "training": {"epochs": 3, "batch_rows": 32}}


def rows(count=200, seed=0):
    frame = mixed(count, seed).to_pandas()
    return frame.drop(columns="bought"), frame["bought"]


@pytest.fixture(scope="module")
def fitted():
    return WeftClassifier(model=TINY["model"], training={"epochs": 12, "batch_rows": 32}).fit(*rows(400))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WeftClassifier, WeftRegressor])
def test_passes_the_suite_of_scikit_learn(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(kind(model=TINY["model"]), on_fail=None)
    assert not [(d["check_name"], d["exception"]) for d in done if d["status"] not in ("passed", "skipped")]
    assert [d["check_name"] for d in done if d["status"] == "skipped"] == ["check_array_api_input"]  # no array API here
    assert len(done) > 45


@pytest.mark.parametrize(("kind", "load", "least"), [
    (WeftClassifier, load_breast_cancer, 0.92), (WeftRegressor, load_diabetes, 0.35),
])  # fmt: skip
def test_learns_in_a_pipeline_judged_by_cross_validation(kind, load, least):
    X, y = load(return_X_y=True)
    assert cross_val_score(make_pipeline(StandardScaler(), kind(training={"epochs": 5})), X, y, cv=3).mean() > least


class TestATableOfAnyColumns:
    def test_tells_its_columns_names_and_classes(self, fitted):
        assert fitted.feature_names_in_.tolist() == ["price", "colour", "when", "review"]
        assert fitted.n_features_in_ == 4 and fitted.classes_.tolist() == ["no", "yes"]
        assert {c["name"]: c["type"] for c in fitted.run_.figures["columns"]} == {
            "price": "number", "colour": "category", "when": "time", "review": "text"}  # fmt: skip

    def test_answers_as_its_run_does(self, fitted):
        X, y = rows(80, seed=5)
        assert fitted.score(X, y) > 0.7
        told = fitted.run_.predict(X)
        np.testing.assert_allclose(
            fitted.predict_proba(X), told[["probability of no", "probability of yes"]], atol=1e-6
        )
        assert fitted.predict(X).tolist() == told["prediction"].tolist()

    @pytest.mark.parametrize("kind", [pl.from_pandas, pa.Table.from_pandas])
    def test_of_another_kind_is_answered_alike(self, fitted, kind):
        X, _ = rows(40, seed=6)
        assert (fitted.predict_proba(kind(X)) == fitted.predict_proba(X)).all()

    def test_says_what_is_wrong_with_rows(self, fitted):
        X, y = rows(40)
        with pytest.raises(ValueError, match="feature names should match"):
            fitted.predict(X.rename(columns={"price": "cost"}))
        with pytest.raises(DataError, match="row 0, column 'price': must be a number, is 'cheap'"):
            fitted.predict(X.assign(price="cheap"))
        with pytest.raises(DataError, match=r"X and y: must have equally many rows\. Got 40 and 39"):
            WeftClassifier(**TINY).fit(X, y[:-1])
        with pytest.raises(DataError, match="at least two classes"):
            WeftClassifier(**TINY).fit(X, ["a"] * 40)
        with pytest.raises(SettingsError, match="'epoch' is not a setting"):
            WeftClassifier(training={"epoch": 3}).fit(X, y)
        with pytest.raises(NotFittedError):
            WeftClassifier().predict(X)

    def test_texts_of_an_array_are_read_as_texts(self):
        X, y = rows()
        given = X[["colour", "review"]].to_numpy(object)
        model = WeftClassifier(**TINY).fit(given, y)
        assert {c["type"] for c in model.run_.figures["columns"]} == {"category", "text"}
        assert model.predict(given).shape == (200,)
        frame = ColumnTransformer([("price", SimpleImputer(), ["price"])], remainder="passthrough")
        frame.set_output(transform="pandas")
        piped = make_pipeline(frame, WeftClassifier(**TINY)).fit(X, y)
        assert piped.predict(X[:5]).shape == (5,)


@pytest.mark.parametrize("classes", [
    [0, 1], [-1, 1], [False, True], ["a", "a "], ["NA", "b"], ["<=50K", ">50K"], ["1", "1.0"],
])  # fmt: skip
def test_classes_come_back_as_they_were(classes):
    X = np.r_[np.zeros((20, 1)), np.ones((20, 1))]
    y = np.repeat(np.array(classes, object if isinstance(classes[0], str) else None), 20)
    model = WeftClassifier(training={"epochs": 30, "batch_rows": 8}, model=TINY["model"]).fit(X, y)
    assert (model.predict(X) == y).mean() > 0.9 and (model.classes_ == np.array(classes)).all()


class TestASearch:
    def test_reaches_one_setting_of_a_section(self):
        model = clone(WeftClassifier(**TINY)).set_params(training__epochs=7, model__width=32)
        assert model.training == {"epochs": 7, "batch_rows": 32} and model.model == {"width": 32, "layers": 1}
        assert TINY["training"]["epochs"] == 3
        with pytest.raises(ValueError, match="Invalid parameter 'epochs'"):
            model.set_params(epochs=3)

    @pytest.mark.slow
    def test_over_settings_in_processes(self):
        X, y = rows()
        grid = GridSearchCV(WeftClassifier(**TINY), {"training__epochs": [1, 12]}, cv=2, n_jobs=2).fit(X, y)
        assert grid.best_params_ == {"training__epochs": 12}
        found = cross_validate(WeftClassifier(**TINY), X, y, cv=2, n_jobs=2, return_estimator=True)
        assert all(model.predict(X[:5]).shape == (5,) for model in found["estimator"])  # though their folder is gone


def test_a_pickle_holds_the_run_and_not_its_folder(fitted, tmp_path):
    X, _ = rows(40, seed=6)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all() and again.run_.path != fitted.run_.path
    folder = again.run_.path
    assert isinstance(weft.load(folder).predict(X), pd.DataFrame)
    del again
    assert not folder.exists() and fitted.run_.path.exists()
