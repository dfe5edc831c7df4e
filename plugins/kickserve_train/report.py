"""The report of a training: what `kickserve train` writes as JSON, and how it shows that to a person."""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from rich.table import Table

from kickserve.features import FEATURES
from kickserve.plugins import print_facts, say, stdout
from kickserve_train.checks import DataSummary
from kickserve_train.evaluation import Candidate, Measure, Measures
from kickserve_train.families import BOOSTED, CONSTANT, LOGISTIC, RECALIBRATED, SPLINES

_WHY: Final = {
    RECALIBRATED: "no family from scratch is better by more than one standard error",
    SPLINES: "within one standard error of the best",
    LOGISTIC: "better than splines by more than one standard error",
    BOOSTED: "better than all others by more than one standard error",
}
_HEADS: Final = ("Brier", "log loss", "ECE", "AUC")


class CurrentModel(Struct, kw_only=True, frozen=True):
    """The current model on the same kicks.

    Attributes:
        name: of the current model.
        revision: of it.
        seen: whether it was trained on these very kicks, so that its figures flatter it.
        measured: how good it is.
        difference: the new model's measures less its own; below 0 is better, but for the AUC.
    """

    name: str
    revision: str
    seen: bool
    measured: Measures
    difference: Measures


class TrainingReport(Struct, kw_only=True, frozen=True):
    """The outcome of a training.

    Attributes:
        name: of the model.
        kind: the family that was chosen.
        asked_for: whether it was asked for by name.
        revision: of the model.
        findings: the data.
        compared_on: kicks that families were compared on.
        candidates: the families, from simple to rich.
        measured: how good the model is on kicks that it had not seen, calibrated if that is kept.
        calibration_gain: by how much calibration lowers the log loss.
        calibrated: whether it is kept.
        recalibration: slope and offset that the log-odds of the model in use were given; null for a family
            from scratch.
        ability_sd: spread of ability in log-odds; null where the data name no kicker.
        in_use: the current model on the same kicks; null where there is none to compare with.
        warnings: of the data and the model, in words.
    """

    name: str
    kind: str
    asked_for: bool
    revision: str
    findings: DataSummary
    compared_on: int
    candidates: list[Candidate]
    measured: Measures
    calibration_gain: Measure
    calibrated: bool
    recalibration: dict[str, float] | None
    ability_sd: float | None
    in_use: CurrentModel | None
    warnings: list[str]


def show(report: TrainingReport, output: str) -> None:
    """Write a report for a person; `output` is where the model is."""
    for warning in report.warnings:
        say(f"warning: {warning}")
    print_facts(_data(report.findings))
    stdout().print()
    stdout().print(_table(report))
    stdout().print()
    print_facts(_model(report, output))


def _data(summary: DataSummary) -> list[tuple[str, str]]:
    facts = [("kicks", f"{summary.kicks:,}, of which {summary.successes / summary.kicks:.1%} succeeded")]
    if summary.kickers is not None:
        facts.append(("kickers", f"{summary.kickers:,}"))
    facts.append(("refused", f"{summary.refused:,}"))
    facts += [(f"missing {name}", f"{count:,}") for name, count in summary.missing.items()]
    counted = ", counted once" if summary.duplicates and summary.counted_once else ""
    facts.append(("duplicates", f"{summary.duplicates:,}{counted}"))
    for feature in FEATURES:
        column = summary.columns[feature.name]
        if feature.kind == "flag":
            facts.append((feature.name, f"set in {column.mean:.0%}"))
        else:
            unit = f" {feature.unit}".rstrip()
            facts.append(
                (feature.name, f"{column.low:.3g} to {column.high:.3g}{unit}, mean {column.mean:.3g}")
            )
    return facts


def _table(report: TrainingReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(f"{report.compared_on:,} kicks", no_wrap=True)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for each in report.candidates:
        cells = _cells(each.measured)
        # The AUC of a constant says nothing: only its folds differ.
        table.add_row(each.kind, *(cells if each.kind != CONSTANT else [*cells[:-1], ""]))
    table.add_row("the new model", *_cells(report.measured), style="bold")
    if report.in_use is not None:
        table.add_row("in use", *_cells(report.in_use.measured))
        table.add_row("difference", *_cells(report.in_use.difference, sign="+"))
    return table


def _cells(measured: Measures, sign: str = "") -> list[str]:
    return [_cell(each, sign) for each in (measured.brier, measured.log_loss, measured.ece, measured.auc)]


def _cell(measure: Measure, sign: str) -> str:
    return f"{measure.value:{sign}.4f} ±{f'{measure.se:.4f}'.removeprefix('0')}"


def _model(report: TrainingReport, output: str) -> list[tuple[str, str]]:
    gain = f"{report.calibration_gain.value:+.5f} ± {report.calibration_gain.se:.5f} of log loss"
    why = "as asked for" if report.asked_for else _WHY[report.kind]
    facts = [("chosen", f"{report.kind}: {why}")]
    if report.recalibration is None:
        facts.append(("calibration", f"{'kept' if report.calibrated else 'not kept'}: it gains {gain}"))
    else:
        moved = "times {slope:.3f}, then {offset:+.3f}".format(**report.recalibration)
        facts.append(("log-odds", moved))
    if report.ability_sd is not None:
        facts.append(("spread of ability", f"{report.ability_sd:.2f} in log-odds"))
    if report.in_use is not None:
        seen = "; it was trained on these very kicks, so its figures flatter it" if report.in_use.seen else ""
        facts.append(("in use", f"{report.in_use.name}, revision {report.in_use.revision}{seen}"))
    return [*facts, ("model", f"{output}, revision {report.revision}")]
