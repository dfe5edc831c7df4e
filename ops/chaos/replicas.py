"""Three replicas on one Postgres behind nginx: one is killed, another restarted, and no client notices.

`just chaos replicas`, about a quarter of a minute. nginx is Debian's, with ops/nginx/kickserve.conf. Ends
with 1 where a client met an error, or an answered prediction was lost or stored twice. A request
that nginx repeated may be in Postgres a second time, under an id in no answer: such are counted as `untold`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from nginx import Nginx
from postgres import Cluster, free_port, running
from serving import Server

from ops.chaos.drilling import OK, Load, finish, stored_in, verdict

REPLICAS = 3
SWITCHING = 101


class Replica:
    """One of the services: always on its own port, with a journal of its own."""

    def __init__(self, database: str, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._folder = folder
        self._settings = {"DATABASE_URL": database, "KICKSERVE_PORT": str(self.port)}
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.server = Server(self._folder, **self._settings)

    async def again(self, number: signal.Signals) -> int:
        """End it with a signal, start it again, and return the exit code."""
        code = await asyncio.to_thread(self.server.end, number)
        await asyncio.to_thread(self.start)
        return code


async def websocket(url: str) -> int:
    """Ask for the page's websocket as a browser does; return the status."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    path = "/ui/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    async with httpx.AsyncClient(timeout=30) as client:
        page = await client.get(f"{url}/ui/")  # the first who asks for the page has it made ready
        assert page.status_code == OK, page
        async with client.stream("GET", url + path, headers=headers) as response:
            return response.status_code


async def drill(cluster: Cluster, folder: Path, seconds: float) -> dict[str, Any]:
    """Load all, kill one, restart another; compare what was answered with what Postgres holds."""
    replicas = [Replica(cluster.url, folder / str(number)) for number in range(REPLICAS)]
    nginx = Nginx(folder, [each.port for each in replicas])
    try:
        load = Load(f"{nginx.url}/api/v1", lasting=True)
        await asyncio.sleep(seconds)
        await replicas[0].again(signal.SIGKILL)
        await asyncio.sleep(seconds)
        code = await replicas[1].again(signal.SIGTERM)
        await asyncio.sleep(seconds)
        await load.end()
        page = await websocket(nginx.url)
    finally:
        nginx.close()
        codes = [await asyncio.to_thread(each.server.end) for each in replicas]
    by_replica, retried = nginx.answers()
    stored = await stored_in(cluster.url, folder)
    result = {
        **verdict(load.answered, stored),
        "errors": load.failed,
        "retried": retried,
        "untold": len(set(stored) - set(load.answered)),
        "by_replica": sorted(by_replica[f"127.0.0.1:{each.port}"] for each in replicas),
        "exit_codes": [code, *codes],
        "websocket": page,
    }
    faults = (result["lost"], result["twice"], result["errors"], any(result["exit_codes"]))
    passed = not any(faults) and all(result["by_replica"]) and page == SWITCHING
    return {"drill": "three replicas", **result, "passed": passed}


def run(seconds: float) -> dict[str, Any]:
    """Run the drill; return its figures."""
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
        return asyncio.run(drill(cluster, folder, seconds))


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of load before and after each blow")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    options = parser.parse_args()
    figures = run(options.seconds)
    finish(figures, as_json=options.json)
