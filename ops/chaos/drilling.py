"""Parts that drills share: clients that ask without pause, the stored ids, the verdict, and the table."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiosqlite
import asyncpg
import httpx
from rich.console import Console
from rich.table import Table

from kickserve.openapi import EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS = 32
WARM = 1.5  # seconds of load before anything happens
OK = 200


class Load:
    """Clients that ask without pause, each on a connection of its own.

    Args:
        urls: of the APIs that are asked, in turn.
        key: the key that they want, if any.
        lasting: whether a connection must always be possible; else a client ends where it is not.
    """

    def __init__(self, *urls: str, key: str = "", lasting: bool = False) -> None:
        self.answered: list[str] = []
        self.statuses: Counter[str] = Counter()
        self.times: list[tuple[float, float]] = []  # when it was answered, and how long it took, in seconds
        self._headers = {"X-API-Key": key} if key else {}
        self._certificates = ssl.create_default_context()  # read once for all clients: it takes a while
        self._lasting = lasting
        self._ended = asyncio.Event()
        turns = itertools.islice(itertools.cycle(urls), CONNECTIONS)
        self._tasks = [asyncio.create_task(self._ask(url)) for url in turns]

    async def _ask(self, url: str) -> None:
        async with httpx.AsyncClient(timeout=30, headers=self._headers, verify=self._certificates) as client:
            while not self._ended.is_set():
                started = time.perf_counter()
                try:
                    response = await client.post(f"{url}/predict", json=EXAMPLE)
                except httpx.TransportError as error:
                    if isinstance(error, httpx.ConnectError) and not self._lasting:
                        return  # the server is gone
                    self.statuses[type(error).__name__] += 1
                    continue
                now = time.perf_counter()
                self.statuses[str(response.status_code)] += 1
                if response.status_code == OK:
                    self.answered.append(response.json()["id"])
                    self.times.append((now, now - started))

    async def end(self) -> None:
        """Let each client finish its request."""
        self._ended.set()
        await asyncio.gather(*self._tasks)

    @property
    def failed(self) -> int:
        """How many requests were not answered with 200."""
        return sum(self.statuses.values()) - self.statuses[str(OK)]

    def p99(self, since: float, until: float) -> float:
        """Return the 99th percentile of the times between two instants, in ms."""
        times = [took for at, took in self.times if since <= at < until]
        return statistics.quantiles(times, n=100)[98] * 1000


async def stored_in(url: str, folder: Path) -> list[str]:
    """Return the ids in a database."""
    if url.startswith("sqlite"):
        async with aiosqlite.connect(folder / "drill.db") as sqlite:
            return [row[0] for row in await sqlite.execute_fetchall("SELECT id FROM predictions")]
    connection = await asyncpg.connect(url)
    try:
        return [str(row["id"]) for row in await connection.fetch("SELECT id FROM predictions")]
    finally:
        await connection.close()


def verdict(answered: list[str], stored: list[str]) -> dict[str, Any]:
    """Compare the answered ids with the stored ones."""
    lost = len(set(answered) - set(stored))
    twice = len(stored) - len(set(stored))
    return {"answered": len(answered), "stored": len(stored), "lost": lost, "twice": twice}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the figures for a person."""
    table = Table("drill", "answered", "lost", "twice", "also", "passed")
    for row in rows:
        named = {"drill", "answered", "lost", "twice", "passed"}
        also = ", ".join(f"{name} {value}" for name, value in row.items() if name not in named)
        cells = [str(row.get(name, "")) for name in ("drill", "answered", "lost", "twice")]
        table.add_row(*cells, also, "yes" if row["passed"] else "[red]NO")
    Console(width=140).print(table)


def finish(figures: list[dict[str, Any]] | dict[str, Any], *, as_json: bool) -> None:
    """Print what a drill found, a row or some, and end: with 1 where one of them did not pass."""
    rows = figures if isinstance(figures, list) else [figures]
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        show(rows)
    sys.exit(0 if all(row["passed"] for row in rows) else 1)
