"""Measures what a core, a store and a disk can do, and calculates what gives out first at ten times as much.

Run it as  python -m ops.bench capacity [--records N] [--seconds S] [--base R] [--json]. It needs wrk, and a
Postgres as the tests find one. What was measured and what is calculated from it are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from postgres import Cluster, binaries
from rich.console import Console
from rich.table import Table

from kickserve.linear import load_default
from kickserve.model import predict
from kickserve.process import ProcessSampler
from kickserve.record import Add
from kickserve.scorer import Scorer
from kickserve.segments import encode
from kickserve.settings import Settings
from kickserve_data.simulate import simulate
from kickserve_storage import create_plugin
from kickserve_testing.contract import records_from
from ops.bench import wrk
from ops.bench.drift_live import PREDICT, serve
from ops.bench.paging import fill
from ops.bench.processes import cores, pinned

if TYPE_CHECKING:
    from kickserve.store import Store

CONNECTIONS: Final = 32
TIMES: Final = (1, 10, 100, 1_000)
BATCH: Final = 100_000  # kicks that the model is asked about at once
YEAR: Final = 365 * 86_400
JOURNAL: Final = 1e9  # bytes: the default of KICKSERVE_JOURNAL_MAX


@dataclass(frozen=True)
class Measured:
    """What one core, one store and one disk did.

    Attributes:
        one_by_one: predictions a second that a core answers, each in a request of its own.
        in_batches: kicks a second that a core answers in columns, without a record.
        postgres_rows: predictions a second that Postgres takes in groups of 5,000.
        sqlite_rows: the same of SQLite.
        postgres_bytes: disk that a prediction takes in Postgres, its index included.
        sqlite_bytes: the same in SQLite.
        journal_bytes: what a prediction takes in the journal.
    """

    one_by_one: float
    in_batches: float
    postgres_rows: float
    sqlite_rows: float
    postgres_bytes: float
    sqlite_bytes: float
    journal_bytes: float


def service(folder: Path, seconds: float) -> float:
    """Return the predictions a second of a service on one core."""
    shared, kicks = cores(), folder / "bodies.ndjson"
    wrk.write_bodies(kicks)
    server = serve(folder / "service", "storage", shared.server)
    try:
        with pinned(shared.load):
            wrk.run(server.url + PREDICT, CONNECTIONS, 1, kicks, "")
            load, _ = wrk.run(server.url + PREDICT, CONNECTIONS, seconds, kicks, "")
        assert not load.errors, f"{load.errors} requests failed"
    finally:
        server.end()
    return load.requests / load.seconds


def journal() -> float:
    """Return the bytes that a prediction takes in the journal if it comes alone, which is the most."""
    batch = Scorer(load_default(), ProcessSampler()).answer(simulate(1, 1).matrix)
    return len(encode([msgspec.msgpack.encode(Add(batch))]))


def model(seconds: float) -> float:
    """Return the kicks a second that the packaged model answers on one core."""
    shared, matrix, loaded = cores(), simulate(BATCH, 1).matrix, load_default()
    with pinned(shared.server):
        predict(loaded, matrix)
        began, answered = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < seconds:
            predict(loaded, matrix)
            answered += BATCH
    return answered / spent


async def rows(store: Store, number: int) -> float:
    """Return the predictions a second that an empty store takes."""
    records = records_from(step=1)
    began = time.perf_counter()
    await fill(store, records, number)
    return number / (time.perf_counter() - began)


async def sqlite(folder: Path, number: int) -> tuple[float, float]:
    """Return the predictions a second that SQLite takes, and the bytes of each."""
    file = folder / "capacity.db"
    store = create_plugin(Settings()).create_store(f"sqlite:///{file}")
    await store.open()
    try:
        speed = await rows(store, number)
    finally:
        await store.close()
    return speed, file.stat().st_size / number


async def postgres(number: int) -> tuple[float, float]:
    """Return the predictions a second that Postgres takes, and the bytes of each with its index."""
    import asyncpg  # type: ignore[import-untyped] # it ships no types; an extra, so imported when asked for

    cluster = Cluster(binaries())
    try:
        await asyncio.to_thread(cluster.start)
        store = create_plugin(Settings()).create_store(cluster.url)
        await store.open()
        try:
            speed = await rows(store, number)
        finally:
            await store.close()
        connection = await asyncpg.connect(cluster.url)
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        empty = await connection.fetchval("SELECT pg_database_size('template1')")
        await connection.close()
    finally:
        await asyncio.to_thread(cluster.remove)
    return speed, (size - empty) / number


def measure(number: int, seconds: float) -> Measured:
    """Measure all of it, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answered = service(folder, seconds)
        in_sqlite = asyncio.run(sqlite(folder, number))
    in_postgres = asyncio.run(postgres(number))
    return Measured(
        one_by_one=answered,
        in_batches=model(seconds),
        postgres_rows=in_postgres[0],
        sqlite_rows=in_sqlite[0],
        postgres_bytes=in_postgres[1],
        sqlite_bytes=in_sqlite[1],
        journal_bytes=journal(),
    )


def calculate(measured: Measured, base: float) -> list[dict[str, Any]]:
    """Calculate what so many predictions a second need, at the base and at multiples of it.

    What gives out first is the part that is used most: a core of one process, or the store.
    """
    calculated = []
    for times in TIMES:
        rate = base * times
        share = {"a core": rate / measured.one_by_one, "Postgres": rate / measured.postgres_rows}
        first = max(share, key=share.__getitem__)
        calculated.append(
            {
                "predictions_per_second": rate,
                "cores": share["a core"],
                "share_of_postgres": share["Postgres"],
                "terabytes_a_year": rate * YEAR * measured.postgres_bytes / 1e12,
                "seconds_without_the_store": JOURNAL / (rate * measured.journal_bytes),
                "first": first if share[first] > 1 else "nothing",
            }
        )
    return calculated


def tables(measured: Measured, calculated: list[dict[str, Any]]) -> list[Table]:
    """Lay both out for a person."""
    facts = Table("measured", "")
    names = {
        "one_by_one": "predictions a second, one core, one a request",
        "in_batches": "kicks a second, one core, in columns",
        "postgres_rows": "predictions a second into Postgres",
        "sqlite_rows": "predictions a second into SQLite",
        "postgres_bytes": "bytes of a prediction in Postgres",
        "sqlite_bytes": "bytes of a prediction in SQLite",
        "journal_bytes": "bytes of a prediction in the journal, at most",
    }
    for name, value in asdict(measured).items():
        facts.add_row(names[name], f"{value:,.0f}")
    made = Table(
        "calculated: predictions/s", "cores", "of Postgres", "TB a year", "store away for", "gives out first"
    )
    for each in calculated:
        made.add_row(
            f"{each['predictions_per_second']:,.0f}",
            f"{each['cores']:.3g}",
            f"{each['share_of_postgres']:.2%}",
            f"{each['terabytes_a_year']:.3g}",
            f"{each['seconds_without_the_store'] / 3_600:.3g} h",
            each["first"],
        )
    return [facts, made]


def main() -> None:
    """Measure, calculate, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000, help="that each store takes (500,000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="that a core is measured (5)")
    parser.add_argument("--base", type=float, default=100.0, help="predictions a second of today (100)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    measured = measure(arguments.records, arguments.seconds)
    calculated = calculate(measured, arguments.base)
    if arguments.json:
        print(json.dumps({"measured": asdict(measured), "calculated": calculated}, indent=2))
        return
    for each in tables(measured, calculated):
        Console().print(each)
