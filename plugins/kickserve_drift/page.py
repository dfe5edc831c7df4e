"""The page of a report, by Evidently, and its upload. No other module imports Evidently: 5 s and 300 MB.

The figure and the limit of each column are those of `kickserve_drift.psi`, given to Evidently as a test of
its own: by itself it chooses other methods for other numbers of rows. So its page has the same figures to the
digit, and of all kicks, though it plots a sample.
"""

from __future__ import annotations

import json
import os
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np
from requests import RequestException

from kickserve.errors import ServiceAway
from kickserve.features import COUNT, FLAGS, NAMES
from kickserve.plugins import ConfigurationError
from kickserve_drift.psi import PREDICTION
from kickserve_drift.report import column_table, facts, quality_table

os.environ.setdefault("DO_NOT_TRACK", "1")  # before the import: no telemetry
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in packages that it imports
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset
    from evidently import Report as EvidentlyReport
    from evidently.core.report import Snapshot
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.legacy.renderers.html_widgets import table_data, text_widget
    from evidently.metrics import ValueDrift
    from evidently.presets import ClassificationPreset, DataDriftPreset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evidently.legacy.model.widget import BaseWidgetInfo
    from numpy.typing import NDArray

    from kickserve.schemas import DriftSummary
    from kickserve_drift.report import Report
    from kickserve_drift.settings import DriftSettings

_OUTCOME: Final = "outcome"
_NUMBERS: Final = [*(name for name in NAMES if name not in FLAGS), PREDICTION]
_MIN_KNOWN: Final = 20  # kicks of either outcome, from which on quality is plotted
_METHOD: Final = StatTest(
    "kickserve_psi", "PSI in bins of the reference", [ColumnType.Numerical, ColumnType.Categorical]
)
_CLOUD: Final = "evidently.cloud"
# The browser itself keeps the page from asking any other host, whatever Evidently's scripts hold.
_POLICY: Final = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
    " script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " font-src data:; img-src data: blob:; connect-src 'none'\">"
)


# Evidently's plots are drawn for light alone: with its own dark theme their text is black on black. On a
# phone its tiles stand one below the other.
_LOOK: Final = (
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<script>matchMedia = ((ask) => (query) => ask(query.includes("color-scheme") ? "not all" : query))'
    "(matchMedia.bind(window));</script>"
    "<style>@media (max-width: 860px) {"
    " .MuiGrid-root { flex-basis: 100% !important; max-width: 100% !important; }"
    " h1, h2, h3, h4, h5 { font-size: 1.2rem !important; overflow-wrap: anywhere; }"
    " table { display: block; overflow-x: auto; } }</style>"
)


def draw(current: NDArray[np.float64], reference: NDArray[np.float64], report: Report) -> Snapshot:
    """Have Evidently draw the report: verdict, tables and notes, then its plots.

    Args:
        current: kicks, shape (n, 13): features, prediction and outcome, NaN where unknown.
        reference: the same of the reference, shape (m, 13).
        report: of all kicks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # correlations of a constant column, and the like
        snapshots = [_drift(current, reference, report), *_quality(current, reference)]
    parts = [each.to_snapshot_model() for each in snapshots]
    lists = {
        name: [each for part in parts for each in getattr(part, name)]
        for name in ("top_level_metrics", "widgets", "tests_widgets")
    }
    results = {key: value for part in parts for key, value in part.metric_results.items()}
    lists["widgets"] = [*_header(report), *lists["widgets"]]
    return Snapshot.load_model(parts[0].copy(update={"metric_results": results, **lists}))


def html_of(snapshot: Snapshot, report: Report) -> str:
    """Return the page, complete in itself."""
    page = str(snapshot.get_html_str(as_iframe=False))
    return page.replace("<head>", f"<head>{_POLICY}{_LOOK}<title>{escape(report.details.verdict)}</title>", 1)


def values_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the metrics and tests, as Evidently writes them."""
    values: dict[str, Any] = json.loads(snapshot.json())
    return values


