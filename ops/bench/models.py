"""Measures each kind of model: one kick and 10,000 kicks in one process.

The same scikit-learn pipeline (scaler, logistic regression) predicts by itself, as skops and as ONNX; beside
it a forest of 100 trees, and the packaged model. Files are timed by `kickserve model check`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import skl2onnx
import skops.io
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kickserve
from ops.bench import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.commands import Row

ROUNDS: Final = 7
ROUND: Final = 0.15  # seconds
MANY: Final = 10_000  # as `kickserve model check` has it


def models() -> dict[str, list[Row]]:
    """Measure the time of a prediction by kind of model: one kick and 10,000 kicks in one process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common.command(folder, "simulate", "--size", "20000", "--seed", "1", "--output", "kicks.csv")
        frame = pd.read_csv(folder / "kicks.csv")
        success, kicks = frame.pop("success"), frame.to_numpy(float)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(kicks, success)
        forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(kicks, success)
        inputs = [("kicks", FloatTensorType([None, kicks.shape[1]]))]
        onnx = skl2onnx.convert_sklearn(pipeline, initial_types=inputs)
        (folder / "model.onnx").write_bytes(onnx.SerializeToString())
        skops.io.dump(pipeline, folder / "model.skops")
        skops.io.dump(forest, folder / "forest.skops")
        rows = [
            {
                "model": "scikit-learn itself",
                "one_us": 1e6 * seconds(lambda: pipeline.predict_proba(kicks[:1])),
                "many_us": 1e6 * seconds(lambda: pipeline.predict_proba(kicks[:MANY])) / MANY,
            },
            checked("the same as skops", folder / "model.skops"),
            checked("the same as ONNX", folder / "model.onnx"),
            checked("the packaged model", Path(kickserve.__file__).with_name("default.json")),
            checked("a forest of 100 trees", folder / "forest.skops"),
        ]
    for row in rows:
        row["times_as_quick"] = rows[0]["one_us"] / row["one_us"]
    return {f"µs a kick, alone and among {MANY:,}": rows}


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
