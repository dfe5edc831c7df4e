"""Trees read off a classifier answer as its library does, for kicks right at their thresholds too."""

from __future__ import annotations

import cloudpickle
import kinds
import numpy as np
import pytest
from kinds import FRESH, NUMBERS, X, Y, frame
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from kickserve.errors import ModelUnusable
from kickserve.features import NAMES
from kickserve.plugins import AnswersOne, Cancellable

BACKWARDS = NAMES[::-1]
SINGLE = 2.0**-23  # by how much the C library of XGBoost may round otherwise


@pytest.fixture
def load(tmp_path):
    """Load an estimator by way of a pickle, or the bytes of a file."""

    def load(made, ending=".pkl", **environ):
        file = tmp_path / f"kicks{ending}"
        file.write_bytes(made if isinstance(made, bytes) else cloudpickle.dumps(made))
        return kinds.load(file, KICKSERVE_ALLOW_PICKLE="1", **environ)

    return load


def at_thresholds(model, most=3_000):
    """Kicks whose features are just where trees split, and one step of double precision beyond."""
    walk, random = model._walk, np.random.default_rng(0)
    nodes = np.flatnonzero(np.isfinite(walk._threshold) & (walk._threshold >= 0))
    nodes = random.permutation(nodes)[:most]
    kicks = np.repeat(FRESH[random.integers(len(FRESH), size=len(nodes))], 2, axis=0)
    here, features = np.arange(0, len(kicks), 2), walk._feature[nodes]
    kicks[here, features] = walk._threshold[nodes]
    kicks[here + 1, features] = np.nextafter(walk._threshold[nodes], np.inf)
    return kicks


def agree(model, expected, most=1e-9):
    """Compare a model with what its library says, for kicks together and alone."""
    kicks = np.vstack([FRESH, at_thresholds(model)])
    found = model.predict(kicks).probability
    assert np.abs(found - expected(kicks)).max() <= most
    assert [model.predict_one(row)[0] for row in kicks[-300:].tolist()] == found[-300:].tolist()


def scaled(scaler, last):
    return make_pipeline(ColumnTransformer([("n", scaler, NUMBERS)], remainder="passthrough"), last)


WALKED = {
    "forest": RandomForestClassifier(30, random_state=0),
    "balanced forest": RandomForestClassifier(10, class_weight="balanced", max_depth=6, random_state=0),
    "extra trees": ExtraTreesClassifier(20, random_state=0),
    "tree": DecisionTreeClassifier(min_samples_leaf=5),
    "boosted": GradientBoostingClassifier(n_estimators=30),
    "boosted from 0": GradientBoostingClassifier(n_estimators=10, init="zero", loss="exponential"),
    "histogram": HistGradientBoostingClassifier(max_iter=5),
    "monotone": HistGradientBoostingClassifier(max_iter=5, monotonic_cst={"distance": -1}),
    "scaled forest": scaled(StandardScaler(), RandomForestClassifier(10, random_state=0)),
    "scaled histogram": scaled(RobustScaler(), HistGradientBoostingClassifier(max_iter=3)),
    "all scaled": make_pipeline("passthrough", MinMaxScaler(), ExtraTreesClassifier(5, random_state=0)),
    "calibrated": CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=3),
    "calibrated by steps": CalibratedClassifierCV(
        scaled(StandardScaler(), GradientBoostingClassifier(n_estimators=5)), cv=2, method="isotonic"
    ),
}


@pytest.mark.parametrize("name", WALKED)
def test_trees_are_walked_to_the_same_leaves(load, name):
    estimator = clone(WALKED[name]).fit(frame(X, BACKWARDS), Y)
    model = load(estimator)
    assert model.card.kind == "sklearn-trees"
    assert isinstance(model, AnswersOne)
    assert not isinstance(model, Cancellable)  # so it answers in the event loop
    agree(model, lambda kicks: estimator.predict_proba(frame(kicks, BACKWARDS))[:, 1])


def test_a_label_named_first_succeeds(load):
    estimator = RandomForestClassifier(5, random_state=0).fit(X, np.where(Y, "goal", "miss"))
    model = load(estimator, KICKSERVE_SUCCESS_LABEL="goal")
    agree(model, lambda kicks: estimator.predict_proba(kicks)[:, 0])


STAYS = {
    "categories": HistGradientBoostingClassifier(max_iter=5, categorical_features=[5]),
    "starts from a model": GradientBoostingClassifier(n_estimators=2, init=LogisticRegression(max_iter=500)),
    "clipped": make_pipeline(MinMaxScaler(clip=True), RandomForestClassifier(2, random_state=0)),
    "by temperature": CalibratedClassifierCV(
        GradientBoostingClassifier(n_estimators=2), cv=2, method="temperature"
    ),
    "no tree": DummyClassifier(),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_known_is_left_to_its_library(load, name):
    estimator = clone(STAYS[name]).fit(X, Y)
    model = load(estimator)
    assert model.card.kind == "sklearn"
    assert model.predict(FRESH).probability == pytest.approx(estimator.predict_proba(FRESH)[:, 1], abs=1e-12)


def test_trees_that_say_something_else_than_their_classifier_are_not_used(load):
    class RandomForestClassifier(DecisionTreeClassifier):  # by its name alone a forest
        __module__ = "sklearn.ensemble"

    estimator = RandomForestClassifier(max_depth=2).fit(X, Y)
    estimator.estimators_ = [DecisionTreeClassifier(max_depth=3).fit(X, Y)]
    assert load(estimator).card.kind == "sklearn"


# XGBoost and LightGBM.


def xgb(**settings):
    return pytest.importorskip("xgboost").XGBClassifier(n_estimators=20, n_jobs=1, **settings)


def lgb(**settings):
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1, **settings)


