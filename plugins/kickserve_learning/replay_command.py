"""The command `kickserve replay`: what learning from outcomes would have brought, on kicks of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from kickserve.plugins import (
    Settings,
    discover,
    load_source,
    print_json,
    print_table,
    progress,
    say,
    source_of,
    stdout,
)
from kickserve_data.columns import features_of
from kickserve_data.kicks import show_refusals
from kickserve_data.reader import count_rows
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_learning.file import Heard, read_heard
from kickserve_learning.replay import Changes, Measured, Replay, replay

if TYPE_CHECKING:
    from kickserve_scores.alarm import Change


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kicker", help="Column of FILE that names the kicker.  [default: kicker, player, …]")
@click.option("--outcome", help="Column of FILE with the outcome.  [default: success, outcome, made, …]")
@click.option(
    "--column", multiple=True, metavar="NAME=COLUMN", help="Column of a feature in FILE; repeatable."
)
@click.option("--model", help="Model: a file, hf:owner/name or its URL. Default: KICKSERVE_MODEL.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(
    file: Path,
    kicker: str | None,
    outcome: str | None,
    column: tuple[str, ...],
    model: str | None,
    *,
    as_json: bool,
) -> int:
    r"""Measure what learning from outcomes would have brought, on the kicks of FILE (CSV, Parquet, JSON, …).

    The command goes through the kicks with an outcome in the order of their dates (2012-03-17), or without
    such a column in that of the file, which should be that of time. Features other than distance and angle
    may be missing: such a kick counts as the mean kick. The command predicts each kick, then hears its
    outcome: by the model alone, with the level learned, and with the level and the kickers learned, as
    KICKSERVE_LEARN=level,kickers would. It also says when the alarm on outcomes would have been raised.

    Exit codes: 0 done; 2 wrong use or wrong settings; 3 done, but lines of FILE were refused.

    \b
    Examples:
      kickserve replay season.csv
      kickserve replay season.parquet --kicker player --json
      kickserve replay public.csv --column distance=dist_m --outcome goal
    """
    settings = Settings.load()
    plugins = discover(settings)
    with progress() as bar:
        task = bar.add_task("reading", total=count_rows(file))
        loaded = load_source(model or source_of(settings), plugins)
        heard = read_heard(
            file,
            loaded,
            kicker=kicker,
            outcome=outcome,
            features=features_of(column),
            advance=lambda count: bar.advance(task, count),
        )
        bar.update(task, description="replaying", completed=0, total=len(heard.base))
        found, changes = replay(heard, lambda count: bar.advance(task, count))
    if as_json:
        print_json(found)
    else:
        show_refusals(heard.refusals, len(heard.refusals))
        _show(heard, found, changes)
    return ROWS_REFUSED if heard.refusals else 0


def _show(heard: Heard, found: Replay, changes: Changes) -> None:
    rows = [("the model", found.base), ("+ the level", found.level), ("+ the kicker", found.kickers)]
    print_table(
        ("", "Brier", "log loss", "ECE", "AUC", "n"),
        [(name, *_cells(measured)) for name, measured in rows if measured is not None],
    )
    if found.kickers is None:
        say("note: the file has no column of kickers, or several: --kicker names one, and adds a row")
    named = [each for each in heard.kicker if each is not None]
    if heard.named:
        stdout().print(f"\nkickers: {len(set(named)):,}; kicks without one: {len(heard.base) - len(named):,}")
    stdout().print()
    stdout().print(f"alarm on the model: {_alarm(changes.base)}")
    stdout().print(f"alarm on what was learned: {_alarm(changes.learned)}")


def _cells(measured: Measured) -> tuple[str, ...]:
    auc = "" if measured.auc is None else f"{measured.auc:.4f}"
    return f"{measured.brier:.4f}", f"{measured.log_loss:.4f}", f"{measured.ece:.4f}", auc, f"{measured.n:,}"


def _alarm(change: Change | None) -> str:
    if change is None:
        return "none, its probabilities fit the outcomes"
    return f"at line {change.at:.0f}, since line {change.since:.0f}: {change.text}"
