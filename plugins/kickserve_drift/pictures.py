"""Has Evidently draw the report. The one module that imports it, which costs seconds and 300 MB.

What is said to have drifted is decided by `kickserve_drift.drift`, for live figures and reports alike:
Evidently would choose another method for other numbers of rows. Here it is given that figure and that limit
as a test of its own. So its page says the same to the digit, and of all kicks, though it is shown a sample.
"""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kickserve.features import COUNT, FLAGS, NAMES
from kickserve_drift.drift_bins import PREDICTION

os.environ.setdefault("DO_NOT_TRACK", "1")  # before the import: nothing is told to anybody
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it imports warns of its own old age
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset
    from evidently import Report as Drawing
    from evidently.core.report import Snapshot
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift
    from evidently.presets import ClassificationPreset, DataDriftPreset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kickserve.schemas import DriftSummary

_OUTCOME: Final = "outcome"
_NUMBERS: Final = [*(name for name in NAMES if name not in FLAGS), PREDICTION]
_FEWEST: Final = 20  # kicks of either outcome, from which on quality is drawn
_METHOD: Final = StatTest(
    "kickserve_psi", "PSI in bins of the reference", [ColumnType.Numerical, ColumnType.Categorical]
)


def draw(current: NDArray[np.float64], reference: NDArray[np.float64], summary: DriftSummary) -> Snapshot:
    """Draw the report.

    Args:
        current: kicks, shape (n, 13): features, prediction, and outcome, NaN where unknown.
        reference: the same of the reference, shape (m, 13).
        summary: what was found in all kicks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # correlations of a constant column, and the like
        drift = _drift(current, reference, summary)
        quality = _quality(current, reference)
    return drift if quality is None else _joined(drift, quality)


def html_of(snapshot: Snapshot) -> str:
    """Return the page, whole in itself."""
    return str(snapshot.get_html_str(as_iframe=False))


def values_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the metrics and tests, as Evidently writes them."""
    values: dict[str, Any] = json.loads(snapshot.json())
    return values


def _drift(current: NDArray[np.float64], reference: NDArray[np.float64], summary: DriftSummary) -> Snapshot:
    _tell(summary)
    limits = {each.name: each.limit for each in summary.features}
    whole = DataDriftPreset(
        columns=[*NAMES], method=_METHOD.name, per_column_threshold=limits, drift_share=summary.limit
    )
    said = ValueDrift(column=PREDICTION, method=_METHOD.name, threshold=summary.prediction.limit)
    definition = DataDefinition(numerical_columns=_NUMBERS, categorical_columns=[*FLAGS])
    sets = [Dataset.from_pandas(_frame(rows), data_definition=definition) for rows in (current, reference)]
    return Drawing([whole, said], include_tests=True).run(*sets)


def _tell(summary: DriftSummary) -> None:
    """Give Evidently the figures as a test that knows its results."""
    found = {each.name: each for each in (*summary.features, summary.prediction)}

    def figure(_reference: Any, values: Any, _kind: Any, _limit: float) -> tuple[float, bool]:
        column = found[values.name]
        return column.psi, column.drifted

    register_stattest(_METHOD, figure)


def _quality(current: NDArray[np.float64], reference: NDArray[np.float64]) -> Snapshot | None:
    """Draw how good the predictions were whose outcome is known; None where those are hardly any."""
    known, before = _known(current), _known(reference)
    if known is None:
        return None
    definition = DataDefinition(
        numerical_columns=[PREDICTION],
        categorical_columns=[_OUTCOME],
        classification=[BinaryClassification(target=_OUTCOME, prediction_probas=PREDICTION, pos_label=1)],
    )
    sets = [
        None if frame is None else Dataset.from_pandas(frame, data_definition=definition)
        for frame in (known, before)
    ]
    return Drawing([ClassificationPreset()], include_tests=True).run(*sets)


def _known(rows: NDArray[np.float64]) -> Any:
    told = rows[~np.isnan(rows[:, COUNT + 1]), COUNT:]
    if not _FEWEST <= told[:, 1].sum() <= len(told) - _FEWEST:
        return None
    return pd.DataFrame({PREDICTION: told[:, 0], _OUTCOME: told[:, 1].astype(int)})


def _frame(rows: NDArray[np.float64]) -> Any:
    frame = pd.DataFrame(rows[:, : COUNT + 1], columns=[*NAMES, PREDICTION])
    return frame.astype(dict.fromkeys(FLAGS, int))


def _joined(first: Snapshot, second: Snapshot) -> Snapshot:
    one, other = first.to_snapshot_model(), second.to_snapshot_model()
    return Snapshot.load_model(
        one.copy(
            update={
                "metric_results": {**one.metric_results, **other.metric_results},
                "top_level_metrics": one.top_level_metrics + other.top_level_metrics,
                "widgets": one.widgets + other.widgets,
                "tests_widgets": one.tests_widgets + other.tests_widgets,
            }
        )
    )
