"""How quick a kick is answered by each kind of model: `just bench models`; times are those of one process.

The same scikit-learn pipeline (scaler, logistic regression) is asked by itself, read off into numpy, and as
ONNX; beside it a forest of 100 trees, and the packaged model.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import skl2onnx
from rich.console import Console
from rich.table import Table
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kickserve.features import COUNT
from kickserve.linear import load_default
from kickserve.model import TYPICAL, AnswersOne, Origin
from kickserve_data.simulate import simulate
from kickserve_models.onnx import load_onnx
from kickserve_models.sklearn import of_estimator

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
ROUND = 0.15  # seconds
MANY = 2_000
ORIGIN = Origin(Path(__file__).name, "bench")


def main() -> None:
    """Measure, and write the table."""
    kicks = simulate(20_000, 1)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(kicks.matrix, kicks.success)
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(kicks.matrix, kicks.success)
    inputs = [("kicks", FloatTensorType([None, COUNT]))]
    onnx = skl2onnx.convert_sklearn(pipeline, initial_types=inputs).SerializeToString()
    many = kicks.matrix[:MANY]
    ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "scikit-learn itself": (
            lambda: pipeline.predict_proba(TYPICAL),
            lambda: pipeline.predict_proba(many),
        ),
        "the same, read off": _asking(of_estimator(pipeline, [], b"", ORIGIN), many),
        "the same, as ONNX": _asking(load_onnx(onnx, ORIGIN), many),
        "the packaged model": _asking(load_default(), many),
        "a forest of 100 trees": _asking(of_estimator(forest, [], b"", ORIGIN), many),
    }
    times = {name: _times([*pair]) for name, pair in ways.items()}
    table = Table(box=None, header_style="dim")
    for head in ("", "one kick, µs", f"a kick of {MANY:,}, µs", "times as quick"):
        table.add_column(head, justify="right" if head else "left")
    slowest = times["scikit-learn itself"][0]
    for name, (one, all_of_them) in times.items():
        table.add_row(name, f"{one * 1e6:,.2f}", f"{all_of_them / MANY * 1e6:,.3f}", f"{slowest / one:,.1f}")
    Console().print(table)


def _asking(model: Any, many: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    row = TYPICAL[0].tolist()
    if isinstance(model, AnswersOne):
        return lambda: model.predict_one(row), lambda: model.predict(many)
    return lambda: model.predict(TYPICAL), lambda: model.predict(many)


def _times(calls: list[Callable[[], Any]]) -> list[float]:
    """Return seconds a call, the median of some rounds."""
    return [median(_round(call) for _ in range(ROUNDS)) for call in calls]


def _round(call: Callable[[], Any]) -> float:
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < ROUND:
        call()
        count += 1
    return (time.perf_counter() - started) / count
