"""`kickserve outcomes`: what came of kicks that were predicted before, from a file."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from kickserve.cli import ServiceUrl
from kickserve.plugins import open_store
from kickserve.record import SetOutcome
from kickserve.recorder import carry_out
from kickserve.schemas import OutcomeOf, OutcomesKept
from kickserve.settings import Settings
from kickserve.terminal import print_facts, print_json, progress
from kickserve_data import reader
from kickserve_data.kicks import RefusedRow, show_refusals
from kickserve_data.scoring import REFUSALS_KEPT, ROWS_REFUSED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kickserve.store import Store

    Keep = Callable[[Sequence[OutcomeOf]], Awaitable[OutcomesKept]]


class Summary(msgspec.Struct):
    """What a run came to.

    Attributes:
        kept: outcomes kept.
        refused: lines that hold no outcome, or whose id is unknown.
        refusals: the first thousand of those lines, with their reasons.
    """

    kept: int = 0
    refused: int = 0
    refusals: list[RefusedRow] = []


@click.command("outcomes")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--url",
    type=ServiceUrl(),
    help="Base URL of a running service. Without it: straight into DATABASE_URL.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the summary as JSON.")
def command(file: Path, url: str | None, *, as_json: bool) -> int:
    r"""Keep what came of kicks: FILE has columns `id` and `success` (1 or 0).

    It may be told again: the newest word holds.

    \b
    Examples:
      kickserve outcomes results.csv
      kickserve outcomes results.parquet --url http://127.0.0.1:7860
    """
    summary = asyncio.run(_run(file, url))
    if as_json:
        print_json(summary)
    else:
        show_refusals(summary.refusals, summary.refused)
        print_facts([("kept", f"{summary.kept:,}"), ("refused", f"{summary.refused:,}")])
    return ROWS_REFUSED if summary.refused else 0


async def _run(file: Path, url: str | None) -> Summary:
    settings = Settings.load()
    summary = Summary()
    async with AsyncExitStack() as stack:
        if url is None:
            keep = _into(await stack.enter_async_context(open_store(settings)))
        else:
            from kickserve_client.remote import connected

            keep = (await stack.enter_async_context(connected(url, settings))).tell_outcomes
        bar = stack.enter_context(progress())
        task = bar.add_task("keeping", total=reader.count_rows(file))
        for rows, refusals in reader.read_outcomes(file):
            _count(summary, refusals)
            if rows:
                kept = await keep([OutcomeOf(id=each, success=success) for _, each, success in rows])
                summary.kept += kept.kept
                unknown = set(kept.unknown)
                _count(summary, [_unknown(line, each) for line, each, _ in rows if each in unknown])
            bar.advance(task, len(rows) + len(refusals))
    return summary


def _count(summary: Summary, refusals: list[RefusedRow]) -> None:
    summary.refused += len(refusals)
    summary.refusals += refusals[: REFUSALS_KEPT - len(summary.refusals)]


def _unknown(line: int, record_id: str) -> RefusedRow:
    return RefusedRow(line, f"no prediction is kept under the id '{record_id[:60]}'")


def _into(store: Store) -> Keep:
    async def keep(outcomes: Sequence[OutcomeOf]) -> OutcomesKept:
        now = datetime.now(UTC)
        missing = await carry_out(store, [SetOutcome(each.id, each.success, now) for each in outcomes])
        unknown = [each.id for each in outcomes if each.id in missing]
        return OutcomesKept(kept=len(outcomes) - len(unknown), unknown=unknown)

    return keep
