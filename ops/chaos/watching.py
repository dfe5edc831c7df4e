"""Lets a real Prometheus watch a real service, stops its Postgres, and reads the alerts that fire.

The rules are those of ops/prometheus, but that each needs to hold for a second only.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from postgres import running
from prometheus import Prometheus
from serving import Server, eventually

from ops.chaos.common import ended
from ops.clients import Clients

if TYPE_CHECKING:
    from ops.commands import Row

WANTED = "KickserveStoreAway"
COUNT = "kickserve_predictions_total"


async def watching() -> Row:
    """Stop the database under a real Prometheus; fail where any but its alert fires, or at any other time."""
    with running() as cluster, tempfile.TemporaryDirectory(prefix="kickserve-watching-") as folder:
        server = Server(folder, DATABASE_URL=cluster.url)
        watcher = Prometheus(Path(folder), urlsplit(server.url).netloc)
        load = Clients(server.url, connections=1, rate=10)
        try:
            await eventually(lambda: (watcher.value(COUNT) or 0) > 0)
            await asyncio.sleep(3)
            before = watcher.firing()
            await asyncio.to_thread(cluster.stop)
            with suppress(TimeoutError):
                await eventually(lambda: WANTED in watcher.firing())
            during = watcher.firing()
            await asyncio.to_thread(cluster.start)
            with suppress(TimeoutError):
                await eventually(lambda: not watcher.firing())
            after = watcher.firing()
            scraped = watcher.value(COUNT) or 0.0
        finally:
            await load.end()
            watcher.close()
            await ended(server)
    passed = not before and WANTED in during and not after
    alerts = {"before": sorted(before), "during": sorted(during), "after": sorted(after)}
    return {"drill": "watching", **alerts, "scraped": scraped, "passed": passed}
