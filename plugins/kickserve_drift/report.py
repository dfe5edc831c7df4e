"""A full report of drift: its shape, its verdict in one line, and its tables for page and terminal."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct, structs

from kickserve.features import BY_NAME
from kickserve.schemas import CalibrationChange, Drifted, DriftSummary
from kickserve_data.kicks import RefusedRow
from kickserve_drift.expected import Expected
from kickserve_drift.findings import Holes, Known
from kickserve_drift.reference import ReferenceInfo
from kickserve_scores.alarm import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_drift.findings import Findings

_MEASURES: Final = {
    "success_rate": "success rate",
    "brier": "Brier score",
    "log_loss": "log loss",
    "auc": "AUC",
}


class Current(Struct, kw_only=True, frozen=True):
    """The kicks that were evaluated.

    Attributes:
        kind: `store`, `service` or `file`.
        place: which one; never with a password in it.
        rule: which of the kicks there.
        first: when the oldest was predicted, UTC; null where unknown.
        last: when the newest was.
        models: number of predictions by name and revision of the model.
    """

    kind: str
    place: str
    rule: str
    first: datetime | None
    last: datetime | None
    models: dict[str, int]


class Details(Struct, kw_only=True, frozen=True):
    """Details of a full report beyond the summary.

    Attributes:
        verdict: the report in one line.
        notes: further notes.
        current: the kicks that were evaluated.
        reference: compared with.
        shown: kicks in the plots; the figures are of all.
        seed: of that sample.
        holes: values without information, by feature.
        failed: predictions where the model failed.
        refused: lines of a file that hold no valid kick.
        refusals: the first hundred of them, with reasons.
        known: quality of the predictions whose outcome is known, or null.
        expected: expected quality of the others, or null.
        evidently: metrics and tests as Evidently writes them.
        uploaded: address of the report in an Evidently workspace, or null.
    """

    verdict: str
    notes: list[str]
    current: Current
    reference: ReferenceInfo
    shown: int
    seed: int
    holes: list[Holes]
    failed: int
    refused: int
    refusals: list[RefusedRow]
    known: Known | None
    expected: Expected | None
    evidently: dict[str, Any] = {}
    uploaded: str | None = None


class Report(DriftSummary, kw_only=True, frozen=True):
    """A full report.

    Attributes:
        details: beyond the summary.
    """

    details: Details


class Table(NamedTuple):
    """A table of text; no rows where there is nothing to show."""

    heads: list[str]
    rows: list[list[str]]


def make_report(
    summary: DriftSummary, findings: Findings, current: Current, reference: ReferenceInfo, seed: int
) -> Report:
    """Make a report, without the part of Evidently."""
    known = findings.known()
    details = Details(
        verdict=verdict(summary),
        notes=[*_notes(summary, findings, known)],
        current=current,
        reference=reference,
        shown=len(findings.sample.rows),
        seed=seed,
        holes=findings.holes(),
        failed=findings.failed,
        refused=findings.refused,
        refusals=findings.refusals,
        known=known,
        expected=findings.open(),
    )
    return Report(**structs.asdict(summary), details=details)


def verdict(summary: DriftSummary) -> str:
    """Return in one line what has drifted; first what makes it a drift: outcomes, features or predictions."""
    kicks = _verdict_of_kicks(summary)
    if summary.calibration is None or summary.calibration.change is None:
        return kicks
    outcomes = f"the outcomes no longer fit the predictions, {summary.calibration.change.text}"
    return f"Drift: {outcomes}; of the kicks: {kicks[0].lower()}{kicks[1:]}"


def _verdict_of_kicks(summary: DriftSummary) -> str:
    names = [each.name for each in summary.features if each.drifted]
    what = f"{len(names)} of {len(summary.features)} features ({', '.join(names)})"
    few = f"fewer than the limit of {summary.limit:.0%}"
    if summary.share >= summary.limit:
        also = ", and so have the predictions" if summary.prediction.drifted else ""
        return f"Drift: {what} have changed{also}"
    if summary.prediction.drifted:
        return "Drift: the predictions have changed" + (f"; so have {what}, {few}" if names else "")
    if names:
        return f"No drift as a whole: {what} have changed, {few}, and the predictions have not"
    return "No drift: neither the features nor the predictions have changed"


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what was compared with what, as names and values."""
    current, reference = report.details.current, report.details.reference
    found = [("kicks", f"{report.kicks:,} of {current.place}: {current.rule}")]
    if current.first and current.last:
        first, last = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (current.first, current.last))
        found.append(("predicted", f"{first} to {last} UTC"))
    kind = "profile of the model" if reference.kind == "profile" else "file"
    predictions = "have drifted, which is a drift" if report.prediction.drifted else "have not drifted"
    share = f"{report.share:.0%} of the features (limit {report.limit:.0%}); the predictions {predictions}"
    return [
        *found,
        ("reference", f"{kind} {reference.name}, of {reference.kicks:,} kicks"),
        ("drifted", share),
        *_outcome_facts(report),
    ]


