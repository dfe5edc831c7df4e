"""Kills, stops and starves the service under load, and counts answers against rows in the store.

`just chaos` runs all drills (about four minutes); `just chaos --only kill --rounds 3` some. Ends with 1 where
an answered prediction was lost or stored twice, or a client met an error that it should not have met.
The server is the real one, Postgres a throwaway cluster (see tests/postgres.py).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from postgres import Cluster, running
from serving import Server

from kickserve.openapi import EXAMPLE
from ops.chaos.drilling import OK, WARM, Load, finish, stored_in, verdict

FILLING = 60.0  # seconds that the journal may take to fill its disk
MANY = 200


async def drained(server: Server) -> None:
    """Wait until all that the server has answered by now is in its store."""
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while (await client.get(f"{server.url}/predictions?limit=1", timeout=30)).status_code != OK:
            await asyncio.sleep(0.1)


async def settled(url: str, folder: Path) -> list[str]:
    """Let a new server take up the journals that were left, and end it; return the stored ids."""
    server = Server(folder, DATABASE_URL=url)
    await drained(server)
    assert await asyncio.to_thread(server.end) == 0
    return await stored_in(url, folder)


async def kill(url: str, folder: Path, rounds: int, warm: float) -> dict[str, Any]:
    """SIGKILL under load, again and again."""
    answered: list[str] = []
    for _ in range(rounds):
        server = Server(folder, DATABASE_URL=url)
        load = Load(server.url)
        await asyncio.sleep(warm)
        await asyncio.to_thread(server.end, signal.SIGKILL)
        await load.end()
        answered += load.answered
    result = verdict(answered, await settled(url, folder))
    return {**result, "rounds": rounds, "passed": not (result["lost"] or result["twice"])}


async def terminate(url: str, folder: Path, warm: float) -> dict[str, Any]:
    """SIGTERM under load: no request that was accepted fails, and nothing is left behind."""
    server = Server(folder, DATABASE_URL=url)
    load = Load(server.url)
    await asyncio.sleep(warm)
    code = await asyncio.to_thread(server.end)
    await load.end()
    result = verdict(load.answered, await stored_in(url, folder))
    failed = load.failed
    left = len([*folder.rglob("*.log")])
    passed = (result["stored"], failed, left, code) == (result["answered"], 0, 0, 0)
    return {**result, "failed": failed, "journals_left": left, "exit_code": code, "passed": passed}


async def outage(cluster: Cluster, folder: Path, seconds: float, warm: float) -> dict[str, Any]:
    """Stop Postgres under load for a while."""
    server = Server(folder, DATABASE_URL=cluster.url)
    load = Load(server.url)
    await asyncio.sleep(warm)
    began = time.perf_counter()
    await asyncio.sleep(min(seconds, 10))
    before = load.p99(began, time.perf_counter())
    await asyncio.to_thread(cluster.stop)
    stopped = time.perf_counter()
    await asyncio.sleep(seconds)
    during = load.p99(stopped, time.perf_counter())
    await asyncio.to_thread(cluster.start)
    await load.end()
    await asyncio.to_thread(server.end)
    result = verdict(load.answered, await settled(cluster.url, folder))
    errors = load.failed
    passed = not (result["lost"] or result["twice"] or errors) and during <= 2 * before
    figures = {"errors": errors, "p99_before_ms": round(before, 1), "p99_during_ms": round(during, 1)}
    return {**result, **figures, "seconds": seconds, "passed": passed}


async def full_disk(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Let the journal fill its disk while Postgres is away; then let Postgres come back."""
    if os.geteuid() != 0:
        return {"skipped": "mounting a small disk needs root", "passed": True}
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)], check=True)
    try:
        server = Server(folder, DATABASE_URL=cluster.url, KICKSERVE_JOURNAL_DIR=str(disk))
        await asyncio.to_thread(cluster.stop)
        load = Load(server.url)
        await _refused(load, FILLING)
        await load.end()
        alive = server.process.poll() is None
        await asyncio.to_thread(cluster.start)
        recovered = await _answers_again(server.url, load)
        await drained(server)  # the journal's disk goes with the drill, and what still stood there with it
        await asyncio.to_thread(server.end)
        result = verdict(load.answered, await stored_in(cluster.url, folder))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    said = any("can't be written" in line for line in server.log)
    refused = load.statuses["503"]
    passed = bool(alive and recovered and refused and said and not result["lost"] and not result["twice"])
    return {**result, "refused_503": refused, "alive": alive, "recovered": recovered, "passed": passed}


async def _refused(load: Load, patience: float) -> None:
    """Wait until it was refused often: the disk is full, and stays so."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while load.statuses["503"] < MANY:
                await asyncio.sleep(0.05)


async def _answers_again(url: str, load: Load) -> bool:
    with suppress(TimeoutError):
        async with httpx.AsyncClient() as client, asyncio.timeout(30):
            while True:
                response = await client.post(f"{url}/predict", json=EXAMPLE)
                if response.status_code == OK:
                    load.answered.append(response.json()["id"])
                    return True
                await asyncio.sleep(0.2)
    return False


async def three(cluster: Cluster, folder: Path, warm: float) -> dict[str, Any]:
    """Three processes on one Postgres and one journal folder; one of them is killed."""
    servers = [Server(folder, DATABASE_URL=cluster.url) for _ in range(3)]
    load = Load(*(server.url for server in servers))
    await asyncio.sleep(warm)
    await asyncio.to_thread(servers[0].end, signal.SIGKILL)
    await asyncio.sleep(warm)
    await load.end()
    codes = [await asyncio.to_thread(server.end) for server in servers[1:]]
    result = verdict(load.answered, await settled(cluster.url, folder))
    return {**result, "exit_codes": codes, "passed": not (result["lost"] or result["twice"] or any(codes))}


async def run(only: list[str], rounds: int, seconds: float, warm: float) -> list[dict[str, Any]]:
    """Run the drills; return a row of figures for each."""
    sqlite = "sqlite:///drill.db"
    with ExitStack() as stack:
        cluster = stack.enter_context(running())
        drills = [
            ("kill, SQLite", lambda folder: kill(sqlite, folder, rounds, warm)),
            ("kill, Postgres", lambda folder: kill(cluster.url, folder, rounds, warm)),
            ("outage of Postgres", lambda folder: outage(cluster, folder, seconds, warm)),
            ("terminate, SQLite", lambda folder: terminate(sqlite, folder, warm)),
            ("terminate, Postgres", lambda folder: terminate(cluster.url, folder, warm)),
            ("disk full", lambda folder: full_disk(cluster, folder)),
            ("three processes", lambda folder: three(cluster, folder, warm)),
        ]
        rows = []
        for name, drill in drills:
            if only and not any(name.startswith(word) for word in only):
                continue
            await _empty(cluster.url)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kickserve-drill-")))
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows.append({"drill": name, **await drill(folder)})
        return rows


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP TABLE IF EXISTS predictions, kickserve_schema")
    finally:
        await connection.close()


def main() -> None:
    """Run the drills that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="words that drills begin with, such as kill")
    parser.add_argument("--rounds", type=int, default=20, help="how often to kill")
    parser.add_argument("--outage", type=float, default=30, help="seconds that Postgres is away")
    parser.add_argument("--warm", type=float, default=WARM, help="seconds of load before anything happens")
    parser.add_argument("--json", action="store_true", help="write the figures as JSON")
    options = parser.parse_args()
    figures = asyncio.run(run(options.only, options.rounds, options.outage, options.warm))
    finish(figures, as_json=options.json)
