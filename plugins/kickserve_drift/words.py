"""What a report says of its kicks and of quality, for the page and for the terminal alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_drift.expected import Estimate, Expected
    from kickserve_drift.report import Report

_MEASURES: Final = (
    ("success_rate", "success rate"),
    ("brier", "Brier score"),
    ("log_loss", "log loss"),
    ("auc", "AUC"),
)


def facts(report: Report) -> list[tuple[str, str]]:
    """Say what was compared with what."""
    current, reference = report.details.current, report.details.reference
    told = [("kicks", f"{report.kicks:,} of {current.place}: {current.rule}")]
    if current.first and current.last:
        told.append(
            ("predicted", f"{current.first:%Y-%m-%d %H:%M:%S} to {current.last:%Y-%m-%d %H:%M:%S} UTC")
        )
    kind = "profile of the model" if reference.kind == "profile" else "file"
    share = f"{report.share:.0%} of the features, where {report.limit:.0%} are the limit"
    return [
        *told,
        ("reference", f"{kind} {reference.name}, of {reference.kicks:,} kicks"),
        ("drifted", share),
    ]


def measured(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of a table of how good the predictions are; no rows where nothing is known."""
    details = report.details
    heads, columns = [""], []
    if details.known is not None:
        known = details.known
        heads += [f"measured on {known.quality.count:,}", "expected of these"]
        columns.append([_number(getattr(known.quality, name)) for name, _ in _MEASURES])
        columns.append([*_estimates(known.expected)])
    if details.expected is not None:
        heads.append(f"expected of {details.expected.count:,} others")
        columns.append([*_estimates(details.expected)])
    heads.append("reference")
    columns.append([_number(details.reference.quality.get(name)) for name, _ in _MEASURES])
    if len(columns) == 1:
        return heads, []
    return heads, [[title, *row] for (_, title), *row in zip(_MEASURES, *columns, strict=True)]


def _estimates(expected: Expected) -> Iterator[str]:
    for name, _ in _MEASURES:
        estimate: Estimate | None = getattr(expected, name)
        yield "" if estimate is None else f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
