"""Clients that ask a service for predictions, and remember what was answered.

They speak HTTP by hand: a library would take more of the machine than the service that is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from kickserve.features import named
from kickserve_data.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterable

OK = 200
ID_BYTES = 16
KICKS = 1_000
PATIENCE = 60  # seconds for an answer
AWAY = 0.2  # seconds before a client whose connection failed asks again


class Connection:
    """A lasting connection to a service, opened anew where the service has closed it.

    Args:
        url: of the API.
        key: the key that it asks for, if any.
    """

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url)
        self._address, self._path = (parts.hostname, parts.port), parts.path
        self._fields = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._fields += f"X-API-Key: {key}\r\n" if key else ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return a request as `send` takes it."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return status and body of the answer.

        Raises:
            OSError: the service can't be reached, has closed the connection, or does not answer in a minute.
            EOFError: the connection was closed before the whole answer was here.
        """
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r")[0]
                body = await reader.readexactly(int(length or 0))
        except BaseException:
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    async def ask(self, method: str, path: str, value: object = None) -> tuple[int, Any]:
        """Send a value as JSON, if any; return the status and the value of the answer; raises as `send`."""
        body = b"" if value is None else msgspec.json.encode(value)
        status, answer = await self.send(self.request(method, path, body))
        is_json = answer[:1] in {b"{", b"["}  # nginx's own pages are HTML
        return status, msgspec.json.decode(answer) if is_json else None

    def close(self) -> None:
        """Close it, if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Clients:
    """Some clients that ask for predictions of simulated kicks, each on a connection of its own.

    Args:
        urls: of the APIs that are asked, in turn.
        connections: how many clients.
        rate: requests a second that all of them make together; None: each asks as soon as it is answered.
        key: the key that the service asks for, if any.
        lasting: whether a client whose connection is refused tries again; else it has ended.

    Attributes:
        ids: of all predictions that were answered, 16 bytes each.
        statuses: how often each status, or error of a connection, was met.
        times: when each prediction was answered, and how many ms that took; at a rate, from when it was to be
            asked for, so that a pause of the service shows in every request that was due in it.
    """

    def __init__(
        self,
        *urls: str,
        connections: int = 32,
        rate: float | None = None,
        key: str = "",
        lasting: bool = False,
    ) -> None:
        # Always the same kick would be drift.
        self._kicks = [msgspec.json.encode(named(row)) for row in simulate(KICKS, 1).matrix.tolist()]
        self.ids = bytearray()
        self.statuses: Counter[str] = Counter()
        self.times: list[tuple[float, float]] = []
        self._ended = asyncio.Event()
        self._lasting, self._key = lasting, key
        self._pause = None if rate is None else connections / rate
        turns = itertools.islice(itertools.cycle(urls), connections)
        self._tasks = [asyncio.create_task(self._ask(url, at / connections)) for at, url in enumerate(turns)]

    async def _ask(self, url: str, share: float) -> None:
        connection = Connection(url, self._key)
        start = int(share * KICKS)
        kicks = itertools.cycle(self._kicks[start:] + self._kicks[:start])
        due = time.perf_counter() + (self._pause or 0) * share  # not all at once
        while not self._ended.is_set():
            if self._pause is None:
                due = time.perf_counter()
            else:
                await asyncio.sleep(due - time.perf_counter())
            try:
                status, body = await connection.send(connection.request("POST", "/predict", next(kicks)))
            except (OSError, EOFError) as error:
                if isinstance(error, ConnectionRefusedError) and not self._lasting:
                    break  # the server is gone
                self.statuses[type(error).__name__] += 1
                await asyncio.sleep(AWAY)
                due = time.perf_counter()
                continue
            now = time.perf_counter()
            self.statuses[str(status)] += 1
            if status == OK:
                self.times.append((now, (now - due) * 1000))
                at = body.index(b'"id":"') + 6
                self.ids += packed([body[at : at + 36].decode()])
            due += self._pause or 0
        connection.close()

    @property
    def failed(self) -> int:
        """How many requests were not answered with 200."""
        return sum(self.statuses.values()) - self.statuses[str(OK)]

    def lap(self) -> list[float]:
        """Return the milliseconds that answers took since the last lap."""
        times, self.times = self.times, []
        return [took for _, took in times]

    def p99(self, since: float = 0, until: float = float("inf")) -> float:
        """Return the 99th percentile of the times between two instants, in ms."""
        times = [took for at, took in self.times if since <= at < until]
        return round(statistics.quantiles(times, n=100)[98], 2)

    async def end(self) -> None:
        """Let each client finish its request."""
        self._ended.set()
        await asyncio.gather(*self._tasks)


def packed(ids: Iterable[str]) -> bytes:
    """Return ids as 16 bytes each."""
    return b"".join(bytes.fromhex(each.replace("-", "")) for each in ids)


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
