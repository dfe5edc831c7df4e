"""Measures a core, the stores and the journal, and calculates the part that gives out first."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postgres import free_port, running

from ops.bench import common
from ops.bench.common import API, KEY, SERVE, Server

if TYPE_CHECKING:
    from ops.commands import Row

CONNECTIONS: Final = 32
TIMES: Final = (1, 10, 100, 1_000)
YEAR: Final = 365 * 86_400
JOURNAL: Final = 1e9  # bytes: the default of KICKSERVE_JOURNAL_MAX


def capacity(records: int = 500_000, seconds: int = 5, base: float = 100.0) -> dict[str, list[Row]]:
    """Measure a core, the stores and the journal, and calculate the part that gives out first; needs wrk.

    Args:
        records: that each store takes.
        seconds: that a core is measured.
        base: predictions a second of today.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = common.write_bodies(folder)
        measured = {
            "predictions a second, one core, one a request": service(folder, bodies, seconds)[0],
            "kicks a second, one core, Parquet to Parquet": columns(folder, 2 * records),
            **stores(folder, records),
            "bytes of a prediction in the journal": service(folder, bodies, seconds, away=True)[1],
        }
    rows = [{"measured": name, "": value} for name, value in measured.items()]
    return {"measured": rows, "calculated": calculated(measured, base)}


def service(folder: Path, bodies: Path, seconds: float, *, away: bool = False) -> tuple[float, float]:
    """Load a service on one core.

    Args:
        folder: for its files.
        bodies: a file with the body of a kick a line.
        seconds: how long.
        away: whether its store is away, so that predictions stay in the journal.

    Returns:
        Predictions a second, and the bytes of each in the journal.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    settings = {"API_KEY": KEY, "KICKSERVE_PLUGINS": "storage", "KICKSERVE_LOG_LEVEL": "critical"}
    if away:
        settings["DATABASE_URL"] = f"postgresql://app@127.0.0.1:{free_port()}/postgres"
    cores = common.cores()
    ready = f"{API}/health/live"
    server = Server(SERVE, place, settings, ready=ready, core=cores.server)
    try:
        with common.pinned(cores.load):
            url = f"{server.url}{API}/predict"
            warm = common.load(url, CONNECTIONS, 1, bodies)
            found = common.load(url, CONNECTIONS, seconds, bodies)
        journal = sum(file.stat().st_size for file in place.rglob("*.log") if file.name != "server.log")
        assert not found["errors"], f"{found['errors']} requests failed"
        return found["throughput"], journal / (warm["requests"] + found["requests"])
    finally:
        server.end()


def columns(folder: Path, number: int) -> float:
    """Return the kicks a second that one core answers from a file into a file."""
    kicks, answers = folder / "kicks.parquet", folder / "answers.parquet"
    common.command(folder, "simulate", "--size", str(number), "--output", str(kicks))
    with common.pinned(common.cores().server):
        used = common.command(folder, "batch", str(kicks), "--output", str(answers))
    return number / used["seconds"]


def stores(folder: Path, number: int) -> dict[str, float]:
    """Return the predictions a second that each store takes from a batch, and the bytes of each."""
    took = common.command(folder, "batch", "--size", str(number))["seconds"]
    found = {
        "predictions a second into SQLite": number / took,
        "bytes of a prediction in SQLite": (folder / "kickserve.db").stat().st_size / number,
    }
    with running() as cluster:
        empty = cluster.bytes()
        took = common.command(folder, "batch", "--size", str(number), database=cluster.url)["seconds"]
        found["predictions a second into Postgres"] = number / took
        found["bytes of a prediction in Postgres"] = (cluster.bytes() - empty) / number
    return found


def calculated(measured: dict[str, float], base: float) -> list[Row]:
    """Calculate the needs of so many predictions a second, at the base and at multiples of it.

    The part that is used most gives out first: a core of one process, or the store.
    """
    rows = []
    for times in TIMES:
        rate = base * times
        share = {
            "a core": rate / measured["predictions a second, one core, one a request"],
            "Postgres": rate / measured["predictions a second into Postgres"],
        }
        first = max(share, key=share.__getitem__)
        rows.append(
            {
                "calculated: predictions/s": rate,
                "cores": share["a core"],
                "of Postgres": share["Postgres"],
                "TB a year": rate * YEAR * measured["bytes of a prediction in Postgres"] / 1e12,
                "store away for, h": JOURNAL
                / (rate * measured["bytes of a prediction in the journal"])
                / 3_600,
                "gives out first": first if share[first] > 1 else "nothing",
            }
        )
    return rows
