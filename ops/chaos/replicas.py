"""Three replicas on one Postgres behind nginx: two are killed by turns, and no client notices.

nginx is Debian's, with ops/nginx/kickserve.conf. A request that nginx repeated may be in Postgres a second
time, under an id in no answer: such are counted as `untold`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx
from nginx import Nginx
from postgres import free_port, running
from serving import Server

from kickserve.openapi import EXAMPLE
from ops.chaos.common import ended, stored_in
from ops.clients import OK, Clients, Connection, counted, packed

if TYPE_CHECKING:
    from ops.commands import Row

REPLICAS = 3
EDITORS = 16
SWITCHING, NOT_FOUND, UNAVAILABLE = 101, 404, 503


class Replica:
    """One of the services: always on its own port, with a journal of its own."""

    def __init__(self, database: str, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._folder = folder
        self._settings = {"DATABASE_URL": database, "KICKSERVE_PORT": str(self.port)}
        self.server = Server(folder, **self._settings)

    async def again(self, number: signal.Signals) -> int:
        """End it with a signal, start it again, and return the exit code."""
        code = await ended(self.server, number)
        self.server = await asyncio.to_thread(Server, self._folder, **self._settings)
        return code


class Editors:
    """Clients that set the outcomes of their predictions, read them, and delete every other one.

    Attributes:
        answered: ids of all their predictions.
        outcomes: the last outcome that was acknowledged, by id, of the predictions that were not deleted.
        deleted: ids whose deletion was acknowledged.
        gone: ids whose deletion was answered with 404: nginx may have repeated it.
        false_404: ids that were answered, and not found afterwards.
        statuses: how often each status was met.
    """

    def __init__(self, url: str) -> None:
        self.answered: set[str] = set()
        self.outcomes: dict[str, bool] = {}
        self.deleted: set[str] = set()
        self.gone: set[str] = set()
        self.false_404: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self._ended = asyncio.Event()
        self._tasks = [asyncio.create_task(self._edit(Connection(url), at % 2 > 0)) for at in range(EDITORS)]

    async def _edit(self, connection: Connection, success: bool) -> None:
        while not self._ended.is_set():
            success = not success
            status, answer = await self._ask(connection, "POST", "/predict", EXAMPLE)
            if status == OK:
                id_ = answer["id"]
                self.answered.add(id_)
                await self._follow(connection, id_, success)
        connection.close()

    async def _follow(self, connection: Connection, id_: str, success: bool) -> None:
        """Set two outcomes, the second the opposite of the first; read, and delete where it was a success."""
        for each in (not success, success):
            status, _ = await self._ask(connection, "PUT", f"/predictions/{id_}/outcome", {"success": each})
            if status == NOT_FOUND:
                self.false_404.add(id_)
            if status >= 300:  # noqa: PLR2004  whether it was set is not known
                return
        if (await self._ask(connection, "GET", f"/predictions/{id_}"))[0] == NOT_FOUND:
            self.false_404.add(id_)
        if not success:
            self.outcomes[id_] = success
            return
        status, _ = await self._ask(connection, "DELETE", f"/predictions/{id_}")
        if status < 300:  # noqa: PLR2004
            self.deleted.add(id_)
        elif status == NOT_FOUND:
            self.gone.add(id_)

    async def _ask(
        self, connection: Connection, method: str, path: str, value: object = None
    ) -> tuple[int, Any]:
        """Send a request until it is answered with anything but 503, which says to come again."""
        while True:
            status, answer = await connection.ask(method, path, value)
            self.statuses[status] += 1
            if status != UNAVAILABLE:
                return status, answer
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Let each client finish."""
        self._ended.set()
        await asyncio.gather(*self._tasks)

    async def faults(self, database: str) -> Row:
        """Compare what was acknowledged with what Postgres holds."""
        connection = await asyncpg.connect(database)
        rows = await connection.fetch("SELECT id::text, outcome FROM predictions")
        await connection.close()
        kept = dict(rows)
        return {
            "edited": len(self.outcomes) + len(self.deleted),
            "deleted": len(self.deleted),
            "deleted_came_back": len(self.deleted & kept.keys()),
            "false_404": len(self.false_404 | self.gone & kept.keys()),
            "outcomes_lost": sum(id_ not in kept for id_ in self.outcomes),
            "outcomes_older": sum(id_ in kept and kept[id_] != now for id_, now in self.outcomes.items()),
        }


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


async def replicas(seconds: float = 3.0, kills: int = 20) -> Row:
    """Kill two of three replicas behind nginx by turns, restart the third; fail where a client notices.

    Nothing that was answered may be lost or stored twice, nothing deleted come back, no answered prediction
    be not found, and no outcome be older than the last that was acknowledged.

    Args:
        seconds: of load before and after each blow.
        kills: how many.
    """
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
        each = [Replica(cluster.url, folder / str(number)) for number in range(REPLICAS)]
        nginx = Nginx(folder, [replica.port for replica in each])
        try:
            load, editors = Clients(f"{nginx.url}/api/v1", lasting=True), Editors(f"{nginx.url}/api/v1")
            for number in range(kills):
                await asyncio.sleep(seconds)
                await each[number % 2].again(signal.SIGKILL)
            await asyncio.sleep(seconds)
            code = await each[2].again(signal.SIGTERM)
            await asyncio.sleep(seconds)
            await asyncio.gather(load.end(), editors.end())
            page = await websocket(nginx.url)
        finally:
            nginx.close()
            codes = [await ended(replica.server) for replica in each]
        by_replica, retried = nginx.answers()
        stored = await stored_in(cluster.url, folder)
        known = counted(load.ids + packed(editors.answered), stored)
        figures = {
            **counted(load.ids, stored),
            **await editors.faults(cluster.url),
            "errors": load.failed,
            "retried": retried,
            "untold": known["stored"] - known["answered"] + known["lost"],
            "by_replica": sorted(by_replica[f"127.0.0.1:{replica.port}"] for replica in each),
            "editors": {str(status): count for status, count in sorted(editors.statuses.items())},
            "exit_codes": [code, *codes],
            "websocket": page,
        }
    nothing = ("lost", "twice", "deleted_came_back", "false_404", "outcomes_lost", "outcomes_older", "errors")
    passed = not any(figures[name] for name in nothing) and not any(figures["exit_codes"])
    passed = passed and all(figures["by_replica"]) and page == SWITCHING
    return {"drill": "three replicas", **figures, "passed": passed}