BOOSTERS = {
    "xgboost": xgb,
    "xgboost, forests": lambda: xgb(num_parallel_tree=2, subsample=0.5, base_score=0.4),
    "xgboost, scaled": lambda: scaled(StandardScaler(), xgb()),
    "lightgbm": lgb,
    "lightgbm, a forest": lambda: lgb(boosting_type="rf", subsample=0.5, subsample_freq=1),
    "lightgbm, stumps": lambda: lgb(min_child_samples=5_000),
    "lightgbm, scaled": lambda: scaled(StandardScaler(), lgb()),
}


@pytest.mark.parametrize("name", BOOSTERS)
def test_boosters_of_other_libraries_are_walked(load, name):
    estimator = BOOSTERS[name]().fit(frame(X), Y)
    model = load(estimator)
    assert model.card.kind == "sklearn-trees"
    most = SINGLE if name.startswith("xgboost") else 1e-9
    agree(model, lambda kicks: estimator.predict_proba(frame(kicks))[:, 1], most)


def test_a_booster_that_stopped_early_is_walked_as_far_as_it_predicts(load):
    estimator = xgb(early_stopping_rounds=2, learning_rate=2)
    estimator.fit(X, Y, eval_set=[(X[::-1], Y)], verbose=False)
    assert estimator.best_iteration < len(estimator.get_booster().get_dump()) - 1
    agree(load(estimator), lambda kicks: estimator.predict_proba(kicks)[:, 1], SINGLE)


@pytest.mark.parametrize(
    "make", [lambda: xgb(booster="dart"), lambda: lgb(zero_as_missing=True), lambda: lgb(linear_tree=True)]
)
def test_a_booster_that_is_no_plain_sum_of_trees_is_left_to_its_library(load, make):
    estimator = make().fit(X, Y)
    model = load(estimator)
    assert model.card.kind == "sklearn"
    assert model.predict(FRESH).probability == pytest.approx(estimator.predict_proba(FRESH)[:, 1], abs=1e-12)


def files():
    """A file of each format, by its ending, and what its library says; its columns are in another order."""
    kicks = frame(X, BACKWARDS)
    first, second = xgb().fit(kicks, Y), lgb().fit(kicks, Y)
    return {
        ".ubj": (bytes(first.get_booster().save_raw("ubj")), first),
        ".json": (bytes(first.get_booster().save_raw("json")), first),
        ".txt": (second.booster_.model_to_string().encode(), second),
    }


@pytest.mark.parametrize("ending", [".ubj", ".json", ".txt"])
def test_a_file_of_a_booster_is_served(load, ending):
    data, estimator = files()[ending]
    model = load(data, ending)
    assert model.card.kind == "sklearn-trees"
    agree(model, lambda kicks: estimator.predict_proba(frame(kicks, BACKWARDS))[:, 1], SINGLE)


@pytest.mark.parametrize(
    ("ending", "old", "new", "words"),
    [
        (".ubj", b"learner", b"leaner_", "XGBoost can't read it"),
        (".json", b'"left_children":[1,', b'"left_children":[0,', "leads nowhere, or back"),
        (".json", b'"right_children":[2,', b'"right_children":[9999999,', "leads nowhere, or back"),
        (".json", b'"split_indices":[', b'"split_indices":[99', "unknown feature"),
        (".txt", b"num_class=1", b"", "LightGBM can't read it"),
        (".txt", b"left_child=", b"left_child=99999", "leads nowhere, or back"),
        (".txt", b"split_feature=", b"split_feature=99", "unknown feature"),
        (".txt", b"decision_type=2", b"decision_type=1", "splits on categories"),
    ],
)
def test_a_spoilt_file_of_a_booster_is_refused(load, ending, old, new, words):
    data, _ = files()[ending]
    assert old in data
    with pytest.raises(ModelUnusable, match=words):
        load(data.replace(old, new, 1), ending)


@pytest.mark.parametrize(("ending", "package"), [(".ubj", "xgboost"), (".txt", "lightgbm")])
def test_a_file_whose_library_is_missing_is_refused_with_its_name(load, monkeypatch, ending, package):
    monkeypatch.setattr("kickserve_models.boosters.find_spec", lambda name: None if name == package else name)
    with pytest.raises(ModelUnusable, match=f"takes {package}: pip install {package}, or export"):
        load(b"any", ending)
