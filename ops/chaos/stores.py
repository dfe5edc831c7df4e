"""Drills of what happens between a service and its store: lost replies, a frozen server, a restored file."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import psutil
from postgres import running
from serving import NotStarted, Server, eventually, serving

from kickserve.openapi import EXAMPLE
from ops.chaos.common import SQLITE, WARM, drained, ended, health, predicted, settled, terminated
from ops.clients import Clients, Connection, counted, packed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from postgres import Cluster

    from ops.commands import Row

TIMEOUT = 5.0  # seconds: KICKSERVE_SHUTDOWN_TIMEOUT of the services
SLACK = 2.0  # seconds beyond it, on a busy machine
HEALTH_MAX = 2.0  # seconds that /health may take, whatever the store does

# What Postgres says when a transaction that changed something has ended, and that it is ready for the next.
COMMITTED = re.compile(rb"C.{4}(COMMIT|(INSERT 0|UPDATE|COPY) [1-9]\d*)\x00.*Z\x00\x00\x00\x05I\Z", re.DOTALL)
READY = re.compile(rb"Z\x00\x00\x00\x05[IT]\Z")
LOGIN = b"RSNE"  # what its answers begin with until it is ready for the first


class Proxy:
    """Passes on between a service and Postgres; it can lose the reply to a commit, and is away from then on.

    Attributes:
        losing: whether it loses the reply to the next commit.
        away: whether it takes no connections.
    """

    def __init__(self, database: str) -> None:
        self._database = urlsplit(database)
        self.losing = self.away = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen until the block ends; yield the URL for the service."""
        server = await asyncio.start_server(self._join, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        yield self._database.geturl().replace(f":{self._database.port}/", f":{port}/")
        server.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.away:
            there, back = await asyncio.open_connection(self._database.hostname, self._database.port)
            ways = self._pass(reader, back), self._pass_back(there, writer)
            await asyncio.wait([*map(asyncio.ensure_future, ways)], return_when=asyncio.FIRST_COMPLETED)
            back.close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = b""
        while not self.away and (data := await reader.read(65_536)):
            waiting += data
            if self.losing and COMMITTED.search(waiting):
                self.away = True
            elif not self.losing or READY.search(waiting) or waiting[:1] in LOGIN:
                writer.write(waiting)
                waiting = b""


async def resurrection(number: int = 20) -> list[Row]:
    """Lose the reply to a commit; deletions and outcomes by another service must then last.

    The service whose reply was lost drains its journal again, in a second round after SIGKILL. Fails where a
    deleted prediction is there again, or an older outcome has replaced a newer one.

    Args:
        number: predictions; half of them are deleted, the others get an outcome by each service.
    """
    rows = []
    for killed in (False, True):
        with ExitStack() as stack:
            cluster = stack.enter_context(running())
            folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
            other = stack.enter_context(serving(folders[1], DATABASE_URL=cluster.url))
            proxy = Proxy(cluster.url)
            async with proxy.running() as url:
                server = await asyncio.to_thread(Server, folders[0], DATABASE_URL=url)
                await predicted(server.url, 1)  # the first makes what is missing in the database
                await drained(server.url)
                proxy.losing = True
                deleted, told = await _unconfirmed(server, other, number, cluster.url)
                if killed:
                    await ended(server, signal.SIGKILL)
                proxy.losing = proxy.away = False
                if killed:
                    server = await asyncio.to_thread(Server, folders[0], DATABASE_URL=url)
                await drained(server.url)
                await ended(server)
            kept = await outcomes_in(cluster.url)
        came_back = sum(id_ in kept for id_ in deleted)
        older = sum(not kept.get(id_) for id_ in told)
        name = "reply lost, killed" if killed else "reply lost"
        figures = {"deleted": len(deleted), "came_back": came_back, "outcomes": len(told), "older": older}
        passed = (len(deleted), len(told), came_back, older) == (number // 2, number - number // 2, 0, 0)
        rows.append({"drill": name, **figures, "passed": passed})
    return rows


async def _unconfirmed(
    server: Server, other: Server, number: int, database: str
) -> tuple[list[str], list[str]]:
    """Predict, lose the reply of the store, and change the stored predictions by the other service.

    Returns:
        The ids that were deleted, and those whose outcome is now a success, which the other service set last.
    """
    first, second = Connection(server.url), Connection(other.url)
    _, answers = await first.ask("POST", "/predict/batch", [EXAMPLE] * number)  # one commit
    ids = [each["id"] for each in answers]

    async def stored() -> bool:
        return {*ids} <= (await outcomes_in(database)).keys()

    await eventually(stored)
    deleted, told = ids[: number // 2], ids[number // 2 :]
    for id_ in told:
        await first.ask("PUT", f"/predictions/{id_}/outcome", {"success": False})
    for id_ in told:
        await second.ask("PUT", f"/predictions/{id_}/outcome", {"success": True})
    for id_ in deleted:
        await second.ask("DELETE", f"/predictions/{id_}")
    changed = await outcomes_in(database)
    return [id_ for id_ in deleted if id_ not in changed], [id_ for id_ in told if changed[id_]]


async def outcomes_in(database: str) -> dict[str, bool | None]:
    """Return the outcomes in Postgres by id."""
    connection = await asyncpg.connect(database)
    found = dict(await connection.fetch("SELECT id::text, outcome FROM predictions"))
    await connection.close()
    return found


async def frozen(seconds: tuple[float, ...] = (1.0, 5.0)) -> list[Row]:
    """Freeze Postgres under load (SIGSTOP), and end the service meanwhile.

    Fails where a client meets an error, `/health` takes more than two seconds, SIGTERM does not end the
    service in KICKSERVE_SHUTDOWN_TIMEOUT, or an answered prediction is lost or stored twice afterwards.

    Args:
        seconds: that Postgres has been frozen for when the service is ended, a round each.
    """
    rows = []
    for each in seconds:
        with running() as cluster, tempfile.TemporaryDirectory(prefix="kickserve-drill-") as folder:
            rows.append({"drill": f"frozen for {each:g} s", **await _frozen(cluster, Path(folder), each)})
    return rows


async def _frozen(cluster: Cluster, folder: Path, seconds: float) -> Row:
    server = Server(folder, DATABASE_URL=cluster.url, KICKSERVE_SHUTDOWN_TIMEOUT=str(TIMEOUT))
    load = Clients(server.url, connections=8, rate=200)
    await asyncio.sleep(WARM)
    root = psutil.Process(cluster.pid())
    family = [root, *root.children(recursive=True)]
    for each in family:
        with suppress(psutil.NoSuchProcess):  # its vacuum ends when it likes
            each.suspend()
    try:
        await asyncio.sleep(seconds)
        slowest, states = await health(server.url)
        took, code = await terminated(server, 4 * TIMEOUT)
        await load.end()
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.resume()
    result = counted(load.ids, await settled(cluster.url, folder))
    faults = (result["lost"], result["twice"], load.failed, code)
    return {
        **result,
        "errors": load.failed,
        "health_s": slowest,
        "store": states.get("store"),
        "ended_in_s": took,
        "exit_code": code,
        "passed": faults == (0, 0, 0, 0) and slowest <= HEALTH_MAX and took <= TIMEOUT + SLACK,
    }


async def restore(number: int = 300) -> list[Row]:
    """Restore a backup of the SQLite file while the service runs: moved over the open file, and by command.

    The service takes the new file up whole, or it refuses, and its answers wait in the journal for the next
    start. Fails where the file is damaged, is a mixture of both, or a later answer is lost.

    Args:
        number: predictions before the backup, between backup and restoring, and after that.
    """
    rows = []
    for way, (save, put_back) in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="kickserve-drill-") as name:
            folder = Path(name)
            server = Server(folder, DATABASE_URL=SQLITE)
            saved = await predicted(server.url, number)
            await drained(server.url)
            await asyncio.to_thread(save, folder)
            between = await predicted(server.url, number)
            await drained(server.url)
            await asyncio.to_thread(put_back, folder)
            after = await predicted(server.url, number)
            await asyncio.sleep(WARM)
            _, states = await health(server.url)
            _, code = await terminated(server, 60)
            try:
                kept = await settled(SQLITE, folder)
            except NotStarted:
                kept = b""
            with closing(sqlite3.connect(folder / "drill.db")) as file:
                try:
                    [(integrity,), *_] = file.execute("PRAGMA integrity_check").fetchall()
                except sqlite3.DatabaseError as error:
                    integrity = str(error)
        lost = {
            f"{name}_lost": counted(packed(ids), kept)["lost"]
            for name, ids in (("saved", saved), ("later", after))
        }
        mixed = number - counted(packed(between), kept)["lost"]
        rows.append(
            {
                "drill": f"restored, {way}",
                **lost,
                "mixed_in": mixed,
                "integrity": integrity,
                "store": states.get("store"),
                "exit_code": code,
                "passed": (*lost.values(), mixed, code, integrity) == (0, 0, 0, 0, "ok"),
            }
        )
    return rows


def _copy_by_sqlite(folder: Path) -> None:
    source, target = (sqlite3.connect(folder / f"{name}.db") for name in ("drill", "backup"))
    with closing(source), closing(target):
        source.backup(target)


def _copy_files(folder: Path) -> None:
    for end in ("db", "db-wal"):
        shutil.copy(folder / f"drill.{end}", folder / f"backup.{end}")


def _move(folder: Path) -> None:
    for file in folder.glob("backup.db*"):
        file.replace(folder / file.name.replace("backup", "drill"))


def _command(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "kickserve", *arguments]
    environment = {**os.environ, "DATABASE_URL": SQLITE}
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=True)


# How the database is saved, and put back.
WAYS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "file": (_copy_by_sqlite, _move),
    "file and -wal": (_copy_files, _move),
    "by command": (
        lambda folder: _command(folder, "backup", "backup.db"),
        lambda folder: _command(folder, "restore", "backup.db", "--yes"),
    ),
}
