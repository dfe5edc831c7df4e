"""What `kickserve train` says to a person: the data, the families, the model, and the model in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from kickserve.features import FEATURES
from kickserve.terminal import print_facts, say, stdout
from kickserve_train.families import CONSTANT

if TYPE_CHECKING:
    from kickserve_train.checks import Findings
    from kickserve_train.measures import Measured, Value
    from kickserve_train.teach import Report

_HEADS: Final = ("Brier", "log loss", "ECE", "AUC")


def show(report: Report, output: str) -> None:
    """Write what training came to."""
    for warning in report.warnings:
        say(f"warning: {warning}")
    print_facts(_data(report.findings))
    stdout().print()
    stdout().print(_table(report))
    stdout().print()
    print_facts(_model(report, output))


def _data(findings: Findings) -> list[tuple[str, str]]:
    facts = [("kicks", f"{findings.kicks:,}, of which {findings.successes / findings.kicks:.1%} succeeded")]
    if findings.kickers is not None:
        facts.append(("kickers", f"{findings.kickers:,}"))
    facts.append(("refused", f"{findings.refused:,}"))
    facts += [(f"missing {name}", f"{count:,}") for name, count in findings.missing.items()]
    facts.append(("duplicates", f"{findings.duplicates:,}"))
    for feature in FEATURES:
        column = findings.columns[feature.name]
        if feature.kind == "flag":
            facts.append((feature.name, f"set in {column.mean:.0%}"))
        else:
            unit = f" {feature.unit}".rstrip()
            facts.append(
                (feature.name, f"{column.low:.3g} to {column.high:.3g}{unit}, mean {column.mean:.3g}")
            )
    return facts


def _table(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(f"{report.compared_on:,} kicks", no_wrap=True)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for each in report.candidates:
        cells = _cells(each.measured)
        # The order of constants of different folds says nothing.
        table.add_row(each.kind, *(cells if each.kind != CONSTANT else [*cells[:-1], ""]))
    table.add_row("the new model", *_cells(report.measured), style="bold")
    if report.in_use is not None:
        table.add_row("in use", *_cells(report.in_use.measured))
        table.add_row("difference", *_cells(report.in_use.difference, sign="+"))
    return table


def _cells(measured: Measured, sign: str = "") -> list[str]:
    return [_cell(each, sign) for each in (measured.brier, measured.log_loss, measured.ece, measured.auc)]


def _cell(value: Value, sign: str) -> str:
    return f"{value.value:{sign}.4f} ±{f'{value.se:.4f}'.removeprefix('0')}"


def _model(report: Report, output: str) -> list[tuple[str, str]]:
    gain = f"{report.calibration_gain.value:+.5f} ± {report.calibration_gain.se:.5f} of log loss"
    why = "as asked for" if report.asked_for else "the simplest within one standard error of the best"
    facts = [
        ("chosen", f"{report.kind}: {why}"),
        ("calibration", f"{'kept' if report.calibrated else 'not kept'}: it gains {gain}"),
    ]
    if report.ability_sd is not None:
        facts.append(("spread of ability", f"{report.ability_sd:.2f} in log-odds"))
    if report.in_use is not None:
        facts.append(("in use", f"{report.in_use.name}, revision {report.in_use.revision}{_seen(report)}"))
    return [*facts, ("model", f"{output}, revision {report.revision}")]


def _seen(report: Report) -> str:
    seen = report.in_use is not None and report.in_use.seen
    return "; it was trained on these very kicks, so its figures flatter it" if seen else ""
