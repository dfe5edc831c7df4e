"""Measures each kind of model: one kick and 10,000 kicks in one process.

The same scikit-learn pipeline (scaler, logistic regression) predicts by itself, as skops and as ONNX; beside
it the packaged model. Files are timed by `kickserve model check`. Classifiers of 100 trees are computed by
their library and by kickserve, in turns.
"""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import lightgbm
import numpy as np
import pandas as pd
import skl2onnx
import skops.io
import xgboost
from skl2onnx.common.data_types import FloatTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kickserve
from kickserve.loading import load_source
from kickserve.plugins import Settings, discover
from ops.bench import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ops.commands import Row

ROUNDS: Final = 7
ROUND: Final = 0.15  # seconds
MANY: Final = 10_000  # as `kickserve model check` has it
FOREST: Final = RandomForestClassifier(100, random_state=0, n_jobs=1)
CLASSIFIERS: Final[dict[str, Any]] = {
    "random forest": FOREST,
    "extra trees": ExtraTreesClassifier(100, random_state=0, n_jobs=1),
    "scaled random forest": make_pipeline(StandardScaler(), FOREST),
    "calibrated random forest, 5 of 100": CalibratedClassifierCV(FOREST),
    "gradient boosting": GradientBoostingClassifier(random_state=0),
    "histogram gradient boosting": HistGradientBoostingClassifier(random_state=0),
    "XGBoost": xgboost.XGBClassifier(n_estimators=100, n_jobs=1),
    "LightGBM": lightgbm.LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1),
}


def models() -> dict[str, list[Row]]:
    """Measure the time of a prediction by kind of model: one kick and 10,000 kicks in one process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.command(folder, "simulate", "--size", "20000", "--seed", "1", "--output", "kicks.csv")
        frame = pd.read_csv(folder / "kicks.csv")
        success, kicks = frame.pop("success"), frame.to_numpy(float)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(kicks, success)
        inputs = [("kicks", FloatTensorType([None, kicks.shape[1]]))]
        onnx = skl2onnx.convert_sklearn(pipeline, initial_types=inputs)
        (folder / "model.onnx").write_bytes(onnx.SerializeToString())
        skops.io.dump(pipeline, folder / "model.skops")
        rows = [
            {
                "model": "scikit-learn itself",
                "one_us": 1e6 * seconds(lambda: pipeline.predict_proba(kicks[:1])),
                "many_us": 1e6 * seconds(lambda: pipeline.predict_proba(kicks[:MANY])) / MANY,
            },
            checked("the same as skops", folder / "model.skops"),
            checked("the same as ONNX", folder / "model.onnx"),
            checked("the packaged model", Path(kickserve.__file__).with_name("default.json")),
        ]
        for row in rows:
            row["times_as_quick"] = rows[0]["one_us"] / row["one_us"]
        trees = [walked(folder, *each, kicks, success) for each in CLASSIFIERS.items()]
    return {
        f"µs a kick, alone and among {MANY:,}": rows,
        "classifiers of trees: µs a kick by their library, and walked": trees,
    }


def walked(
    folder: Path, name: str, classifier: Any, kicks: NDArray[np.float64], success: pd.Series[int]
) -> Row:
    """Compare the library of a classifier with kickserve, in turns: a kick of its own each time."""
    file = folder / "trees.pkl"
    file.write_bytes(pickle.dumps(classifier.fit(kicks, success)))
    settings = Settings(environ={"KICKSERVE_ALLOW_PICKLE": "1"})
    model = load_source(str(file), discover(settings))
    rows, places = kicks.tolist(), itertools.cycle(range(len(kicks)))

    def library() -> None:
        at = next(places)
        classifier.predict_proba(kicks[at : at + 1])

    calls = [
        library,
        lambda: model.predict_one(rows[next(places)]),
        lambda: classifier.predict_proba(kicks[:MANY]),
        lambda: model.predict(kicks[:MANY]),
    ]
    rounds = [[_round(call) for call in calls] for _ in range(ROUNDS)]
    one, one_walked, many, many_walked = (1e6 * median(each) for each in zip(*rounds, strict=True))
    expected, found = classifier.predict_proba(kicks)[:, 1], model.predict(kicks).probability
    return {
        "classifier": name,
        "one_us": one,
        "one_walked_us": one_walked,
        "times_as_quick": one / one_walked,
        "many_us": many / MANY,
        "many_walked_us": many_walked / MANY,
        "largest_difference": f"{np.abs(expected - found).max():.0e}",
    }


def checked(name: str, file: Path) -> Row:
    """Return the times that `kickserve model check` measures."""
    command = [sys.executable, "-m", "kickserve", "model", "check", str(file), "--json"]
    found: dict[str, Any] = json.loads(subprocess.check_output(command))["check"]
    return {"model": name, "one_us": found["one_us"], "many_us": found["many_ms"] * 1e3 / MANY}


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of a call, the median of some rounds."""
    return median(_round(call) for _ in range(ROUNDS))


def _round(call: Callable[[], object]) -> float:
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < ROUND:
        call()
        count += 1
    return (time.perf_counter() - began) / count
