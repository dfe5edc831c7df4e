"""Kills, stops and starves the service under load, and counts answers against rows in the store.

The server is the real one, Postgres a throwaway cluster (see tests/postgres.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from postgres import Cluster, running
from serving import Server, eventually

from kickserve.openapi import EXAMPLE
from ops.chaos.common import SQLITE, WARM, drained, ended, settled, stored_in
from ops.clients import OK, Clients, Connection, counted, packed
from ops.commands import progress

if TYPE_CHECKING:
    from ops.commands import Row

REFUSALS = 200  # after so many the disk is full, and stays so


async def drills(
    only: tuple[str, ...] = (), rounds: int = 20, outage: float = 30.0, warm: float = WARM
) -> list[Row]:
    """Kill, stop and starve the service under load; fail where an answer is lost, or a client meets an error.

    Args:
        only: words that drills begin with, such as kill.
        rounds: how often to kill.
        outage: seconds that Postgres is away.
        warm: seconds of load before anything happens.
    """
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        named = {
            "kill, SQLite": lambda folder: kill(SQLITE, folder, rounds, warm),
            "kill, Postgres": lambda folder: kill(cluster.url, folder, rounds, warm),
            "outage of Postgres": lambda folder: stop_postgres(cluster, folder, outage, warm),
            "terminate, SQLite": lambda folder: terminate(SQLITE, folder, warm),
            "terminate, Postgres": lambda folder: terminate(cluster.url, folder, warm),
            "disk full": lambda folder: full_disk(cluster, folder),
            "three processes": lambda folder: three(cluster, folder, warm),
        }
        rows = []
        for name, drill in named.items():
            if not only or name.startswith(tuple(only)):
                await _empty(cluster.url)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
                progress.print(f"{name} ...")
                rows.append({"drill": name, **await drill(folder)})
        return rows


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await connection.close()


async def kill(url: str, folder: Path, rounds: int, warm: float) -> Row:
    """SIGKILL under load, again and again."""
    answered = bytearray()
    for _ in range(rounds):
        server = Server(folder, DATABASE_URL=url)
        load = Clients(server.url)
        await asyncio.sleep(warm)
        await ended(server, signal.SIGKILL)
        await load.end()
        answered += load.ids
    result = counted(answered, await settled(url, folder))
    return {**result, "rounds": rounds, "passed": not (result["lost"] or result["twice"])}


async def terminate(url: str, folder: Path, warm: float) -> Row:
    """SIGTERM under load: no request that was accepted fails, and nothing is left behind."""
    server = Server(folder, DATABASE_URL=url)
    load = Clients(server.url)
    await asyncio.sleep(warm)
    code = await ended(server)
    await load.end()
    result = counted(load.ids, await stored_in(url, folder))
    left = len([*folder.rglob("*.log")])
    passed = (result["stored"], load.failed, left, code) == (result["answered"], 0, 0, 0)
    return {**result, "failed": load.failed, "journals_left": left, "exit_code": code, "passed": passed}


async def stop_postgres(cluster: Cluster, folder: Path, seconds: float, warm: float) -> Row:
    """Stop Postgres under load for a while."""
    server = Server(folder, DATABASE_URL=cluster.url)
    load = Clients(server.url)
    await asyncio.sleep(warm)
    began = time.perf_counter()
    await asyncio.sleep(min(seconds, 10))
    before = load.p99(began)
    await asyncio.to_thread(cluster.stop)
    stopped = time.perf_counter()
    await asyncio.sleep(seconds)
    during = load.p99(stopped)
    await asyncio.to_thread(cluster.start)
    await load.end()
    await ended(server)
    result = counted(load.ids, await settled(cluster.url, folder))
    passed = not (result["lost"] or result["twice"] or load.failed) and during <= 2 * before
    figures = {"errors": load.failed, "p99_before_ms": before, "p99_during_ms": during}
    return {**result, **figures, "seconds": seconds, "passed": passed}


async def full_disk(cluster: Cluster, folder: Path) -> Row:
    """Let the journal fill its disk while Postgres is away; then let Postgres come back."""
    if os.geteuid() != 0:
        return {"skipped": "mounting a small disk needs root", "passed": True}
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)], check=True)
    try:
        server = Server(folder, DATABASE_URL=cluster.url, KICKSERVE_JOURNAL_DIR=str(disk))
        await asyncio.to_thread(cluster.stop)
        load = Clients(server.url)
        await eventually(lambda: load.statuses["503"] > REFUSALS)
        await load.end()
        alive = server.process.poll() is None
        await asyncio.to_thread(cluster.start)
        recovered = await _answers_again(server.url, load)
        await drained(server.url)  # what the journal holds goes with its disk
        await ended(server)
        result = counted(load.ids, await stored_in(cluster.url, folder))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    logged = any("can't be written" in line for line in server.log)
    refused = load.statuses["503"]
    passed = bool(alive and recovered and refused and logged and not result["lost"] and not result["twice"])
    return {**result, "refused_503": refused, "alive": alive, "recovered": recovered, "passed": passed}


async def _answers_again(url: str, load: Clients) -> bool:
    connection = Connection(url)

    async def answers() -> bool:
        status, answer = await connection.ask("POST", "/predict", EXAMPLE)
        if status == OK:
            load.ids += packed([answer["id"]])
        return status == OK

    with suppress(TimeoutError):
        return bool(await eventually(answers))
    return False


async def three(cluster: Cluster, folder: Path, warm: float) -> Row:
    """Three processes on one Postgres and one journal folder; one of them is killed."""
    servers = [Server(folder, DATABASE_URL=cluster.url) for _ in range(3)]
    load = Clients(*(server.url for server in servers))
    await asyncio.sleep(warm)
    await ended(servers[0], signal.SIGKILL)
    await asyncio.sleep(warm)
    await load.end()
    codes = [await ended(server) for server in servers[1:]]
    result = counted(load.ids, await settled(cluster.url, folder))
    return {**result, "exit_codes": codes, "passed": not (result["lost"] or result["twice"] or any(codes))}
