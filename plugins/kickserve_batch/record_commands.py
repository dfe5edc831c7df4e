"""`kickserve outcomes` puts outcomes into kept predictions; `kickserve export` writes all of them."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import rich_click as click

from kickserve.plugins import (
    Instant,
    ServiceUrl,
    SetOutcome,
    Settings,
    open_store,
    print_facts,
    print_json,
    progress,
    say,
)
from kickserve.schemas import OutcomeOf, OutcomesKept, Record, cells_of, column_names
from kickserve_data import DataError
from kickserve_data.columns import OUTCOMES
from kickserve_data.kicks import RefusedRow, must_be, show_refusals
from kickserve_data.reader import count_rows, open_kicks
from kickserve_data.scoring import REFUSALS_KEPT, ROWS_REFUSED
from kickserve_data.writer import STDOUT, open_writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from kickserve.plugins import Store

    Keep = Callable[[Sequence[OutcomeOf]], Awaitable[OutcomesKept]]

_CHUNK: Final = 1_000  # outcomes a request or transaction
_COLUMNS: Final = column_names(Record)


class OutcomesSummary(msgspec.Struct):
    """The result of `kickserve outcomes`.

    Attributes:
        kept: outcomes kept.
        refused: rows that hold no outcome, or an unknown id.
        refusals: the first thousand of those rows, with their reasons.
    """

    kept: int = 0
    refused: int = 0
    refusals: list[RefusedRow] = []

    def refuse(self, rows: Sequence[RefusedRow]) -> None:
        """Count refused rows."""
        self.refused += len(rows)
        self.refusals += rows[: REFUSALS_KEPT - len(self.refusals)]


@click.command("outcomes")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--url",
    type=ServiceUrl(),
    help="Base URL of a running service. Default: write to DATABASE_URL directly.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def outcomes(file: Path, url: str | None, *, as_json: bool) -> int:
    r"""Store outcomes of kicks: FILE has columns `id` and `success` (1 or 0).

    A later outcome of a kick replaces an earlier one.

    \b
    Examples:
      kickserve outcomes results.csv
      kickserve outcomes results.parquet --url http://127.0.0.1:7860
    """
    summary = asyncio.run(_keep_outcomes(file, url))
    if as_json:
        print_json(summary)
    else:
        show_refusals(summary.refusals, summary.refused)
        print_facts([("kept", f"{summary.kept:,}"), ("refused", f"{summary.refused:,}")])
    return ROWS_REFUSED if summary.refused else 0


@click.command("export")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=STDOUT,
    help="A file: .csv, .parquet or .ndjson. Default: CSV to standard output.",
)
@click.option(
    "--since",
    type=Instant(),
    help="Only predictions made at this time (UTC) or later, or since an age such as 24h or 7d.",
)
@click.option(
    "--until", type=Instant(), help="Only predictions made before this time (UTC), or before an age."
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def export(output: Path, since: datetime | None, until: datetime | None, *, as_json: bool) -> None:
    r"""Write all stored predictions, oldest first, to a file or to standard output.

    \b
    Examples:
      kickserve export --since 24h | head
      kickserve export --output predictions.parquet
      kickserve export --since 2026-11-01 --output november.csv
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--until must be later than --since")
    if output == STDOUT and as_json:
        raise click.UsageError("--json describes a file: name one with --output")
    count = asyncio.run(_export(output, since, until))
    if output == STDOUT:
        say(f"{count:,} predictions")
    elif as_json:
        print_json({"file": str(output), "predictions": count})
    else:
        print_facts([("file", str(output)), ("predictions", f"{count:,}")])


async def _keep_outcomes(file: Path, url: str | None) -> OutcomesSummary:
    settings = Settings.load()
    summary = OutcomesSummary()
    async with AsyncExitStack() as stack:
        if url is None:
            keep = _into(await stack.enter_async_context(open_store(settings)))
        else:
            from kickserve_client import connected

            keep = (await stack.enter_async_context(connected(url, settings))).tell_outcomes
        bar = stack.enter_context(progress())
        task = bar.add_task("keeping", total=count_rows(file))
        for found, refusals in _read_outcomes(file):
            summary.refuse(refusals)
            if found:
                kept = await keep([OutcomeOf(id=each, success=success) for _, each, success in found])
                summary.kept += kept.kept
                unknown = set(kept.unknown)
                summary.refuse([_unknown(line, each) for line, each, _ in found if each in unknown])
            bar.advance(task, len(found) + len(refusals))
    return summary


def _read_outcomes(path: Path) -> Iterator[tuple[list[tuple[int, str, bool]], list[RefusedRow]]]:
    """Read outcomes of kicks: blocks of line, id and success, and the rows that were refused.

    Raises:
        DataError: the file can't be read, or has no columns `id` and `success`.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    source = open_kicks(path, ("id",))
    if source.cells.outcome is None:
        raise DataError(f"{path} has no column {OUTCOMES[0]}: it must say 1 or 0 for each id")
    while rows := list(islice(source.rows, _CHUNK)):
        found: list[tuple[int, str, bool]] = []
        refusals: list[RefusedRow] = []
        for line, cells in rows:
            success = math.nan if isinstance(cells, str) else source.cells.outcome_of(cells[1])
            if isinstance(cells, str):
                refusals.append(RefusedRow(line, cells))
            elif not isinstance(cells[0], str) or not cells[0].strip():
                refusals.append(RefusedRow(line, "id is missing"))
            elif success not in {0.0, 1.0}:
                refusals.append(RefusedRow(line, must_be(source.cells.outcome, cells[1], "1 or 0")))
            else:
                found.append((line, cells[0].strip(), success == 1))
        yield found, refusals
    source.report()


def _unknown(line: int, record_id: str) -> RefusedRow:
    return RefusedRow(line, f"no stored prediction has the id '{record_id[:60]}'")


def _into(store: Store) -> Keep:
    async def keep(outcomes: Sequence[OutcomeOf]) -> OutcomesKept:
        now = datetime.now(UTC)
        missing = await store.set_outcomes(
            [SetOutcome(each.id, bool(each.success), now) for each in outcomes]
        )
        unknown = [each.id for each in outcomes if each.id in missing]
        return OutcomesKept(kept=len(outcomes) - len(unknown), unknown=unknown)

    return keep


async def _export(output: Path, since: datetime | None, until: datetime | None) -> int:
    count = 0
    async with open_store(Settings.load(), read_only=True) as store:
        with progress() as bar, open_writer(output, _COLUMNS) as writer:
            task = bar.add_task("exporting", total=await store.count() if since is until is None else None)
            async for records in store.stream(since=since, until=until):
                writer.write(_columns(records))
                count += len(records)
                bar.advance(task, len(records))
    return count


def _columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    return dict(zip(_COLUMNS, map(list, zip(*map(cells_of, records), strict=True)), strict=True))
