"""The command `kickserve kickers`: the table of kickers, of stored predictions or of a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.markup import escape

from kickserve.plugins import (
    FiniteRange,
    Settings,
    discover,
    load_model,
    open_store,
    print_json,
    print_table,
    progress,
    say,
)
from kickserve_data import DataError
from kickserve_data.columns import KICKERS, features_of
from kickserve_data.kicks import show_refusals
from kickserve_data.reader import count_rows
from kickserve_data.scoring import ROWS_REFUSED
from kickserve_learning.file import read_heard
from kickserve_learning.settings import LearningSettings
from kickserve_scores.kickers import POINTS, SORTS, KickerRow, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve_data.kicks import RefusedRow


@click.command("kickers")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--kicker", help="Column of FILE that names the kicker.  [default: kicker, player, …]")
@click.option("--outcome", help="Column of FILE with the outcome.  [default: success, outcome, made, …]")
@click.option(
    "--column", multiple=True, metavar="NAME=COLUMN", help="Column of a feature in FILE; repeatable."
)
@click.option("--sort", type=click.Choice(SORTS), default=SORTS[0], show_default=True, help="Order.")
@click.option(
    "--points",
    type=FiniteRange(0, min_open=True),
    default=POINTS,
    show_default=True,
    help="Points of a kick: 3 for penalties, 2 for conversions.",
)
@click.option("--limit", type=click.IntRange(1), help="Largest number of kickers.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, like the answer of the API.")
def command(file: Path | None, **options: Any) -> int:
    r"""List kickers: kicks, made, expected, points above expected, ability.

    Of stored predictions whose outcome is known, or of FILE (CSV, Parquet, JSON, a spreadsheet), whose kicks
    the model scores. Expected is what a kicker of unknown ability makes, by the model; intervals are 95 %.

    \b
    Examples:
      kickserve kickers
      kickserve kickers season.csv --kicker player --points 2
      kickserve kickers --sort ability --limit 20 --json
    """
    if file is None and (options["kicker"] or options["outcome"] or options["column"]):
        raise click.UsageError("--kicker, --outcome and --column name columns of a file: name the FILE too")
    settings = Settings.load()
    learns = LearningSettings.load(settings.environ).learns
    tally, refusals = Tally(level=learns.level), list["RefusedRow"]()
    if file is None:
        asyncio.run(_add_stored(tally, settings))
    else:
        refusals = _add_file(tally, settings, file, options)
    rows, _ = tally.page(options["sort"], options["points"], limit=options["limit"])
    if options["as_json"]:
        print_json(rows)
    else:
        show_refusals(refusals, len(refusals))
        _show(rows)
    return ROWS_REFUSED if refusals else 0


async def _add_stored(tally: Tally, settings: Settings) -> None:
    async with open_store(settings, read_only=True) as store:
        with progress() as bar:
            task = bar.add_task("reading", total=None)
            async for group in store.known_outcomes():
                tally.take(group)
                bar.advance(task, len(group))


def _add_file(tally: Tally, settings: Settings, file: Path, options: dict[str, Any]) -> list[RefusedRow]:
    model = load_model(settings, discover(settings))
    with progress() as bar:
        task = bar.add_task("reading", total=count_rows(file))
        heard = read_heard(
            file,
            model,
            kicker=options["kicker"],
            outcome=options["outcome"],
            features=features_of(options["column"]),
            advance=lambda count: bar.advance(task, count),
        )
    if not heard.named:
        raise DataError(f"{file} has no column {KICKERS[0]}: name the column of kickers with --kicker")
    for each in zip(heard.base.tolist(), heard.kicker, heard.success.tolist(), strict=True):
        tally.update(*each)
    return heard.refusals


def _show(rows: Sequence[KickerRow]) -> None:
    if not rows:
        say("no kick has both a kicker and an outcome yet")
        return
    heads = ("kicker", "kicks", "made", "expected", "points above", "95 %", "ability", "95 %")
    print_table(heads, [_cells(row) for row in rows])


def _cells(row: KickerRow) -> tuple[str, ...]:
    return (
        escape(row.kicker),
        f"{row.kicks:,}",
        f"{row.made:,}",
        f"{row.expected:.1f}",
        f"{row.points:+.1f}",
        f"{row.points_from:+.1f} to {row.points_to:+.1f}",
        f"{row.ability:+.2f}",
        f"{row.ability_from:+.2f} to {row.ability_to:+.2f}",
    )
