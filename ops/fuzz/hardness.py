"""Attacks a real server as slow, rude and numerous clients do, while others are served as ever."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil
from serving import Server, eventually, serving

from ops.clients import Clients
from ops.commands import progress
from ops.fuzz.shapes import AMBIGUOUS, KICK, OVERSIZED, POST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ops.commands import Row

MEGABYTE: Final = 1e6
STEADY: Final = 8  # clients that ask as one should
STEADY_RATE: Final = 500.0  # requests a second that they make together
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
RECORDS: Final = 20_000
GROWTH_MAX: Final = 30.0  # MB that the server may grow by while an answer of many is not taken


class Target:
    """A server under attack.

    Attributes:
        url: of its API.
        address: host and port.
        timeout: its KICKSERVE_CLIENT_TIMEOUT in seconds.
    """

    def __init__(self, server: Server, timeout: float) -> None:
        self._server = server
        self.timeout = timeout
        self.url = server.url
        url = urlsplit(server.url)
        self.address = (url.hostname or "", url.port or 0)

    def memory(self) -> float:
        """Return the resident memory of the server, in MB."""
        return float(psutil.Process(self._server.process.pid).memory_info().rss) / MEGABYTE

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(*self.address)

    async def exchange(self, sent: bytes, patience: float = 5.0) -> tuple[bytes, bool]:
        """Send bytes; return the answer until the end or silence, and whether it was the end."""
        reader, writer = await self.connect()
        answer = b""
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                await writer.drain()
            while part := await asyncio.wait_for(reader.read(65_536), patience if not answer else 0.5):
                answer += part
        except TimeoutError:
            return answer, False
        except ConnectionError:
            pass
        finally:
            writer.close()
        return answer, True


@asynccontextmanager
async def steady(target: Target) -> AsyncIterator[Clients]:
    """Have clients ask as one should, while others attack."""
    clients = Clients(target.url, connections=STEADY, rate=STEADY_RATE, lasting=True)
    await eventually(lambda: len(clients.times) > STEADY)
    yield clients
    await clients.end()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer, and return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head


async def slowly(target: Target, clients: int, begun: bytes) -> Row:
    """Have clients send a byte now and then."""

    async def dribble() -> tuple[bytes | None, float]:
        """Return the answer, empty where the connection was reset, None where the client was let go on."""
        reader, writer = await target.connect()
        began = time.perf_counter()
        writer.write(begun)
        answer = asyncio.create_task(reader.read())
        while not answer.done() and time.perf_counter() - began < target.timeout + 10:
            with contextlib.suppress(ConnectionError):
                writer.write(b"a")
            await asyncio.wait([answer], timeout=0.2)
        writer.close()
        seconds = time.perf_counter() - began
        if not answer.done():
            answer.cancel()
            return None, seconds
        return b"" if answer.exception() else answer.result(), seconds

    async with steady(target) as others:
        await asyncio.sleep(1)
        before, began = others.p99(), time.perf_counter()
        ended = await asyncio.gather(*(dribble() for _ in range(clients)))
        during = others.p99(began)
    timely = sum((answer or b"").startswith(b"HTTP/1.1 408 ") for answer, _ in ended)
    # A byte that arrives behind the answer resets the connection, and a slow reader's answer is lost with it.
    reset = sum(answer == b"" for answer, _ in ended)
    return {
        "clients": clients,
        "answered_408": timely,
        "reset": reset,
        "longest_s": round(max(seconds for _, seconds in ended), 1),
        "p99_before_ms": before,
        "p99_during_ms": during,
        "others_failed": others.failed,
        "passed": timely > 0 and timely + reset == clients and not others.failed,
    }


async def silently(target: Target, clients: int) -> Row:
    """Have many clients connect and say nothing."""
    async with steady(target) as others:
        await asyncio.sleep(1)
        before, began, memory = others.p99(), time.perf_counter(), target.memory()
        sockets = [await _silent(target.address) for _ in range(clients)]
        await asyncio.sleep(1)
        grown, during = target.memory() - memory, others.p99(began)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(target.timeout + 15):
                closed = await asyncio.gather(*(loop.sock_recv(each, 1) for each in sockets))
        except TimeoutError:
            closed = []
        for each in sockets:
            each.close()
    return {
        "clients": clients,
        "kB_a_connection": round(grown * 1000 / clients, 1),
        "closed": len(closed),
        "p99_before_ms": before,
        "p99_during_ms": during,
        "others_failed": others.failed,
        "passed": len(closed) == clients and not others.failed,
    }


async def _silent(address: tuple[str, int]) -> socket.socket:
    silent = socket.socket()
    silent.settimeout(0)
    await asyncio.get_running_loop().sock_connect(silent, address)
    return silent


async def crowded(target: Target, most: int) -> Row:
    """Open more connections than there may be; then go, and see that others may come."""
    pairs = [await target.connect() for _ in range(most)]
    await asyncio.sleep(0.2)
    answers = [await target.exchange(POST) for _ in range(20)]
    for _, writer in pairs:
        writer.close()
    await asyncio.sleep(0.5)
    again, _ = await target.exchange(POST)
    refused = sum(answer.startswith(b"HTTP/1.1 503 ") and end for answer, end in answers)
    return {"refused_503": refused, "passed": refused == len(answers) and again.startswith(b"HTTP/1.1 200 ")}


async def oversized(target: Target) -> Row:
    """Send heads that are too long."""
    memory = target.memory()
    found = {name: await target.exchange(sent) for name, sent in OVERSIZED.items()}
    statuses = {name: answer[9:12].decode() for name, (answer, _) in found.items()}
    good = all(
        end and status == "431" for (_, end), status in zip(found.values(), statuses.values(), strict=True)
    )
    return {**statuses, "grown_MB": round(target.memory() - memory, 1), "passed": good}


async def ambiguous(target: Target) -> Row:
    """Send what two servers in a row could take for different requests: one answer at most, and the end."""
    wrong = {}
    for name, sent in AMBIGUOUS.items():
        answer, end = await target.exchange(sent)
        if answer.count(b"HTTP/1.1 ") != 1 or not answer.startswith(b"HTTP/1.1 400 ") or not end:
            wrong[name] = repr(answer[:200])
    return {"shapes": len(AMBIGUOUS), "wrong": wrong, "passed": not wrong}


async def greedy(target: Target) -> Row:
    """Ask for all records, and take none: unread answers must not pile up."""
    body = b"[" + b",".join([KICK] * RECORDS) + b"]"
    kept, _ = await target.exchange(_post("/predict/batch", body), patience=60)
    assert kept.startswith(b"HTTP/1.1 200 "), kept[:200]
    memory = target.memory()
    lines = b"GET /api/v1/predictions HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n"
    connections = []
    async with steady(target) as others:
        for _ in range(10):
            connections.append(each := await _silent(target.address))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_sendall(each, lines)
        most = 0.0
        dropped = 0
        until = time.perf_counter() + target.timeout + 15
        while dropped < len(connections) and time.perf_counter() < until:
            await asyncio.sleep(0.25)
            most = max(most, target.memory() - memory)
            dropped = len(connections) - _taken_up(target)
    for each in connections:
        each.close()
    good = most < GROWTH_MAX and dropped == len(connections) and not others.failed
    return {"grown_MB": round(most, 1), "dropped": dropped, "others_failed": others.failed, "passed": good}


def _taken_up(target: Target) -> int:
    """Count the server's connections, but for those of the steady clients."""
    connections = psutil.Process(target._server.process.pid).net_connections("tcp")  # noqa: SLF001
    return max(0, sum(each.status == psutil.CONN_ESTABLISHED for each in connections) - STEADY)


