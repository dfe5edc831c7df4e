"""scikit-learn models answer as their own predict_proba does, from arrays, and untrusted ones are not run."""

from __future__ import annotations

import io
import logging
import os
import pickle
import warnings

import cloudpickle
import joblib
import kinds
import numpy as np
import pytest
import sklearn
import skops.io
from kinds import FRESH, NUMBERS, X, Y, frame, linear
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)

from kickserve.errors import ModelUnusable
from kickserve.features import NAMES

BACKWARDS = NAMES[::-1]


@pytest.fixture
def load(tmp_path):
    """Load an estimator, or bytes, by way of a file."""

    def load(made, ending=".skops", **environ):
        file = tmp_path / f"kicks{ending}"
        if not isinstance(made, bytes):
            made = skops.io.dumps(made) if ending == ".skops" else cloudpickle.dumps(made)
        file.write_bytes(made)
        return kinds.load(file, KICKSERVE_ALLOW_PICKLE="1", **environ)

    return load


def columns(number, rest="passthrough", places=(0, 1, 2, 3, 4)):
    return ColumnTransformer([("n", number, list(places))], remainder=rest)


LINEAR = {
    "as published": columns(StandardScaler()),
    "by name": columns(StandardScaler(), places=NUMBERS),
    "by selector": ColumnTransformer([("n", MinMaxScaler(), make_column_selector(pattern="dist|ang"))]),
    "scaled remainder": columns(RobustScaler(), MaxAbsScaler()),
    "dropped remainder": columns(make_pipeline(SimpleImputer(), StandardScaler()), "drop"),
    "all": StandardScaler(with_mean=False),
    "none": FunctionTransformer(),
    "by mask": ColumnTransformer(
        [("n", StandardScaler(), [True] * 5 + [False] * 6), ("p", "passthrough", slice(5, 8))]
    ),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_pipeline_is_computed_from_its_weights(load, name):
    estimator = make_pipeline(sklearn.base.clone(LINEAR[name]), LogisticRegression(max_iter=10_000))
    order = NAMES if name == "by mask" else BACKWARDS
    named = name not in {"as published", "by mask"}
    estimator.fit(frame(X, order) if named else X, Y)
    model = load(estimator)
    assert model.card.kind == "sklearn-linear"
    expected = estimator.predict_proba(frame(FRESH, order) if named else FRESH)[:, 1]
    assert np.abs(model.predict(FRESH).probability - expected).max() < 1e-12
    one = [model.predict_one(row)[0] for row in FRESH.tolist()]
    assert np.abs(np.array(one) - expected).max() < 1e-12


BENT = {
    "clipped": MinMaxScaler(clip=True),
    "by threshold": columns(Binarizer(threshold=0.999), places=[0]),
    "by function": FunctionTransformer(np.sqrt),
    "a number is missing": SimpleImputer(missing_values=0.0),
    "two steps": make_pipeline(StandardScaler(), SplineTransformer(), MaxAbsScaler()),
}


@pytest.mark.parametrize("name", BENT)
def test_a_pipeline_with_a_step_that_bends_is_not_read_off(load, name):
    estimator = make_pipeline(sklearn.base.clone(BENT[name]), LogisticRegression(max_iter=2_000)).fit(X, Y)
    model = load(estimator, ".pkl")
    assert model.card.kind == "sklearn"
    expected = estimator.predict_proba(FRESH)[:, 1]
    assert np.abs(model.predict(FRESH).probability - expected).max() < 1e-12


OTHERS = {
    "voted": VotingClassifier(
        [
            ("forest", RandomForestClassifier(5, n_jobs=2, random_state=0)),
            ("histogram", HistGradientBoostingClassifier(max_iter=5)),
        ],
        voting="soft",
    ),
    "bent before it is boosted": make_pipeline(
        ColumnTransformer([("p", PolynomialFeatures(), NUMBERS)], remainder="passthrough"),
        GradientBoostingClassifier(n_estimators=5),
    ),
    "splines": make_pipeline(
        ColumnTransformer([("s", SplineTransformer(), NUMBERS)], remainder="passthrough"),
        LogisticRegression(max_iter=5_000),
    ),
    "calibrated": CalibratedClassifierCV(
        make_pipeline(columns(StandardScaler(), places=NUMBERS), LogisticRegression()), cv=2
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_fitted_to_a_dataframe_are_asked_with_arrays(load, name):
    estimator = sklearn.base.clone(OTHERS[name]).fit(frame(X, BACKWARDS), Y)
    model = load(estimator)
    assert model.card.kind == "sklearn"
    expected = estimator.predict_proba(frame(FRESH, BACKWARDS))[:, 1]
    assert np.abs(model.predict(FRESH).probability - expected).max() < 1e-12


class Named(LogisticRegression):
    """Has names that can't be taken away, as LightGBM's classifiers do: an array is warned of each time."""

    feature_names_in_ = property(lambda _: np.array(NAMES), lambda *_: None, lambda _: None)


def test_a_classifier_that_warns_of_each_array_is_quiet(load):
    model = load(Named(max_iter=500).fit(frame(X), Y), ".pkl")
    with warnings.catch_warnings(record=True) as warned:
        model.predict(FRESH)
    assert not warned


def test_a_step_that_looks_for_names_itself_gets_them(load):
    step = FunctionTransformer(lambda kicks: np.column_stack([kicks["distance"], kicks["angle"] ** 2]))
    estimator = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(frame(X, BACKWARDS), Y)
    expected = estimator.predict_proba(frame(FRESH, BACKWARDS))[:, 1]
    assert np.abs(load(estimator, ".pkl").predict(FRESH).probability - expected).max() < 1e-12


@pytest.mark.parametrize(
    ("make", "classes"), [(linear, [1, 0]), (lambda: RandomForestClassifier(3).fit(X, Y), [True, False])]
)
def test_the_order_of_the_classes_is_honoured(load, make, classes):
    estimator = pickle.loads(pickle.dumps(make()))  # noqa: S301  made here
    final = estimator[-1] if hasattr(estimator, "steps") else estimator
    final.classes_ = np.array(classes)
    expected = estimator.predict_proba(FRESH)[:, 0]
    assert load(estimator).predict(FRESH).probability == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "setting"),
    [(["miss", "goal"], "Goal"), (["Goal", "Miss"], "miss"), ([1, 2], "2"), ([-1.0, 1.0], "1")],
)
@pytest.mark.parametrize("make", [LogisticRegression, lambda: RandomForestClassifier(3, random_state=0)])
def test_other_labels_than_0_and_1_are_told_apart_by_the_setting(load, make, labels, setting):
    estimator = make_pipeline(StandardScaler(), make()).fit(X, np.array(labels)[Y])
    model = load(estimator, KICKSERVE_SUCCESS_LABEL=setting)
    succeeds = estimator.classes_.tolist().index(labels[1])
    expected = estimator.predict_proba(FRESH)[:, succeeds]
    assert model.predict(FRESH).probability == pytest.approx(expected, abs=1e-12)
    for wrong in ("", "other"):
        with pytest.raises(ModelUnusable, match=rf"labels are .*{labels[1]}.*: set KICKSERVE_SUCCESS_LABEL"):
            load(estimator, KICKSERVE_SUCCESS_LABEL=wrong)


def test_a_pickle_by_joblib_is_read_compressed_or_not(load):
    for compress in (0, 3):
        file = io.BytesIO()
        joblib.dump(linear(), file, compress=compress)
        model = load(file.getvalue(), ".joblib")
        assert model.predict(FRESH).probability == pytest.approx(linear().predict_proba(FRESH)[:, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearRegression().fit(X, Y), "a LinearRegression without predict_proba: wrap"),
        (
            lambda: RandomForestClassifier(2).fit(X, np.arange(len(X)) % 3),
            "labels are 0, 1, 2, and must",
        ),
        (lambda: RandomForestClassifier(2).fit(X[:, :9], Y), "takes 9 features, and must take the eleven"),
        (
            lambda: RandomForestClassifier(2).fit(frame(X).rename(columns={"angle": "azimuth"}), Y),
            "lacks angle and asks for azimuth",
        ),
        (RandomForestClassifier, "its labels are not known"),
        (lambda: {"a": 1}, "a dict without predict_proba"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_words(load, make, words):
    with pytest.raises(ModelUnusable, match=words):
        load(make())


def test_a_model_that_gives_no_numbers_is_refused(load):
    estimator = sklearn.base.clone(linear()).fit(X, Y)
    estimator[-1].coef_ = estimator[-1].coef_ * np.nan
    with pytest.raises(ModelUnusable, match=r"tried on a few kicks, .* an invalid probability"):
        load(estimator)


def test_a_model_of_another_version_is_loaded_and_says_so(load, caplog):
    old = cloudpickle.dumps(linear()).replace(sklearn.__version__.encode(), b"1.7.2")
    with caplog.at_level(logging.WARNING, "kickserve"):
        model = load(old, ".pkl")
    words = f"The model was made with scikit-learn 1.7.2 and is loaded with {sklearn.__version__}"
    assert words in model.card.description
    assert [words in record.getMessage() for record in caplog.records] == [True]


# What is not trusted.


class Unknown(LogisticRegression):
    """A class that is on no list."""


@pytest.mark.parametrize(
    ("estimator", "name"),
    [(Unknown(), "Unknown"), (make_pipeline(FunctionTransformer(os.system), LogisticRegression()), "system")],
)
def test_a_skops_file_with_an_unknown_type_is_refused_by_name(load, estimator, name):
    with pytest.raises(ModelUnusable, match=rf"does not trust: .*{name}\. Nothing of it was run\. Export"):
        load(estimator)


@pytest.mark.parametrize("data", [b"PK", skops.io.dumps(linear())[:2_000], b"\x80\x04."])
def test_a_skops_file_that_is_spoilt_is_refused(load, data):
    with pytest.raises(ModelUnusable, match="skops can't read it"):
        load(data)


@pytest.mark.parametrize(
    ("step", "attribute", "value"),
    [
        (0, "feature_names_in_", 5),
        (1, "classes_", np.array(1)),
        (1, "classes_", None),
        (1, "intercept_", np.array([1.0, 2.0])),
    ],
)
def test_a_skops_file_with_something_else_in_it_is_refused_in_words(load, step, attribute, value):
    pipeline = make_pipeline(StandardScaler(with_std=False), LogisticRegression(max_iter=500)).fit(X, Y)
    setattr(pipeline[step], attribute, value)
    with pytest.raises(ModelUnusable, match="it is not as scikit-learn makes it"):
        load(pipeline)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"junk", "can't be unpickled"),
        (cloudpickle.dumps(linear())[:500], "can't be unpickled"),
        (
            b"cno_module\nThing\n.",
            "needs the module no_module, which is not installed: install",
        ),
        (
            b"c__main__\nstep\n.",
            "it lacks what its script defines: pickle it with cloudpickle",
        ),
    ],
)
def test_a_pickle_that_is_spoilt_is_refused(load, data, words):
    with pytest.raises(ModelUnusable, match=words):
        load(data, ".pkl")


@pytest.mark.parametrize(
    ("field", "value"),
    [("left_child", 0), ("right_child", 4_000_000), ("feature", 4_000_000), ("feature", 11)],
)
def test_a_tree_that_points_anywhere_is_refused_before_it_predicts(load, field, value):
    forest = RandomForestClassifier(1, random_state=0).fit(X, Y)
    tree = forest.estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    with pytest.raises(ModelUnusable, match=r"leads nowhere, or back|splits on an unknown feature"):
        load(forest)


@pytest.mark.parametrize(
    ("field", "value"), [("left", 0), ("right", 4_000_000), ("feature_idx", 11), ("is_categorical", 1)]
)
def test_a_tree_of_histograms_that_points_anywhere_is_refused(load, field, value):
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    boosted._predictors[0][0].nodes[field][0] = value
    with pytest.raises(ModelUnusable, match="a tree of it"):
        load(boosted)


def test_a_forest_of_fewer_features_than_its_trees_is_refused(load):
    forest = RandomForestClassifier(2, random_state=0).fit(np.hstack([X, X]), Y)
    forest.n_features_in_ = len(NAMES)
    with pytest.raises(ModelUnusable, match="splits on an unknown feature"):
        load(forest)
