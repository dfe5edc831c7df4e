"""The command `kickserve evaluate`: its options, its progress, and the report in the terminal."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click
from rich.text import Text

from kickserve.plugins import (
    FiniteRange,
    Instant,
    ServiceUrl,
    Settings,
    print_facts,
    print_json,
    print_table,
    progress,
    say,
    stdout,
)
from kickserve_data.engines import engine_config_of, engine_options
from kickserve_data.kicks import show_refusals
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_drift.kicks import Selection
from kickserve_drift.psi import Limits
from kickserve_drift.settings import DriftSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve.plugins import KickserveError
    from kickserve_drift.evaluation import OnProgress
    from kickserve_drift.report import Report

DRIFTED: Final = 4
"""The exit code of `--fail-on-drift`."""

_STAGES: Final = {"reading": (0.0, 0.6), "drawing": (0.6, 0.95), "writing": (0.95, 1.0)}  # parts of the whole


@click.command("evaluate")
@click.argument("file", required=False)
@click.option("--reference", type=click.Path(path_type=Path), help="File of reference kicks.")
@click.option(
    "--url",
    type=ServiceUrl(),
    help="Base URL of a running service to read kicks from. Default: read DATABASE_URL.",
)
@click.option(
    "--since",
    type=Instant(),
    help="Only kicks predicted since a time (UTC), or since an age such as 24h or 7d.",
)
@click.option(
    "--until",
    type=Instant(),
    help="Only kicks predicted before a time (UTC), or before an age such as 24h or 7d.",
)
@click.option("--last", type=click.IntRange(1), help="Only this number of newest kicks.")
@click.option("--model", help="Only kicks predicted by the model of this name.")
@click.option(
    "--share",
    type=FiniteRange(0, 1, min_open=True),
    help="Overrides KICKSERVE_DRIFT_SHARE. Drifted predictions and an alarm on outcomes always are a drift.",
)
@click.option("--psi", type=FiniteRange(0), help="Overrides KICKSERVE_DRIFT_PSI.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of samples.")
@engine_options
@click.option("--fail-on-drift", is_flag=True, help="End with exit code 4 on drift.")
@click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
@click.option("--json-progress", is_flag=True, help="Write progress as JSON to standard error.")
def command(**options: Any) -> int:
    r"""Report drift of kicks from the training data of the model, and the quality of predictions.

    By default the command evaluates stored kicks since the last report, 1,000 at most; if fewer than 50 are
    new, the kicks of the last report again. FILE (CSV, Parquet, JSON, …) holds other kicks to evaluate.
    FILE may also be a folder of Parquet files, a pattern or a URL (s3://...), and with --engine dask a
    cluster reads one row group at a time, with the same figures.
    The reference is the model's profile of its training data, or the kicks of --reference.

    Outcomes tell whether kicks succeed as often as predicted: an alarm on them is a drift too. By default all
    stored outcomes of the model in use are heard, otherwise those of the selected kicks; without outcomes
    nothing can show such a change.

    The report goes to KICKSERVE_REPORTS as HTML, drawn by Evidently, and as JSON.

    Exit codes: 0 done; 2 wrong use or wrong settings; 3 done, but lines of FILE were refused; 4 drift, with
    --fail-on-drift; 5 fewer than 50 kicks; 6 the store or the service can't be reached.

    \b
    Examples:
      kickserve evaluate
      kickserve evaluate --since 24h --fail-on-drift
      kickserve evaluate kicks.csv --reference last-season.parquet
      kickserve evaluate s3://kicks/2026/ --engine dask
      kickserve evaluate --url http://127.0.0.1:7860 --last 100000
    """
    report, page, failure = _run(Settings.load(), options)
    if options["as_json"]:
        print_json(report)
    elif not options["json_progress"]:
        show_refusals(report.details.refusals, report.details.refused)
        _show(report, page)
    if failure is not None:
        raise failure
    if options["json_progress"]:
        _write_line(stage="done", done=1, report=page.with_suffix(".json").name)
    if options["fail_on_drift"] and report.drifted:
        return DRIFTED
    return ROWS_REFUSED if report.details.refused else 0


def _run(settings: Settings, options: dict[str, Any]) -> tuple[Report, Path, KickserveError | None]:
    from kickserve_drift.evaluation import Evaluation

    drift = DriftSettings.load(settings.environ)
    selection = Selection(**{name: options[name] for name in ("since", "until", "last", "model")})
    if options["file"] is not None and (selection != Selection() or options["url"] is not None):
        raise click.UsageError(
            "--url, --since, --until, --last and --model select stored kicks: leave FILE out"
        )
    psi = drift.psi if options["psi"] is None else options["psi"]
    with _progress(as_json=options["json_progress"]) as on_progress:
        return Evaluation(
            file=options["file"],
            reference=options["reference"],
            url=options["url"],
            selection=selection,
            limits=Limits(psi, options["share"] or drift.share),
            seed=options["seed"],
            engine=engine_config_of(options),
            settings=settings,
            drift=drift,
            on_progress=on_progress,
        ).run()


@contextmanager
def _progress(*, as_json: bool) -> Iterator[OnProgress]:
    """Show the progress on the standard error: as a bar in a terminal, or as JSON for the service."""
    reached = -1.0
    with progress(shares=True) if not as_json else nullcontext() as bar:
        task = None if bar is None else bar.add_task("reading", total=1.0)

        def on_progress(stage: str, share: float) -> None:
            nonlocal reached
            begin, end = _STAGES[stage]
            done = round(begin + (end - begin) * min(max(share, 0.0), 1.0), 3)
            if bar is not None and task is not None:
                bar.update(task, description=stage, completed=done)
            elif done > reached:
                reached = done
                _write_line(stage=stage, done=done)

        yield on_progress


def _write_line(**values: object) -> None:
    sys.stderr.write(json.dumps(values) + "\n")
    sys.stderr.flush()


def _show(report: Report, page: Path) -> None:
    from kickserve_drift.report import column_table, columns, facts, quality_table

    details, console = report.details, stdout()
    console.print(Text(details.verdict, style="bold red" if report.drifted else "bold green"))
    console.print()
    print_facts(facts(report))
    heads, rows = column_table(report)
    for row, column in zip(rows, columns(report), strict=True):
        row[:] = [f"[bold red]{cell}[/]" if column.drifted else cell for cell in row]
    print_table(heads, rows, gap=1)  # with all its columns it fits a terminal of 80
    quality = quality_table(report)
    if quality.rows:
        print_table(*quality)
    console.print()
    for note in details.notes:
        say(f"note: {note}")
    uploaded = [] if details.uploaded is None else [("uploaded to", details.uploaded)]
    print_facts([("report", str(page)), *uploaded])