async def half_closed(target: Target) -> Row:
    """Say that nothing more will come, and wait for the answer."""
    answered = 0
    for path, body in [("/predict", KICK), ("/explain", KICK), ("/predict/batch", b"[" + KICK + b"]")]:
        reader, writer = await target.connect()
        writer.write(_post(path, body))
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            answered += (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    return {"answered": answered, "passed": answered == 3}  # noqa: PLR2004  all of them


async def resets(target: Target, clients: int) -> Row:
    """Break off in the middle of a body, with RST."""
    async with steady(target) as others:
        for _ in range(clients):
            rude = await _silent(target.address)
            await asyncio.get_running_loop().sock_sendall(rude, POST[:-20])
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            rude.close()
        await asyncio.sleep(0.5)
    left = _taken_up(target)
    return {
        "clients": clients,
        "left": left,
        "others_failed": others.failed,
        "passed": not left + others.failed,
    }


async def pipelined(target: Target, many: int) -> Row:
    """Send many requests without waiting: each has its answer, in order."""
    reader, writer = await target.connect()
    numbers = range(many)
    writer.write(b"".join(POST.replace(b"Host", b"X-Request-ID: r%d\r\nHost" % number) for number in numbers))
    ids = []
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
        for _ in numbers:
            async with asyncio.timeout(10):
                head = await _answer(reader)
            ids.append(head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0])
    writer.close()
    return {"answered": len(ids), "passed": ids == [b"r%d" % number for number in numbers]}


