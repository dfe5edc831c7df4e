"""Measures the stores: SQLite, and a Postgres of its own where there is one. Things to compare take turns."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Final

import httpx
import numpy as np
from serving import BARE, serving

from kickserve.openapi import EXAMPLE
from kickserve.settings import Settings
from kickserve_storage import create_plugin
from kickserve_testing.contract_samples import START, batch_of, keep, record_at, records_from
from ops.bench import common
from ops.clients import Clients

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from kickserve.plugins import Store
    from kickserve.schemas import Record
    from ops.commands import Row

PAGE: Final = 100
GROUPS: Final = (1, 100, 5_000)
MONTH: Final = 2_629_746_000  # milliseconds, on average
ROUNDS: Final = 5
ALONE: Final = 4.0  # seconds of predictions without an export
CONNECTIONS: Final = 16
TOGETHER: Final = 50_000
# In a process of its own, or the clients would wait while it reads.
READER: Final = """
import sys, httpx
with httpx.stream("GET", sys.argv[1], headers={"Accept": "application/x-ndjson"}, timeout=300) as answer:
    print(sum(map(len, answer.raise_for_status().iter_raw())))
"""


async def paging(records: int = 1_000_000, months: int = 13) -> dict[str, list[Row]]:
    """Measure records a second by size of group, the time of a page near and far, and retention.

    Args:
        records: to page through.
        months: that they spread over.
    """

    async def measure(settings: dict[str, str]) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            url = settings.get("DATABASE_URL", f"sqlite:///{folder}/bench.db")
            return await of_store(url, records, months)

    return {f"{records:,} records, pages of {PAGE}": await common.with_each_store(measure)}


async def of_store(url: str, number: int, months: int) -> Row:
    """Fill an empty store, read pages of it, and remove the oldest three months."""
    store = create_plugin(Settings()).create_store(url)
    assert store is not None
    await store.open()
    try:
        step = max(months * MONTH // number, 1)
        records = records_from(step=step)
        rates = {f"rows/s by {size:,}": await rate(store, records, size) for size in GROUPS}
        while await store.count() < number:
            await keep(store, list(islice(records, GROUPS[-1])))
        places = {"newest": number, "middle": number // 2, "oldest": 2 * PAGE}
        pages = {f"{place} ms": await page_ms(store, START + at * step) for place, at in places.items()}
        limit = datetime.fromtimestamp((START + 3 * MONTH) / 1_000, UTC)
        began, removed = time.perf_counter(), 0
        while found := await store.purge(limit, GROUPS[-1]):
            removed += found
        return {**rates, **pages, "removed/s": removed / (time.perf_counter() - began)}
    finally:
        await store.close()


async def rate(store: Store, records: Iterator[Record], size: int, seconds: float = 1.5) -> float:
    """Return the records a second that a store takes in groups of a size."""
    spent, added = 0.0, 0
    while spent < seconds:
        group = [batch_of(record) for record in islice(records, size)]
        began = time.perf_counter()
        await store.add(group)
        spent += time.perf_counter() - began
        added += size
    return added / spent


async def page_ms(store: Store, millisecond: int, repeats: int = 50) -> float:
    """Return the median time of a page of the records made before an instant."""
    before, times = record_at(millisecond).id, []
    for _ in range(repeats):
        began = time.perf_counter()
        page = await store.page(PAGE, before=before)
        times.append(time.perf_counter() - began)
        assert len(page) == PAGE, "the store holds too few records"
    return 1_000 * median(times)


async def outcomes(many: int = 100_000, single: int = 300) -> dict[str, list[Row]]:
    """Measure outcomes together and one by one, and the longest that a lone client waited beside them.

    Args:
        many: outcomes together.
        single: one by one.
    """
    rows = await common.with_each_store(lambda settings: of_outcomes(settings, many, single))
    return {f"{many:,} outcomes": rows}


async def of_outcomes(settings: dict[str, str], many: int, single: int) -> Row:
    """Measure on a service of its own."""
    with tempfile.TemporaryDirectory() as folder, serving(folder, **BARE, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            batch = (await client.post("/predict/batch", json=[EXAMPLE] * many)).json()
            known = [{"id": each["id"], "success": at % 3 > 0} for at, each in enumerate(batch)]
            await client.get("/predictions?limit=1")  # waits until all of them are stored
            alone = await longest_wait(server.url, asyncio.sleep(3))
            one_by_one, together, waits = [], [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for each in known[:single]:
                    path = f"/predictions/{each['id']}/outcome"
                    (await client.put(path, json={"success": each["success"]})).raise_for_status()
                one_by_one.append((time.perf_counter() - began) / single)
                began = time.perf_counter()
                waits.append(await longest_wait(server.url, client.put("/predictions/outcomes", json=known)))
                together.append((time.perf_counter() - began) / many)
            kept = (await client.put("/predictions/outcomes", json=known)).json()
    if kept != {"kept": many, "unknown": []}:
        raise SystemExit(f"not all outcomes were kept: {kept}")
    return {
        "one_by_one_us": 1e6 * median(one_by_one),
        "together_us": 1e6 * median(together),
        "times_as_quick": median(one_by_one) / median(together),
        "a_prediction_waited_ms": median(waits),
        "beside_none_ms": alone,
    }


async def longest_wait(url: str, work: Awaitable[object]) -> float:
    """Do some work, and return the ms that a client beside it waited for a prediction at most."""
    beside = Clients(url, connections=1)
    await work
    await beside.end()
    return max(beside.lap())


async def exports(many: int = 200_000, rate: float = 4_000.0) -> dict[str, list[Row]]:
    """Measure predictions at a steady rate beside an export, and the export beside them.

    The time of a prediction counts from when it was due, so that none that was held up is missed.

    Args:
        many: predictions in the export.
        rate: predictions a second beside.
    """
    rows = await common.with_each_store(lambda settings: of_export(settings, many, rate))
    return {f"{many:,} exported, medians of {ROUNDS} rounds": rows}


async def of_export(settings: dict[str, str], many: int, rate: float) -> Row:
    """Measure on a service of its own."""
    with tempfile.TemporaryDirectory() as folder, serving(folder, **BARE, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            for start in range(0, many, TOGETHER):
                kicks = [EXAMPLE] * min(TOGETHER, many - start)
                (await client.post("/predict/batch", json=kicks)).raise_for_status()
            # Answered when all of them are stored.
            [newest] = (await client.get("/predictions?limit=1")).raise_for_status().json()
        url = f"{server.url}/predictions?until={newest['created_at']}"
        unhindered = [await export_seconds(url) for _ in range(ROUNDS)]
        clients = Clients(server.url, connections=CONNECTIONS, rate=rate)
        alone, beside, took = [], [], []
        for _ in range(ROUNDS):
            await asyncio.sleep(1)
            clients.lap()
            await asyncio.sleep(ALONE)
            alone.append(np.percentile(clients.lap(), (50, 99)))
            took.append(await export_seconds(url))
            beside.append(np.percentile(clients.lap(), (50, 99)))
        await clients.end()
    (p50, p99), (p50_beside, p99_beside) = (np.median(each, axis=0).tolist() for each in (alone, beside))
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "p50_beside_ms": p50_beside,
        "p99_beside_ms": p99_beside,
        "export_alone_s": median(unhindered),
        "export_s": median(took),
    }


async def export_seconds(url: str) -> float:
    """Read an export in a process of its own; return the seconds that it took."""
    began = time.perf_counter()
    command = (sys.executable, "-c", READER, url)
    reader = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await reader.communicate()
    if not printed.strip():
        raise SystemExit("the export failed: its output above says why")
    return time.perf_counter() - began
