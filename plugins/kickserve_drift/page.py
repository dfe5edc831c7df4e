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
from kickserve_drift.report import column_table, columns, facts, quality_table

os.environ.setdefault("DO_NOT_TRACK", "1")  # before the import: no telemetry
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in packages that it imports
    import pandas as pd
    from evidently import BinaryClassification, DataDefinition, Dataset
    from evidently import Report as EvidentlyReport
    from evidently.core.report import Snapshot
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift
    from evidently.presets import ClassificationPreset, DataDriftPreset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from kickserve.schemas import DriftSummary
    from kickserve_drift.report import Report, Table
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
_STYLE: Final = """<style>
.kickserve{font:15px/1.45 system-ui,sans-serif;color:#1c1c1c;max-width:68rem;margin:0 auto;padding:1.5rem}
.kickserve h1{font-size:1.35rem;margin:0 0 1rem;padding:.8rem 1rem}
.kickserve h1{border-left:.4rem solid #2a7d3f;background:#eef6f0}
.kickserve.drifted h1{border-color:#b3261e;background:#fbeeed}
.kickserve table{border-collapse:collapse;margin:.5rem 0 1.25rem}
.kickserve th,.kickserve td{padding:.2rem .9rem .2rem 0;text-align:right;white-space:nowrap}
.kickserve th:first-child,.kickserve td:first-child{text-align:left}
.kickserve th{color:#666;font-weight:500;border-bottom:1px solid #ddd}
.kickserve tr.drifted td{color:#b3261e;font-weight:600}
.kickserve dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0 0 1rem}
.kickserve dt{color:#666}.kickserve dd{margin:0}
</style>"""


def draw(current: NDArray[np.float64], reference: NDArray[np.float64], summary: DriftSummary) -> Snapshot:
    """Have Evidently draw the report.

    Args:
        current: kicks, shape (n, 13): features, prediction and outcome, NaN where unknown.
        reference: the same of the reference, shape (m, 13).
        summary: of all kicks.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # correlations of a constant column, and the like
        drift = _drift(current, reference, summary)
        quality = _quality(current, reference)
    return drift if quality is None else _join(drift, quality)


def html_of(snapshot: Snapshot, report: Report) -> str:
    """Return the page, complete in itself, with the report's header above Evidently's part."""
    page = str(snapshot.get_html_str(as_iframe=False))
    title = f"<title>{escape(report.details.verdict)}</title>"
    page = page.replace("<head>", f"<head>{_POLICY}{title}{_STYLE}", 1)
    return page.replace("<body>", f"<body>{_report_header(report)}", 1)


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


def _quality(current: NDArray[np.float64], reference: NDArray[np.float64]) -> Snapshot | None:
    """Plot the quality of the predictions whose outcome is known; None where hardly any is."""
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
    return EvidentlyReport([ClassificationPreset()], include_tests=True).run(*sets)


def _known(rows: NDArray[np.float64]) -> Any:
    known = rows[~np.isnan(rows[:, COUNT + 1]), COUNT:]
    if not _MIN_KNOWN <= known[:, 1].sum() <= len(known) - _MIN_KNOWN:
        return None
    return pd.DataFrame({PREDICTION: known[:, 0], _OUTCOME: known[:, 1].astype(int)})


def _frame(rows: NDArray[np.float64]) -> Any:
    frame = pd.DataFrame(rows[:, : COUNT + 1], columns=[*NAMES, PREDICTION])
    return frame.astype(dict.fromkeys(FLAGS, int))


def _join(first: Snapshot, second: Snapshot) -> Snapshot:
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


def _report_header(report: Report) -> str:
    drifted = [each.drifted for each in columns(report)]
    kind = "kickserve drifted" if report.drifted else "kickserve"
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts(report))
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.details.notes)
    return (
        f'<section class="{kind}">'
        f"<h1>{escape(report.details.verdict)}</h1><dl>{''.join(pairs)}</dl>"
        f"{_table(column_table(report), drifted)}{_table(quality_table(report))}{notes}</section>"
    )


def _table(table: Table, drifted: Sequence[bool] = ()) -> str:
    if not table.rows:
        return ""
    starts = ['<tr class="drifted">' if each else "<tr>" for each in drifted] or ["<tr>"] * len(table.rows)
    rows = "".join(f"{start}{_cells('td', row)}</tr>" for start, row in zip(starts, table.rows, strict=True))
    return f"<table><thead><tr>{_cells('th', table.heads)}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
