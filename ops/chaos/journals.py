"""Drills of the journal: a flipped bit at each place of a segment, a folder that is removed at run time."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from postgres import running
from serving import Server, eventually

from kickserve.journal import HEADER, PREAMBLE, decode, encode
from ops.chaos.common import drained, ended, health, predicted, stored_in
from ops.clients import ID_BYTES, Clients, counted, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ops.commands import Row

FRAMES = 3  # in a segment


async def bitflip() -> list[Row]:
    """Damage each byte of a small segment of the journal, by a bit and as a whole, and start the service.

    There is a segment of three predictions for each byte, and in each another byte is damaged. Fails where a
    whole prediction is not stored, or `/health` does not report the damaged ones that are not.
    """
    flips = {"a bit flipped": lambda at: 1 << at % 8, "a byte flipped": lambda _: 0xFF}
    return [{"drill": what, **await _damaged(flip)} for what, flip in flips.items()]


async def _damaged(flip: Callable[[int], int]) -> Row:
    with running() as cluster, tempfile.TemporaryDirectory(prefix="kickserve-drill-") as name:
        folder, journal = Path(name), Path(name, "journal")
        settings = {"DATABASE_URL": cluster.url, "KICKSERVE_JOURNAL_DIR": str(journal)}
        cluster.stop()
        server = await asyncio.to_thread(Server, folder, **settings)
        [first] = await predicted(server.url, 1)
        [segment] = journal.rglob("*.log")
        size = len(PREAMBLE) + FRAMES * (segment.stat().st_size - len(PREAMBLE))
        ids = [first, *await predicted(server.url, FRAMES * size - 1)]
        await ended(server, signal.SIGKILL)
        frames, _ = decode(segment.read_bytes()[len(PREAMBLE) :])
        segment.unlink()
        damaged = set()
        for at in range(size):
            data = bytearray(PREAMBLE + encode(frames[FRAMES * at : FRAMES * (at + 1)]))
            data[at] ^= flip(at)
            segment.with_name(f"{at:020}.log").write_bytes(data)
            if at >= len(PREAMBLE):
                damaged.add(ids[FRAMES * at + (at - len(PREAMBLE)) // (HEADER.size + len(frames[0]))])
        left = [*journal.rglob("*.log")]
        cluster.start()
        server = await asyncio.to_thread(Server, folder, **settings)
        with suppress(TimeoutError):
            await eventually(lambda: not any(file.exists() for file in left))
        _, states = await health(server.url)
        code = await ended(server)
        stored = await stored_in(cluster.url, folder)
    found = counted(packed({*ids} - damaged), stored)
    unreadable = counted(packed(damaged), stored)["lost"]
    told = {name: state for name, state in states.items() if state != "ok"}
    return {
        "segments": size,
        "lost": found["lost"],
        "twice": found["twice"],
        "damaged": len(damaged),
        "unreadable": unreadable,
        "health": told,
        "exit_code": code,
        "passed": (found["lost"], found["twice"], code) == (0, 0, 0) and bool(told) == bool(unreadable),
    }


async def vanished(seconds: float = 3.0) -> Row:
    """Remove the journal's folder under load, while much waits in it: Postgres is stopped.

    Fails where an answered prediction is lost, or a client meets an error.

    Args:
        seconds: of load before and after.
    """
    with running() as cluster, tempfile.TemporaryDirectory(prefix="kickserve-drill-") as name:
        folder, journal = Path(name), Path(name, "journal")
        settings = {"DATABASE_URL": cluster.url, "KICKSERVE_JOURNAL_DIR": str(journal)}
        server = await asyncio.to_thread(Server, folder, **settings)
        cluster.stop()
        load = Clients(server.url, connections=8, rate=500)
        await asyncio.sleep(seconds)
        waiting = len(load.ids) // ID_BYTES
        shutil.rmtree(journal)
        await asyncio.sleep(seconds)
        cluster.start()
        await asyncio.sleep(seconds)
        await load.end()
        await drained(server.url)
        code = await ended(server)
        result = counted(load.ids, await stored_in(cluster.url, folder))
    passed = not (result["lost"] or result["twice"] or load.failed or code)
    return {
        "drill": "journal removed",
        **result,
        "answered_before": waiting,
        "refused": load.failed,
        "exit_code": code,
        "passed": passed,
    }
