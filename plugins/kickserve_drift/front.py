"""What stands on top of the page that Evidently draws: the report in one line, and its figures."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from kickserve_drift.report import arrow, unit
from kickserve_drift.words import facts, measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kickserve.schemas import Drifted
    from kickserve_drift.report import Report

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
_HEADS: Final = ("", "PSI", "limit", "", "mean now", "mean before", "missing", "out of range")


def with_front(page: str, report: Report) -> str:
    """Put the front on a page of Evidently."""
    page = page.replace(
        "<head>", f"<head>{_POLICY}<title>{escape(report.details.verdict)}</title>{_STYLE}", 1
    )
    return page.replace("<body>", f"<body>{_section(report)}", 1)


def _section(report: Report) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.details.notes)
    kind = "kickserve drifted" if report.drifted else "kickserve"
    return (
        f'<section class="{kind}"><h1>{escape(report.details.verdict)}</h1>'
        f"{_list(facts(report))}{_figures(report)}{_quality(report)}{notes}</section>"
    )


def _figures(report: Report) -> str:
    holes = {each.name: each for each in report.details.holes}
    rows = []
    for column in (*report.features, report.prediction):
        gaps = holes.get(column.name)
        told = ("", "") if gaps is None else (_share(gaps.missing), _share(gaps.out_of_range + gaps.unknown))
        rows.append(_row([*_cells(column), *told], drifted=column.drifted))
    return _table(_HEADS, rows)


def _cells(column: Drifted) -> list[str]:
    said = f"drifted {arrow(column)}" if column.drifted else ""
    means = [f"{mean:.3g}{unit(column.name)}" for mean in (column.mean, column.reference_mean)]
    return [column.name, f"{column.psi:.3f}", f"{column.limit:.3f}", said, *means]


def _quality(report: Report) -> str:
    heads, rows = measured(report)
    return _table(heads, [_row(row) for row in rows]) if rows else ""


def _table(heads: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(cells: Iterable[str], *, drifted: bool = False) -> str:
    kind = ' class="drifted"' if drifted else ""
    return f"<tr{kind}>{''.join(f'<td>{escape(each)}</td>' for each in cells)}</tr>"


def _list(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>"


def _share(share: float) -> str:
    return f"{share:.1%}" if share else ""
