"""`kickserve export`: every kept prediction, into a file, in memory that does not grow with their number."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from kickserve.ids import in_utc
from kickserve.plugins import open_store
from kickserve.schemas import Record
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress
from kickserve_data.writer import open_writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# The interval makes two columns: not every kind of table can hold a pair.
_COLUMNS: Final = tuple(
    column
    for name in Record.__struct_fields__
    for column in (("low", "high") if name == "interval" else (name,))
)


@click.command("export")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A file: .csv, .parquet or .ndjson.",
)
@click.option("--since", type=click.DateTime(), help="Only predictions made at this time (UTC) or later.")
@click.option("--until", type=click.DateTime(), help="Only predictions made before this time (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(output: Path, since: datetime | None, until: datetime | None, *, as_json: bool) -> None:
    r"""Write every kept prediction to a file, oldest first.

    \b
    Examples:
      kickserve export --output predictions.parquet
      kickserve export --since 2026-11-01 --output november.csv
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("nothing lies between --since and --until: --until must be the later one")
    count = asyncio.run(_export(output, in_utc(since), in_utc(until)))
    if as_json:
        print_json({"file": str(output), "predictions": count})
    else:
        print_facts([("file", str(output)), ("predictions", f"{count:,}")])


async def _export(output: Path, since: datetime | None, until: datetime | None) -> int:
    count = 0
    async with open_store(Settings.load()) as store:
        with progress() as bar, open_writer(output, _COLUMNS) as writer:
            task = bar.add_task("exporting", total=await store.count() if since is until is None else None)
            async for records in store.stream(since=since, until=until):
                writer.write(_columns(records))
                count += len(records)
                bar.advance(task, len(records))
    return count


def _columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    intervals = [record.interval or (None, None) for record in records]
    ends = {"low": [low for low, _ in intervals], "high": [high for _, high in intervals]}
    return {
        name: ends[name] if name in ends else [getattr(each, name) for each in records] for name in _COLUMNS
    }