def _post(path: str, body: bytes) -> bytes:
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def hardness(
    only: tuple[str, ...] = (),
    idle: int = 10_000,
    slow: int = 300,
    timeout: float = 5.0,
) -> list[Row]:
    """Attack a real server as slow, silent, rude and numerous clients do, each attack on a server of its own.

    Fails where an attack got through: a client that holds on for ever, memory that grows, two answers to one
    ambiguous request, or an error for well-behaved clients.

    Args:
        only: words that attacks begin with, such as slow.
        idle: connections that say nothing.
        slow: clients that are slow, or rude.
        timeout: seconds that the server gives its clients.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent = idle if hard == resource.RLIM_INFINITY else min(idle, hard - 500)
    in_body, routed = POST[: -len(KICK)], {"KICKSERVE_FASTLANE": "0"}
    attacks: dict[str, tuple[dict[str, str], Callable[[Target], Awaitable[Row]]]] = {
        "slow head": ({}, lambda target: slowly(target, slow, POST[:40])),
        "slow body": ({}, lambda target: slowly(target, slow, in_body)),
        "slow body, router": (routed, lambda target: slowly(target, slow, in_body)),
        "idle": ({"KICKSERVE_CONNECTIONS_MAX": "50000"}, lambda target: silently(target, silent)),
        "crowded": ({"KICKSERVE_CONNECTIONS_MAX": "50"}, lambda target: crowded(target, 50)),
        "oversized": ({}, oversized),
        "ambiguous": ({}, ambiguous),
        "ambiguous, router": (routed, ambiguous),
        "greedy": ({}, greedy),
        "half closed": ({}, half_closed),
        "half closed, router": (routed, half_closed),
        "resets": ({}, lambda target: resets(target, slow)),
        "pipelined": ({}, lambda target: pipelined(target, 1000)),
    }
    rows = []
    usual = {"KICKSERVE_PLUGINS": "storage", "KICKSERVE_CLIENT_TIMEOUT": str(timeout)}
    for name, (changed, attack) in attacks.items():
        if only and not name.startswith(tuple(only)):
            continue
        progress.print(f"{name} ...")
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder), **{**usual, **changed}) as server:
            row = await attack(Target(server, timeout))
            code = server.end()
            bugs = any("Traceback" in line for line in server.log)
        passed = row["passed"] and not (code or bugs)
        rows.append({"attack": name, **row, "exit_code": code, "passed": passed})
    return rows
