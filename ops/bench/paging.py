"""Measures the stores: records a second by size of group, the time of a page near and far, and retention.

Run it as  python -m ops.bench paging [--records N] [--months M] [--postgres URL] [--json]. The records are
spread evenly over the months, and the oldest three months are removed at the end, as the service does it
itself. The database that --postgres names must have no table `predictions`; ours is dropped at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from kickserve.ids import instant
from kickserve.settings import Settings
from kickserve.store import Retention
from kickserve_storage import create_plugin
from kickserve_testing.contract import START, record_at, records_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kickserve.schemas import Record
    from kickserve.store import Store

GROUPS: Final = (1, 100, 5_000)
PAGE: Final = 100
REPEATS: Final = 50
GROUP_SECONDS: Final = 1.5  # how long each size of group is measured
MONTH: Final = 2_629_746_000  # milliseconds, on average
REMOVED: Final = 3  # months


async def rate(store: Store, records: Iterator[Record], size: int) -> tuple[float, int]:
    """Return the records a second that the store takes in groups of a size, and how many it took."""
    spent, added = 0.0, 0
    while spent < GROUP_SECONDS:
        group = list(islice(records, size))
        began = time.perf_counter()
        await store.add(group)
        spent += time.perf_counter() - began
        added += size
    return added / spent, added


async def fill(store: Store, records: Iterator[Record], number: int) -> None:
    """Add that many records."""
    while number > 0:
        group = list(islice(records, min(5_000, number)))
        await store.add(group)
        number -= len(group)


async def page_time(store: Store, millisecond: int) -> float:
    """Return the median time, in milliseconds, of a page of the records made before an instant."""
    before = record_at(millisecond).id
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        page = await store.page(PAGE, before=before)
        times.append(time.perf_counter() - began)
        assert len(page) == PAGE, "the store holds too few records"
    return 1_000 * median(times)


async def retention(store: Store, until: int) -> dict[str, float]:
    """Let the service's own retention remove all that was made before an instant."""
    before = await store.count()
    began = time.perf_counter()
    await Retention(store, None).remove_old(datetime.now(UTC) - instant(until))
    seconds = time.perf_counter() - began
    removed = before - await store.count()
    return {"rows": removed, "seconds": seconds, "rows_per_second": removed / seconds}


async def measure(name: str, store: Store, number: int, months: int) -> dict[str, Any]:
    """Measure an empty store: rates first, then pages of at least `number` records, then retention."""
    await store.open()
    step = max(months * MONTH // number, 1)
    records = records_from(step=step)
    added: dict[str, Any] = {}
    kept = 0
    for size in GROUPS:
        added[str(size)], more = await rate(store, records, size)
        kept += more
    await fill(store, records, number - kept)
    total = max(number, kept)
    places = {"newest": total, "middle": total // 2, "oldest": PAGE}
    pages = {place: await page_time(store, START + at * step) for place, at in places.items()}
    removed = await retention(store, START + min(REMOVED * MONTH, total * step))
    figures = {"added_per_second": added, "page_ms": pages, "retention": removed}
    return {"store": name, "records": total, "months": months, **figures}


async def sqlite(number: int, months: int) -> dict[str, Any]:
    """Measure a SQLite file in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        store = create_plugin(Settings()).create_store(f"sqlite:///{folder}/bench.db")
        try:
            return await measure("SQLite", store, number, months)
        finally:
            await store.close()


async def postgres(url: str, number: int, months: int) -> dict[str, Any]:
    """Measure a Postgres database, and drop our tables from it."""
    import asyncpg  # type: ignore[import-untyped] # it ships no types; an extra, so imported when asked for

    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regclass('predictions')"):
            raise SystemExit("that database has a table predictions: name one that nothing is lost with")
        store = create_plugin(Settings()).create_store(url)
        try:
            return await measure("Postgres", store, number, months)
        finally:
            await store.close()
            await connection.execute("DROP TABLE IF EXISTS predictions, kickserve_schema")
    finally:
        await connection.close()


def table(results: list[dict[str, Any]]) -> Table:
    """Lay the results out for a person."""
    made = Table(title=f"Stores: adding, and a page of {PAGE}")
    made.add_column("store")
    made.add_column("records", justify="right")
    for size in GROUPS:
        made.add_column(f"rows/s by {size:,}", justify="right")
    for place in ("newest", "middle", "oldest"):
        made.add_column(f"page {place}", justify="right")
    made.add_column("removed, rows/s", justify="right")
    for each in results:
        rates = (f"{value:,.0f}" for value in each["added_per_second"].values())
        pages = (f"{value:.2f} ms" for value in each["page_ms"].values())
        removed = f"{each['retention']['rows_per_second']:,.0f}"
        made.add_row(each["store"], f"{each['records']:,}", *rates, *pages, removed)
    return made


def main() -> None:
    """Measure the stores that the command line names."""
    asyncio.run(measure_all())


async def measure_all() -> None:
    """Measure them one after the other."""
    parser = argparse.ArgumentParser(description="Measures the stores of predictions.")
    parser.add_argument("--records", type=int, default=1_000_000, help="records to page through")
    parser.add_argument("--months", type=int, default=13, help="months to spread them over")
    parser.add_argument("--postgres", metavar="URL", help="an empty Postgres database to measure too")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    asked = parser.parse_args()
    results = [await sqlite(asked.records, asked.months)]
    if asked.postgres:
        results.append(await postgres(asked.postgres, asked.records, asked.months))
    if asked.json:
        json.dump(results, sys.stdout, indent=2)
    else:
        Console().print(table(results))
