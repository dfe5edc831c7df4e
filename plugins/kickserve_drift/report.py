"""A full report of drift: its shape, and what it says in one line."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from kickserve.features import BY_NAME
from kickserve.schemas import Drifted, DriftSummary
from kickserve_data.kicks import RefusedRow
from kickserve_drift.baseline import About
from kickserve_drift.expected import Expected
from kickserve_drift.findings import Holes, Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve_drift.findings import Findings


class Current(Struct, kw_only=True, frozen=True):
    """The kicks that were evaluated.

    Attributes:
        kind: `store`, `service` or `file`.
        place: which one; never with a password in it.
        rule: which of the kicks there.
        first: when the oldest was predicted, UTC; null where that is not known.
        last: when the newest was.
        models: how many each model predicted, by name and revision.
    """

    kind: str
    place: str
    rule: str
    first: datetime | None
    last: datetime | None
    models: dict[str, int]


class Details(Struct, kw_only=True, frozen=True):
    """What a full report knows beyond the summary.

    Attributes:
        verdict: the report in one line.
        notes: what else is to be known.
        current: the kicks that were evaluated.
        reference: what they were held against.
        shown: kicks that the pictures are drawn from; the figures are of all.
        seed: of that sample.
        holes: values that tell little, feature by feature.
        failed: predictions where the model failed.
        refused: lines of a file that hold no kick.
        refusals: the first hundred of them, with their reasons.
        known: how good the predictions were whose outcome is known, or null.
        expected: how good the others should turn out, or null.
        evidently: metrics and tests as Evidently writes them.
        uploaded: where the report is in an Evidently workspace, or null.
    """

    verdict: str
    notes: list[str]
    current: Current
    reference: About
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
        details: what it knows beyond the summary.
    """

    details: Details


def full(summary: DriftSummary, findings: Findings, current: Current, about: About, seed: int) -> Report:
    """Put a report together; what Evidently says comes later."""
    known = findings.known()
    details = Details(
        verdict=verdict(summary),
        notes=[*_notes(summary, findings, known)],
        current=current,
        reference=about,
        shown=len(findings.sample.rows()),
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
    """Say in one line what has drifted."""
    names = [each.name for each in summary.features if each.drifted]
    what = f"{len(names)} of {len(summary.features)} features ({', '.join(names)})" if names else ""
    if summary.prediction.drifted:
        return f"Drift: {what}{' and ' if what else ''}the predictions have changed"
    if summary.drifted:
        return f"Drift: {what} have changed"
    if names:
        share = f"{summary.limit:.0%} of the features"
        return f"No drift as a whole, but {what} changed: fewer than {share}, and the predictions did not"
    return "No drift: neither the features nor the predictions have changed"


def arrow(column: Drifted) -> str:
    """Show where the mean of a drifted column went: up, down, or nowhere while its shape changed."""
    if not column.drifted:
        return ""
    moved = column.mean - column.reference_mean
    if abs(moved) < 0.01 * max(abs(column.reference_mean), abs(column.mean)):
        return "↔"
    return "↑" if moved > 0 else "↓"


def unit(name: str) -> str:
    """Return the unit of a column with a space before it; empty where it has none."""
    feature = BY_NAME.get(name)
    return f" {feature.unit}".rstrip() if feature else ""


def _notes(summary: DriftSummary, findings: Findings, known: Known | None) -> Iterator[str]:
    models = findings.made_by
    if len(models) > 1:
        yield f"The predictions are of {len(models)} models or revisions: {', '.join(sorted(models))}."
    if not findings.sample.whole:
        yield (
            f"The pictures show {len(findings.sample.rows()):,} kicks, drawn from {findings.kicks:,};"
            " the figures are of all."
        )
    if findings.failed:
        yield f"The model failed at {findings.failed:,} kicks, which are left out."
    if findings.refused:
        yield f"{findings.refused:,} lines hold no kick that could be predicted, and are left out."
    if known is not None and not _as_expected(known):
        yield (
            f"Of {known.quality.count:,} kicks the outcome is known, and the Brier score is worse than chance"
            " explains if the probabilities were right: the model may no longer fit."
        )
    if summary.note:
        yield summary.note


def _as_expected(known: Known) -> bool:
    """Say whether what was measured is not worse than chance explains."""
    return known.quality.brier <= known.expected.brier.high