def _outcome_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what outcomes say: of the answers, and where something was learned, of the model itself."""
    test = report.calibration
    if test is None:
        return
    if not test.outcomes:
        yield "outcomes", "none is known, so nothing can show whether kicks succeed as often as predicted"
        return
    fit = f"they fit the predictions (evidence of a change {test.evidence:.2g}, alarm from {LEVEL:.0f})"
    yield "outcomes", f"{test.outcomes:,}: {fit if test.change is None else _alarm(test.change)}"
    if test.base_change is not None and test.base_change != test.change:
        yield "model alone", _alarm(test.base_change)


def _alarm(change: CalibrationChange) -> str:
    since = (
        f"line {change.since}" if isinstance(change.since, int) else f"{change.since:%Y-%m-%d %H:%M:%S} UTC"
    )
    return f"alarm, {change.text}, since {since} ({change.outcomes:,} outcomes)"


def column_table(report: Report) -> Table:
    """Return the figures of each column; columns of holes only where there are any."""
    holes = {
        each.name: {"missing": each.missing, "outside": each.out_of_range + each.unknown}
        for each in report.details.holes
    }
    gaps = [head for head in ("missing", "outside") if any(each[head] for each in holes.values())]
    rows = []
    for column in columns(report):
        shares = [holes.get(column.name, {}).get(head) for head in gaps]
        rows.append([*_cells(column), *(f"{share:.1%}" if share else "" for share in shares)])
    return Table(["", "PSI", "limit", "drifted", "mean now", "before", *gaps], rows)


def columns(report: Report) -> list[Drifted]:
    """Return the features and the prediction, in the order of `column_table`."""
    return [*report.features, report.prediction]


def quality_table(report: Report) -> Table:
    """Return how good the predictions are, by measure; no rows where nothing is known."""
    details = report.details
    heads, found = [""], []
    if details.known is not None:
        heads += [f"measured on {details.known.quality.count:,}", "expected of these"]
        found.append([_number(getattr(details.known.quality, name)) for name in _MEASURES])
        found.append([*_estimates(details.known.expected)])
    if details.expected is not None:
        heads.append(f"expected of {details.expected.count:,} others")
        found.append([*_estimates(details.expected)])
    if not found:
        return Table(heads, [])
    heads.append("reference")
    found.append([_number(details.reference.quality.get(name)) for name in _MEASURES])
    return Table(heads, [list(row) for row in zip(_MEASURES.values(), *found, strict=True)])


def _cells(column: Drifted) -> list[str]:
    feature = BY_NAME.get(column.name)
    unit = f" {feature.unit}".rstrip() if feature else ""
    means = [f"{mean:.3g}{unit}" for mean in (column.mean, column.reference_mean)]
    drifted = f"yes {_arrow(column)}" if column.drifted else "no"
    return [column.name, f"{column.psi:.3f}", f"{column.limit:.3f}", drifted, *means]


def _arrow(column: Drifted) -> str:
    """Return where the mean went: up, down, or nowhere where only the shape has changed."""
    moved = column.mean - column.reference_mean
    if abs(moved) < 0.01 * max(abs(column.reference_mean), abs(column.mean)):
        return "↔"
    return "↑" if moved > 0 else "↓"


def _estimates(expected: Expected) -> Iterator[str]:
    for name in _MEASURES:
        estimate = getattr(expected, name)
        yield "" if estimate is None else f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _notes(summary: DriftSummary, findings: Findings, known: Known | None) -> Iterator[str]:
    models = findings.made_by
    if len(models) > 1:
        yield f"The predictions are of {len(models)} models or revisions: {', '.join(sorted(models))}."
    if not findings.sample.whole:
        shown = len(findings.sample.rows)
        yield f"The plots show {shown:,} kicks, drawn from {findings.kicks:,}; the figures are of all."
    if findings.failed:
        yield f"The model failed at {findings.failed:,} kicks, which are left out."
    if findings.refused:
        yield f"{findings.refused:,} lines hold no kick that could be predicted, and are left out."
    if known is not None and known.quality.brier > known.expected.brier.high:
        yield (
            f"Of {known.quality.count:,} kicks the outcome is known, and the Brier score is worse than chance"
            " explains if the probabilities were right: the model may no longer fit."
        )
    if summary.calibration is not None and summary.calibration.note:
        yield f"{summary.calibration.note[0].upper()}{summary.calibration.note[1:]}."
    if summary.note:
        yield summary.note
