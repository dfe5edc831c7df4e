"""Measures the stores: SQLite, and a Postgres of its own where there is one.

`just bench paging` times groups of records, pages near and far, and retention; `just bench outcomes` outcomes
together and one by one, and the predictions that wait for them; `just bench exports` predictions beside an
export, and the export beside predictions. Things that are compared take turns.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
from serving import BARE, serving

from kickserve.openapi import EXAMPLE
from kickserve.settings import Settings
from kickserve_storage import create_plugin
from kickserve_testing.contract_samples import START, batch_of, keep, record_at, records_from
from ops.bench import common
from ops.chaos.clients import Clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kickserve.plugins import Store
    from kickserve.schemas import Record
    from ops.bench.common import Row

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


def paging() -> None:
    """Measure records a second by size of group, the time of a page near and far, and retention."""
    parser = common.options(
        __doc__, records=(1_000_000, "records to page through"), months=(13, "that they spread over")
    )
    asked = parser.parse_args()

    def measure(settings: dict[str, str]) -> Row:
        with tempfile.TemporaryDirectory() as folder:
            url = settings.get("DATABASE_URL", f"sqlite:///{folder}/bench.db")
            return asyncio.run(of_store(url, asked.records, asked.months))

    found = common.with_each_store(measure)
    title = f"{asked.records:,} records, pages of {PAGE}"
    common.show(title, [{"store": name, **row} for name, row in found.items()], as_json=asked.json)


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


def outcomes() -> None:
    """Measure outcomes together and one by one, and the longest that a lone client waited beside them."""
    parser = common.options(__doc__, many=(100_000, "outcomes together"), single=(300, "one by one"))
    asked = parser.parse_args()
    found = common.with_each_store(lambda settings: of_outcomes(settings, asked.many, asked.single))
    rows = [{"store": name, **row} for name, row in found.items()]
    common.show(f"{asked.many:,} outcomes", rows, as_json=asked.json)


def of_outcomes(settings: dict[str, str], many: int, single: int) -> Row:
    """Measure on a service of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(folder, **BARE, **settings) as server,
        httpx.Client(base_url=server.url, timeout=300) as client,
    ):
        batch = client.post("/predict/batch", json=[EXAMPLE] * many).json()
        known = [{"id": each["id"], "success": at % 3 > 0} for at, each in enumerate(batch)]
        client.get("/predictions?limit=1")  # waits until all of them are stored
        alone = longest_wait(server.url, lambda: time.sleep(3))
        one_by_one, together, waits = [], [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for each in known[:single]:
                path = f"/predictions/{each['id']}/outcome"
                client.put(path, json={"success": each["success"]}).raise_for_status()
            one_by_one.append((time.perf_counter() - began) / single)
            began = time.perf_counter()
            waits.append(longest_wait(server.url, lambda: put_all(client, known)))
            together.append((time.perf_counter() - began) / many)
    return {
        "one_by_one_us": 1e6 * median(one_by_one),
        "together_us": 1e6 * median(together),
        "times_as_quick": median(one_by_one) / median(together),
        "a_prediction_waited_ms": 1e3 * median(waits),
        "beside_none_ms": 1e3 * alone,
    }


def put_all(client: httpx.Client, known: list[dict[str, Any]]) -> None:
    """Send all outcomes at once."""
    kept = client.put("/predictions/outcomes", json=known).raise_for_status().json()
    if kept != {"kept": len(known), "unknown": []}:
        raise SystemExit(f"not all outcomes were kept: {kept}")


def longest_wait(url: str, work: Callable[[], object]) -> float:
    """Do some work, and return the seconds that a client beside it waited for a prediction at most."""
    done, waited = threading.Event(), [0.0]

    def predict() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.wait(0.002):
                began = time.perf_counter()
                client.post("/predict", json=EXAMPLE).raise_for_status()
                waited.append(time.perf_counter() - began)

    beside = threading.Thread(target=predict)
    beside.start()
    try:
        work()
    finally:
        done.set()
        beside.join()
    return max(waited)


def exports() -> None:
    """Measure predictions at a steady rate beside an export, and the export beside them.

    The time of a prediction counts from when it was due, so that none that was held up is missed.
    """
    parser = common.options(
        __doc__, many=(200_000, "predictions in the export"), rate=(4_000.0, "predictions a second beside")
    )
    asked = parser.parse_args()
    found = common.with_each_store(lambda settings: asyncio.run(of_export(settings, asked.many, asked.rate)))
    rows = [{"store": name, **row} for name, row in found.items()]
    common.show(f"{asked.many:,} exported, medians of {ROUNDS} rounds", rows, as_json=asked.json)


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
        clients = Clients(server.url, CONNECTIONS, rate)
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
