"""Lets a real Prometheus watch a real service, stops its Postgres, and reads the alerts that fire.

`just chaos watching`, about half a minute. Ends with 1 where the alert of the store does not fire while the
store is stopped, or any fires before or after. The rules are those of ops/prometheus, but that each needs to
hold for a second only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from postgres import Cluster, running
from prometheus import Prometheus
from serving import Server

from kickserve.features import named
from kickserve_data.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Callable

WANTED = "KickserveStoreAway"
PATIENCE = 60.0


async def load(url: str, ended: asyncio.Event) -> None:
    """Ask for predictions, ten a second: simulated kicks, as always the same one would be drift."""
    kicks = itertools.cycle(map(named, simulate(10_000, 1).matrix.tolist()))
    async with httpx.AsyncClient(timeout=30) as client:
        while not ended.is_set():
            await client.post(f"{url}/predict", json=next(kicks))
            await asyncio.sleep(0.1)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, or patience ends."""
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(condition) and time.monotonic() < deadline:
        await asyncio.sleep(0.5)


async def drill(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Watch, stop the store, let it come back."""
    server = Server(folder, DATABASE_URL=cluster.url)
    watcher = Prometheus(folder, str(httpx.URL(server.url).netloc, "ascii"))
    ended = asyncio.Event()
    asking = asyncio.create_task(load(server.url, ended))
    try:
        await until(lambda: (watcher.value("kickserve_predictions_total") or 0) > 0)
        await asyncio.sleep(3)
        found: dict[str, Any] = {"before": sorted(watcher.firing())}
        await asyncio.to_thread(cluster.stop)
        await until(lambda: WANTED in watcher.firing())
        found["during"] = sorted(watcher.firing())
        await asyncio.to_thread(cluster.start)
        await until(lambda: not watcher.firing())
        found["after"] = sorted(watcher.firing())
        found["scraped"] = watcher.value("kickserve_predictions_total") or 0.0
    finally:
        ended.set()
        await asking
        watcher.close()
        await asyncio.to_thread(server.end)
    return found


def run() -> dict[str, Any]:
    """Run the drill; return the names of the alerts."""
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-watching-"))
        return asyncio.run(drill(cluster, Path(folder)))


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="write what was found as JSON")
    options = parser.parse_args()
    found = run()
    passed = not found["before"] and WANTED in found["during"] and not found["after"]
    if options.json:
        print(json.dumps(found))
    else:
        for when in ("before", "during", "after"):
            print(f"alerts {when} the outage: {', '.join(found[when]) or 'none'}")
        print(f"{found['scraped']:,.0f} predictions scraped; {'passed' if passed else 'FAILED'}")
    sys.exit(0 if passed else 1)
