"""`kickserve evaluate`: whether kicks, and what the model says of them, have drifted; and how good it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve.cli import FiniteRange, ServiceUrl
from kickserve.ids import in_utc
from kickserve.settings import Settings
from kickserve.terminal import print_json
from kickserve_data.engines import engine_config_of, engine_options
from kickserve_data.kicks import show_refusals
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_drift.drift import Limits
from kickserve_drift.kicks import Window
from kickserve_drift.telling import as_bar, as_lines, line

if TYPE_CHECKING:
    from kickserve_drift.evaluating import Made

DRIFTED: Final = 4
"""The exit code of `--fail-on-drift`."""

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}


def _moment(_: Any, __: Any, value: str | None) -> datetime | None:
    """Read a time in UTC, or how long ago it was."""
    if value is None:
        return None
    try:
        if value[:-1].isdecimal() and value[-1:] in _UNITS:
            return datetime.now(UTC) - timedelta(**{_UNITS[value[-1]]: int(value[:-1])})
        return in_utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no time such as 2026-11-24T18:00, 24h or 7d") from None


@click.command("evaluate")
@click.argument("file", required=False)
@click.option("--reference", type=click.Path(path_type=Path), help="A file of kicks to hold them against.")
@click.option(
    "--url",
    type=ServiceUrl(),
    help="Base URL of a running service that keeps the kicks. Without it: DATABASE_URL.",
)
@click.option("--since", callback=_moment, help="Only kicks predicted since: a time (UTC), or 24h or 7d ago.")
@click.option("--until", callback=_moment, help="Only kicks predicted before then.")
@click.option("--last", type=click.IntRange(1), help="Only the newest so many kicks.")
@click.option("--model", help="Only kicks that the model of this name predicted.")
@click.option("--share", type=FiniteRange(0, 1, min_open=True), help="Overrides KICKSERVE_DRIFT_SHARE.")
@click.option("--psi", type=FiniteRange(0), help="Overrides KICKSERVE_DRIFT_PSI.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of samples.")
@engine_options
@click.option("--fail-on-drift", is_flag=True, help="End with exit code 4 where there is drift.")
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
@click.option("--json-progress", is_flag=True, help="Write progress as JSON to the standard error.")
def command(**options: Any) -> int:
    r"""Say whether kicks have drifted from what the model knows, and how good its predictions are.

    By default it looks at the kept kicks that are new since its last report, 1,000 at most; where less than
    50 are new, at those of that report again. With FILE (CSV, Parquet or NDJSON) it looks at the kicks there.
    FILE may be a folder of Parquet files, a pattern or a URL (s3://...) as well, and with --engine dask a
    cluster reads it, a row group at a time. The figures are the same, whoever reads them.
    They are held against the model's own profile of its training, or against the kicks of --reference.

    The report goes to KICKSERVE_REPORTS as HTML, drawn by Evidently, and as JSON.

    Exit codes: 0 done; 2 what can't be used; 3 done, but lines of FILE were refused;
    4 drifted, with --fail-on-drift; 5 fewer than 50 kicks; 6 the store or the service is away.

    \b
    Examples:
      kickserve evaluate
      kickserve evaluate --since 24h --fail-on-drift
      kickserve evaluate kicks.csv --reference last-season.parquet
      kickserve evaluate s3://kicks/2026/ --engine dask
      kickserve evaluate --url http://127.0.0.1:7860 --last 100000
    """
    settings = Settings.load()
    made = _run(settings, **options)
    report = made.report
    if options["as_json"]:
        print_json(report)
    elif not options["json_progress"]:
        _show(made)
    if made.trouble is not None:
        raise made.trouble
    if options["json_progress"]:
        line(stage="done", done=1, report=made.page.with_suffix(".json").name)
    if options["fail_on_drift"] and report.drifted:
        return DRIFTED
    return ROWS_REFUSED if report.details.refused else 0


def _run(settings: Settings, **options: Any) -> Made:
    from kickserve_drift.evaluating import Job, evaluate

    window = Window(**{name: options[name] for name in ("since", "until", "last", "model")})
    if options["file"] is not None and (window != Window() or options["url"] is not None):
        raise click.UsageError(
            "--url, --since, --until, --last and --model choose among kept kicks: leave FILE out"
        )
    limits = Limits(
        psi=settings.drift_psi if options["psi"] is None else options["psi"],
        share=options["share"] or settings.drift_share,
    )
    same = {name: options[name] for name in ("file", "reference", "url", "seed")}
    job = Job(window=window, limits=limits, where=engine_config_of(options), **same)
    with (as_lines if options["json_progress"] else as_bar)() as tell:
        return evaluate(job, settings, tell)


def _show(made: Made) -> None:
    from kickserve_drift.shown import show

    show_refusals(made.report.details.refusals, made.report.details.refused)
    show(made.report, made.page)
