"""What `kickserve evaluate` shows in the terminal: the verdict, the figures, the quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kickserve.terminal import print_facts, print_table, say, stdout
from kickserve_drift.report import arrow, unit
from kickserve_drift.words import facts, measured

if TYPE_CHECKING:
    from pathlib import Path

    from kickserve.schemas import Drifted
    from kickserve_drift.findings import Holes
    from kickserve_drift.report import Report


def show(report: Report, page: Path) -> None:
    """Write a report."""
    stdout().print(Text(report.details.verdict, style="bold red" if report.drifted else "bold green"))
    stdout().print()
    print_facts(facts(report))
    stdout().print()
    stdout().print(_figures(report))
    heads, rows = measured(report)
    if rows:
        print_table(heads, rows)
    stdout().print()
    for note in report.details.notes:
        say(f"note: {note}")
    print_facts([("report", str(page)), *_uploaded(report)])


def _figures(report: Report) -> Table:
    holes = {each.name: each for each in report.details.holes}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    heads = ["PSI", "limit", "drifted", "mean now", "before", *_gap_heads(report)]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for column in (*report.features, report.prediction):
        gaps = _gaps(holes.get(column.name), report)
        style = "bold red" if column.drifted else None
        table.add_row(column.name, *_cells(column), *gaps, style=style)
    return table


def _cells(column: Drifted) -> list[str]:
    means = [f"{mean:.3g}{unit(column.name)}" for mean in (column.mean, column.reference_mean)]
    return [
        f"{column.psi:.3f}",
        f"{column.limit:.3f}",
        f"yes {arrow(column)}" if column.drifted else "no",
        *means,
    ]


def _gap_heads(report: Report) -> list[str]:
    """Name the columns for values that tell little: only those that are needed, so that the rest has room."""
    holes = report.details.holes
    missing = ["missing"] if any(each.missing for each in holes) else []
    return [*missing, *(["outside"] if any(each.out_of_range + each.unknown for each in holes) else [])]


def _gaps(gaps: Holes | None, report: Report) -> list[str]:
    shares = {} if gaps is None else {"missing": gaps.missing, "outside": gaps.out_of_range + gaps.unknown}
    return [f"{shares[head]:.1%}" if shares.get(head) else "" for head in _gap_heads(report)]


def _uploaded(report: Report) -> list[tuple[str, str]]:
    uploaded = report.details.uploaded
    return [] if uploaded is None else [("uploaded to", uploaded)]
