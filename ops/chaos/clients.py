"""Clients that ask for predictions at a steady rate, or as fast as they can, and remember what was answered.

They speak HTTP by hand: a library would take more of the machine than the service that is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import numpy as np

from kickserve.features import named
from kickserve_data.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = "200"
ID_BYTES = 16
_AWAY = 0.2  # seconds before a client whose connection failed asks again


def requests(path: str, host: str, number: int) -> list[bytes]:
    """Make requests of simulated kicks: always the same one would be drift."""
    bodies = (msgspec.json.encode(named(row)) for row in simulate(number, 1).matrix.tolist())
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


class Clients:
    """Some clients, each on a connection of its own.

    Args:
        url: of the API.
        connections: how many.
        rate: requests a second that all of them make together; None: each asks as soon as it is answered.

    Attributes:
        ids: of all predictions that were answered, 16 bytes each.
        statuses: how often each status, or error of a connection, was met.
        times: milliseconds that answers took since `lap`; at a rate, from when they were to be asked for, so
            that a pause of the service shows in every request that was due in it.
    """

    def __init__(self, url: str, connections: int, rate: float | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._requests = requests(f"{parts.path}/predict", parts.netloc, 5_000)
        self.ids = bytearray()
        self.statuses: Counter[str] = Counter()
        self.times: list[float] = []
        self._ended = asyncio.Event()
        pause = None if rate is None else connections / rate
        self._tasks = [asyncio.create_task(self._ask(at, connections, pause)) for at in range(connections)]

    async def _ask(self, at: int, connections: int, pause: float | None) -> None:
        due = time.perf_counter() + (pause or 0) * at / connections  # not all at once
        turns = self._turns(at)
        while not self._ended.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    while not self._ended.is_set():
                        if pause is None:
                            due = time.perf_counter()
                        else:
                            await asyncio.sleep(due - time.perf_counter())
                        writer.write(next(turns))
                        await self._answer(reader, due)
                        due += pause or 0
                    continue
                finally:
                    writer.close()
            self.statuses["connection lost"] += 1
            await asyncio.sleep(_AWAY)
            due = time.perf_counter()

    def _turns(self, at: int) -> Iterator[bytes]:
        while True:
            yield self._requests[at % len(self._requests)]
            at += 37

    async def _answer(self, reader: asyncio.StreamReader, due: float) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status = head[9:12].decode()
        body = await reader.readexactly(_length(head))
        self.times.append((time.perf_counter() - due) * 1000)
        self.statuses[status] += 1
        if status == OK:
            at = body.index(b'"id":"') + 6
            self.ids += bytes.fromhex(body[at : at + 36].decode().replace("-", ""))

    def lap(self) -> list[float]:
        """Return the times since the last lap."""
        times, self.times = self.times, []
        return times

    async def end(self) -> None:
        """Let each client finish its request."""
        self._ended.set()
        await asyncio.gather(*self._tasks)


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    return int(lower[at : lower.index(b"\r", at)])


def counted(answered: bytes, stored: bytes) -> dict[str, int]:
    """Compare answered ids with stored ones, 16 bytes each."""
    ours = np.frombuffer(answered, f"S{ID_BYTES}")
    kept, times = np.unique(np.frombuffer(stored, f"S{ID_BYTES}"), return_counts=True)
    return {
        "answered": len(ours),
        "stored": int(times.sum()),
        "lost": len(np.setdiff1d(ours, kept)),
        "twice": int((times > 1).sum()),
    }