def upload(snapshot: Snapshot, settings: DriftSettings) -> str:
    """Add a report, which holds plots and no kicks, to the project of the settings; create a missing project.

    Returns:
        The address of the report.

    Raises:
        ServiceAway: the workspace can't be reached.
        ConfigurationError: the workspace refuses, or the settings can't be used.
    """
    address = settings.evidently_url or ""
    try:
        workspace = _workspace(address, settings.evidently_key)
        found = workspace.search_project(settings.evidently_project)
        project = found[0] if found else workspace.create_project(settings.evidently_project)
        return str(workspace.add_run(project.id, snapshot).url)
    except RequestException as error:
        if error.response is None:
            raise ServiceAway(
                f"no Evidently workspace answers at {address} ({type(error).__name__})"
            ) from error
        raise ConfigurationError(
            f"the Evidently workspace at {address} answered {error.response.status_code}: check"
            " KICKSERVE_EVIDENTLY_KEY and KICKSERVE_EVIDENTLY_PROJECT"
        ) from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"KICKSERVE_EVIDENTLY_URL={address} can't be used: {error}") from error


def _workspace(address: str, key: str | None) -> Any:
    """Open a workspace: the cloud, an `evidently ui`, or a folder; all have the same methods."""
    from evidently.ui.workspace import CloudWorkspace, RemoteWorkspace, Workspace

    if not address.startswith(("http://", "https://")):
        return Workspace.create(address)
    host = urlsplit(address).hostname or ""
    if host == _CLOUD or host.endswith(f".{_CLOUD}"):
        if key is None:
            raise ValueError("Evidently Cloud needs KICKSERVE_EVIDENTLY_KEY")
        return CloudWorkspace(token=key, url=address)
    return RemoteWorkspace(address, secret=key)


def _drift(current: NDArray[np.float64], reference: NDArray[np.float64], summary: DriftSummary) -> Snapshot:
    found = {each.name: each for each in (*summary.features, summary.prediction)}

    def figure(_reference: Any, values: Any, _kind: Any, _limit: float) -> tuple[float, bool]:
        column = found[values.name]
        return column.psi, column.drifted

    register_stattest(_METHOD, figure)
    limits = {each.name: each.limit for each in summary.features}
    features = DataDriftPreset(
        columns=[*NAMES], method=_METHOD.name, per_column_threshold=limits, drift_share=summary.limit
    )
    prediction = ValueDrift(column=PREDICTION, method=_METHOD.name, threshold=summary.prediction.limit)
    definition = DataDefinition(numerical_columns=_NUMBERS, categorical_columns=[*FLAGS])
    sets = [Dataset.from_pandas(_frame(rows), data_definition=definition) for rows in (current, reference)]
    return EvidentlyReport([features, prediction], include_tests=True).run(*sets)


def _quality(current: NDArray[np.float64], reference: NDArray[np.float64]) -> Iterator[Snapshot]:
    """Plot the quality of the predictions whose outcome is known, where enough are."""
    frames = [_known(current), _known(reference)]
    if frames[0] is None:
        return
    definition = DataDefinition(
        numerical_columns=[PREDICTION],
        categorical_columns=[_OUTCOME],
        classification=[BinaryClassification(target=_OUTCOME, prediction_probas=PREDICTION, pos_label=1)],
    )
    sets = [
        None if frame is None else Dataset.from_pandas(frame, data_definition=definition) for frame in frames
    ]
    yield EvidentlyReport([ClassificationPreset()], include_tests=True).run(*sets)


def _known(rows: NDArray[np.float64]) -> Any:
    known = rows[~np.isnan(rows[:, COUNT + 1]), COUNT:]
    if not _MIN_KNOWN <= known[:, 1].sum() <= len(known) - _MIN_KNOWN:
        return None
    return pd.DataFrame({PREDICTION: known[:, 0], _OUTCOME: known[:, 1].astype(int)})


def _frame(rows: NDArray[np.float64]) -> Any:
    frame = pd.DataFrame(rows[:, : COUNT + 1], columns=[*NAMES, PREDICTION])
    return frame.astype(dict.fromkeys(FLAGS, int))


def _header(report: Report) -> Iterator[BaseWidgetInfo]:
    # A page holds its data in a script: no name in a text may end that.
    paragraphs = [f"# {report.details.verdict}", *(f"**{name}:** {value}" for name, value in facts(report))]
    yield text_widget(text=escape("\n\n".join(paragraphs), quote=False))
    for table in (column_table(report), quality_table(report)):
        if table.rows:
            yield table_data(column_names=table.heads, data=table.rows)
    if report.details.notes:
        yield text_widget(text=escape("\n\n".join(report.details.notes), quote=False))
