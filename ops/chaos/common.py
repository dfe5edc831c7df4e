"""What drills share: what a store holds in the end, and servers that bring it there."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import aiosqlite
import asyncpg
from serving import Server, eventually

from kickserve.openapi import EXAMPLE
from ops.clients import OK, Connection, packed

if TYPE_CHECKING:
    from pathlib import Path

    from ops.commands import Row

WARM = 1.5  # seconds of load before anything happens
SQLITE = "sqlite:///drill.db"


async def ended(server: Server, number: signal.Signals = signal.SIGTERM) -> int:
    """End a server by a signal; return its exit code."""
    return await asyncio.to_thread(server.end, number)


async def terminated(server: Server, limit: float) -> tuple[float, int | None]:
    """Send SIGTERM; return the seconds until it ended, and its exit code: None where it had to be killed.

    Args:
        server: the server.
        limit: seconds after which it is killed.
    """
    began = time.perf_counter()
    server.process.terminate()
    try:
        code = await asyncio.to_thread(server.process.wait, limit)
    except subprocess.TimeoutExpired:
        code = None
    took = round(time.perf_counter() - began, 1)
    await asyncio.to_thread(server.close)
    return took, code


async def health(url: str) -> tuple[float, Row]:
    """Return the seconds that `/health` takes to answer, a minute at most, and the states of the parts."""
    began = time.perf_counter()
    connection = Connection(url)
    with suppress(OSError, EOFError):
        _, found = await connection.ask("GET", "/health")
        connection.close()
        return round(time.perf_counter() - began, 2), found["parts"]
    return round(time.perf_counter() - began, 2), {}


async def predicted(url: str, number: int) -> list[str]:
    """Ask for predictions one by one; return their ids."""
    connection = Connection(url)
    ids = []
    for _ in range(number):
        status, answer = await connection.ask("POST", "/predict", EXAMPLE)
        assert status == OK, answer
        ids.append(answer["id"])
    connection.close()
    return ids


async def drained(url: str, key: str = "") -> None:
    """Wait until all that a service has answered by now is in its store: it lists no earlier."""
    connection = Connection(url, key)
    request = connection.request("GET", "/predictions?limit=1")

    async def listed() -> bool:
        return (await connection.send(request))[0] == OK

    await eventually(listed)
    connection.close()


async def stored_in(url: str, folder: Path) -> bytes:
    """Return the ids in a database, 16 bytes each."""
    if url.startswith("sqlite"):
        async with aiosqlite.connect(folder / "drill.db") as sqlite:
            return packed(row[0] for row in await sqlite.execute_fetchall("SELECT id FROM predictions"))
    connection = await asyncpg.connect(url)
    try:
        ids = bytearray()
        async with connection.transaction():
            async for row in connection.cursor("SELECT uuid_send(id) FROM predictions", prefetch=10_000):
                ids += row[0]
        return bytes(ids)
    finally:
        await connection.close()


async def settled(url: str, folder: Path) -> bytes:
    """Let a new server take up the journals that were left, and end it; return the stored ids."""
    left = [*folder.rglob("*.log")]
    server = await asyncio.to_thread(Server, folder, DATABASE_URL=url)
    await eventually(lambda: not any(file.exists() for file in left))
    assert await ended(server) == 0
    return await stored_in(url, folder)
