"""Measures how long predictions wait beside an export, and how long the export takes beside predictions.

`just bench exports`. With SQLite, and with a Postgres of its own where there is one; clients ask at a steady
rate, and their times are counted from when each was to be asked for, so that none that was held up is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from statistics import median
from typing import Any, Final

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from serving import BARE, serving

from kickserve.openapi import EXAMPLE
from ops.bench.stores import with_each_store
from ops.chaos.clients import Clients

MANY: Final = 200_000
TOGETHER: Final = 50_000
CONNECTIONS: Final = 16
RATE: Final = 4_000.0
ROUNDS: Final = 5
ALONE: Final = 4.0  # seconds
# In a process of its own, or the clients' clock would stand still while it reads.
READER: Final = """
import sys, httpx
with httpx.stream("GET", sys.argv[1], headers={"Accept": "application/x-ndjson"}, timeout=300) as answer:
    print(sum(map(len, answer.raise_for_status().iter_raw())))
"""


async def read(url: str) -> float:
    """Export all that was kept before the clients began; return the seconds that it took."""
    started = time.perf_counter()
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, url, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await reader.communicate()
    if not said.strip():
        raise SystemExit("the export failed: see above")
    return time.perf_counter() - started


async def measure(environment: dict[str, str], many: int, rate: float) -> dict[str, float]:
    """Measure on a service of its own; milliseconds of predictions, and seconds of exports."""
    with tempfile.TemporaryDirectory() as folder, serving(folder, **BARE, **environment) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            for start in range(0, many, TOGETHER):
                kicks = [EXAMPLE] * min(TOGETHER, many - start)
                (await client.post("/predict/batch", json=kicks)).raise_for_status()
            # Answered when all of them are stored.
            [newest] = (await client.get("/predictions?limit=1")).raise_for_status().json()
        url = f"{server.url}/predictions?until={newest['created_at']}"
        unhindered = [await read(url) for _ in range(ROUNDS)]
        clients = Clients(server.url, CONNECTIONS, rate)
        alone, beside, took = [], [], []
        for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
            await asyncio.sleep(1)
            clients.lap()
            await asyncio.sleep(ALONE)
            alone.append(np.percentile(clients.lap(), (50, 99)))
            took.append(await read(url))
            beside.append(np.percentile(clients.lap(), (50, 99)))
        await clients.end()
    p50, p99 = np.median(alone, axis=0).tolist()
    p50_beside, p99_beside = np.median(beside, axis=0).tolist()
    return {
        "p50_ms": p50,
        "p99_ms": p99,
        "p50_beside_ms": p50_beside,
        "p99_beside_ms": p99_beside,
        "export_alone_s": median(unhindered),
        "export_s": median(took),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--many", type=int, default=MANY, help="predictions that are exported")
    parser.add_argument("--rate", type=float, default=RATE, help="predictions a second beside")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    found = with_each_store(lambda environment: asyncio.run(measure(environment, asked.many, asked.rate)))
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, asked.many)


def show(found: dict[str, dict[str, Any]], many: int) -> None:
    """Print it for a person."""
    table = Table(box=None, header_style="dim", title=f"medians of {ROUNDS} rounds")
    heads = ("", "p50 / p99 ms", "beside an export", f"{many:,} exported in s", "beside predictions")
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for name, each in found.items():
        table.add_row(
            name,
            f"{each['p50_ms']:.1f} / {each['p99_ms']:.1f}",
            f"{each['p50_beside_ms']:.1f} / {each['p99_beside_ms']:.1f}",
            f"{each['export_alone_s']:.2f}",
            f"{each['export_s']:.2f}",
        )
    Console().print(table)
